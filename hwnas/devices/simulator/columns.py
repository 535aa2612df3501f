"""Names of the numbers in the tables that both models read: layers, costs, modes."""

from __future__ import annotations

# Columns of the layer table (one row a layer, int64).
(
    K,
    C,
    G,
    OY,
    OX,
    FY,
    FX,
    SY,
    SX,
    DY,
    DX,
    PAD_T,
    PAD_L,
    IN_Y,
    IN_X,
    IN_CH,
    SRC0,
    SRC1,
    SRC1_CH,
    KIND,
    WEIGHT_BITS,
    UNIT_END,
    BARRIER,
    RIDER,
    SCALE_Y,
    SCALE_X,
    WHOLE,
    PRODUCTS,
) = range(28)
LAYER_COLUMNS = 28

# What KIND may be.
CONV, ELEMENTWISE, FREE = 0, 1, 2

# What UNIT_END may be, beside 0: a stack may end here, and then its output may stay on chip.
BARRIER_CUT, ARTICULATION = 1, 2

# Entries of a cost vector.
CYCLES, ENERGY, DRAM_READ, DRAM_WRITE, ITERATIONS = range(5)
COSTS = 5

# Overlap modes.
RECOMPUTE, H_CACHED, FULLY_CACHED = 0, 1, 2
