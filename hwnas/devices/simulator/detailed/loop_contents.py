"""What every memory holds under a loop order, and how long that serves (ZigZag: Mei et al., IEEE TC 2021).

A chain has an edge below every memory, the array's first, and one above its last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.detailed.loop_nest import (
    LOOPS,
    MAX_LEVELS,
    OPERANDS,
    SUMS,
    Nest,
    O,
    elements,
    relevance,
)

EDGES = MAX_LEVELS + 1
STREAMS = 4 * OPERANDS

# Rows of Contents.counts: cycles that what crosses an edge serves; loops of the order that run below an
# edge; whether partial sums travel up through it; whether what lies below may be replaced while it is used;
# else the outermost loops that do not change it, as their product.
SERVED, CUT, PARTIAL, DOUBLE, KEPT = range(5)

# Rows of Contents.amounts: elements that an instance holds below an edge, with the whole unrolling and, for
# energy, with the average one; how many times as many cross it because of what is unrolled there, likewise;
# instances above an edge; share of a memory in use; bits of an element that crosses an edge.
DATA, MEAN_DATA, BOOST, MEAN_BOOST, UNITS, USED, BITS = range(7)

# Rows of Contents.streams: cycles from one transfer to the next, those it may take, those it takes.
PERIOD, WINDOW, NEEDED = range(3)


class Contents(NamedTuple):
    """Tables that are filled for one loop order; made once and used again.

    They are few because every array of a tuple is counted at every call.

    Attributes:
        counts, amounts: see their rows; (rows, OPERANDS, EDGES).
        shared: share of every memory that is in use.
        streams: of one port, see their rows.
        whole, mean: extents of the loops, with the whole unrolling and the average one.
    """

    counts: Any
    amounts: Any
    shared: Any
    streams: Any
    whole: Any
    mean: Any


@njit(error_model="numpy")
def no_contents(memories: int) -> Any:
    """Tables for a number of memories."""
    return Contents(
        np.zeros((5, OPERANDS, EDGES), dtype=np.int64),
        np.zeros((7, OPERANDS, EDGES)),
        np.zeros(memories),
        np.zeros((3, STREAMS), dtype=np.int64),
        np.ones(LOOPS),
        np.ones(LOOPS),
    )


@njit(error_model="numpy")
def find_cuts(order: Any, nest: Nest, cuts: Any, counts: Any) -> Any:
    """Fill CUT, SERVED; returns cycles of all loops.

    Loops that leave an operand unchanged belong to the memory below: it keeps serving while they run.
    """
    n = order.shape[0]
    for op in range(OPERANDS):
        counts[CUT, op, 0], counts[SERVED, op, 0] = 0, 1
        for lv in range(nest.nlev[op]):
            c = max(cuts[op, lv], counts[CUT, op, lv])
            while c < n and relevance(op, nest.fdim[order[c]], nest.windows) == 0:
                c += 1
            counts[CUT, op, lv + 1] = c
            served = 1
            for p in range(c):
                served *= nest.fsize[order[p]]
            counts[SERVED, op, lv + 1] = served
    total = 1
    for p in range(n):
        total *= nest.fsize[p]
    return total


@njit(error_model="numpy")
def find_partial_sums(order: Any, nest: Nest, counts: Any, amounts: Any) -> None:
    """Fill PARTIAL, BITS: whether a sum still grows above an edge, in time or in space."""
    for edge in range(EDGES):
        counts[PARTIAL, O, edge] = 0
        for op in range(OPERANDS):
            amounts[BITS, op, edge] = nest.precision[op]
    for lv in range(nest.nlev[O]):
        for p in range(counts[CUT, O, lv], order.shape[0]):
            if relevance(O, nest.fdim[order[p]], nest.windows) == 0:
                counts[PARTIAL, O, lv] = 1
        for d in range(LOOPS):
            if nest.unroll[d] > 1 and nest.placed_at[O, d] >= lv + 1 and relevance(O, d, nest.windows) == 0:
                counts[PARTIAL, O, lv] = 1
        if counts[PARTIAL, O, lv]:
            amounts[BITS, O, lv] = nest.precision[SUMS]


@njit(error_model="numpy")
def find_unrolled(nest: Nest, contents: Contents) -> None:
    """Fill BOOST, MEAN_BOOST, UNITS, which no order changes."""
    amounts, whole, mean = contents.amounts, contents.whole, contents.mean
    for op in range(OPERANDS):
        for lv in range(nest.nlev[op] + 1):
            count = 1.0
            for d in range(LOOPS):
                mean[d] = nest.unroll[d] if nest.placed_at[op, d] == lv else 1.0
                whole[d] = np.ceil(mean[d] - 1e-9)
                if nest.placed_at[op, d] >= lv:
                    count *= nest.unroll[d]
            amounts[MEAN_BOOST, op, lv] = elements(op, mean, nest.windows)
            amounts[BOOST, op, lv] = np.floor(elements(op, whole, nest.windows) + 1e-9)
            amounts[UNITS, op, lv] = np.floor(count + 0.5)


@njit(error_model="numpy")
def find_data(order: Any, nest: Nest, contents: Contents) -> None:
    """Fill DATA, MEAN_DATA."""
    counts, amounts, whole, mean = contents.counts, contents.amounts, contents.whole, contents.mean
    for op in range(OPERANDS):
        amounts[DATA, op, 0] = amounts[MEAN_DATA, op, 0] = 1.0
        for edge in range(1, nest.nlev[op] + 1):
            for d in range(LOOPS):
                mean[d] = nest.unroll[d] if nest.placed_at[op, d] < edge else 1.0
                whole[d] = np.ceil(mean[d] - 1e-9)
            for p in range(counts[CUT, op, edge]):
                dim, size = nest.fdim[order[p]], nest.fsize[order[p]]
                whole[dim] *= size
                mean[dim] *= size
            amounts[DATA, op, edge] = elements(op, whole, nest.windows)
            amounts[MEAN_DATA, op, edge] = np.floor(elements(op, mean, nest.windows) + 0.5)
