"""A layer tile as nested loops: how operands depend on them.

Indices: dimensions are K C G OY OX FY FX = 0..6, operands O W I = 0 1 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

O, W, I = 0, 1, 2  # noqa: E741 - the operands' names in the literature
MAX_LEVELS = 8

# Columns of a result row.
ENERGY, CYCLES, STALL, LOAD, DRAM_READ_BITS, DRAM_WRITE_BITS, FOUND = range(7)
COLUMNS = 7


class Nest(NamedTuple):
    """A layer tile as the compiled functions take it.

    Attributes:
        fdim, fsize: dimension and size of every temporal loop factor.
        unroll: average spatial unrolling per dimension, (7,).
        placed_at: level of an operand's chain below which a dimension is unrolled, (3, 7).
        nlev, levels: number of memories in use per operand, and which, (3, MAX_LEVELS).
        mem_level: position of a memory in an operand's chain or -1, (memories, 3).
        precision: bits of final outputs, weights, inputs, partial sums.
        geom: stride y, x, dilation y, x, element-wise, one-row kernel, one-column kernel.
    """

    fdim: Any
    fsize: Any
    unroll: Any
    placed_at: Any
    nlev: Any
    levels: Any
    mem_level: Any
    precision: Any
    geom: Any
    macs: float


class Hardware(NamedTuple):
    """The memories as the compiled functions take them: one entry a memory."""

    size: Any
    read_bits: Any
    write_bits: Any
    read_pj: Any
    write_pj: Any
    ports: Any
    bank_bits: int
    mac_pj: float


@njit(error_model="numpy")
def span(outputs: float, kernel: float, stride: int, dilation: int, pointwise: int) -> Any:
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
def elements(op: int, ext: Any, geom: Any) -> Any:
    """Elements of an operand's tensor at the given loop extents; geom as in Nest."""
    if op == O or geom[4] == 1:
        return ext[0] * ext[2] * ext[3] * ext[4]
    if op == W:
        return ext[0] * ext[1] * ext[2] * ext[5] * ext[6]
    return (
        ext[1]
        * ext[2]
        * span(ext[3], ext[5], geom[0], geom[2], geom[5])
        * span(ext[4], ext[6], geom[1], geom[3], geom[6])
    )


@njit(error_model="numpy")
def relevance(op: int, dim: int, geom: Any) -> Any:
    """0: the operand does not change along the loop, 1: it does, 2: partly (sliding windows)."""
    if op == O or geom[4] == 1:
        return 0 if dim == 1 or dim == 5 or dim == 6 else 1
    if op == W:
        return 0 if dim == 3 or dim == 4 else 1
    if dim == 0:
        return 0
    return 1 if dim <= 2 else 2
