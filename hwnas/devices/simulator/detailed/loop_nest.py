"""A layer tile as nested loops: how operands depend on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

# A layer's loops are its first seven numbers in the layer table, so they have the names of its columns.
from hwnas.devices.simulator.columns import FX, FY, OX, OY, C, G, K

LOOPS = 7
O, W, I = range(3)  # noqa: E741 - the operands' names in the literature
OPERANDS = 3
MAX_LEVELS = 8

# Where Nest.precision holds the width of partial sums, behind those of the operands.
SUMS = 3

# Columns of Hardware.ports.
READ_PORTS, WRITE_PORTS, SHARED_PORTS = range(3)

# Columns of a result row.
ENERGY, CYCLES, STALL, LOAD, DRAM_READ_BITS, DRAM_WRITE_BITS, FOUND = range(7)
COLUMNS = 7


class Windows(NamedTuple):
    """How windows lie on the input map; flat: as one element each; one_row, one_column: of the kernel."""

    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    flat: bool
    one_row: bool
    one_column: bool


class Nest(NamedTuple):
    """A layer tile as the compiled functions take it.

    Attributes:
        fdim, fsize: dimension and size of every temporal loop factor.
        unroll: average spatial unrolling per dimension, (LOOPS,).
        placed_at: level of an operand's chain below which a dimension is unrolled, (OPERANDS, LOOPS).
        nlev, levels: number of memories in use per operand, and which, (OPERANDS, MAX_LEVELS).
        mem_level: position of a memory in an operand's chain or -1, (memories, OPERANDS).
        precision: bits of final outputs, weights, inputs, partial sums.
    """

    fdim: Any
    fsize: Any
    unroll: Any
    placed_at: Any
    nlev: Any
    levels: Any
    mem_level: Any
    precision: Any
    windows: Windows
    macs: float


class Hardware(NamedTuple):
    """The memories as the compiled functions take them: one entry a memory, innermost first."""

    size: Any
    read_bits: Any
    write_bits: Any
    read_pj: Any
    write_pj: Any
    ports: Any
    bank_bits: int
    mac_pj: float


@njit(error_model="numpy")
def span(outputs: float, kernel: float, stride: int, dilation: int, pointwise: bool) -> Any:
    """Distinct input positions that outputs x kernel positions touch (ZigZag's partially relevant loops).

    An average window (a ragged unrolling) counts whole rows only.
    """
    if pointwise:
        return outputs
    a, b = stride, dilation
    while b:
        a, b = b, a % b
    return np.floor(outputs * kernel - max(0.0, kernel - stride // a) * (outputs - dilation // a) + 1e-9)


@njit(error_model="numpy")
def elements(op: int, ext: Any, windows: Windows) -> Any:
    """Elements of an operand's tensor at the given loop extents."""
    if op == O or windows.flat:
        return ext[K] * ext[G] * ext[OY] * ext[OX]
    if op == W:
        return ext[K] * ext[C] * ext[G] * ext[FY] * ext[FX]
    return (
        ext[C]
        * ext[G]
        * span(ext[OY], ext[FY], windows.stride_y, windows.dilation_y, windows.one_row)
        * span(ext[OX], ext[FX], windows.stride_x, windows.dilation_x, windows.one_column)
    )


@njit(error_model="numpy")
def relevance(op: int, dim: int, windows: Windows) -> Any:
    """0: the operand does not change along the loop, 1: it does, 2: partly (sliding windows)."""
    if op == O or windows.flat:
        return 0 if dim in (C, FY, FX) else 1
    if op == W:
        return 0 if dim in (OY, OX) else 1
    if dim == K:
        return 0
    return 1 if dim in (C, G) else 2
