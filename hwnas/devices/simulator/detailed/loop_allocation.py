"""Which loops run inside which memory (LOMA, Symons et al., AICAS 2021)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.detailed.loop_nest import (
    LOOPS,
    OPERANDS,
    SUMS,
    Hardware,
    I,
    Nest,
    O,
    W,
    elements,
    relevance,
)

# Rows of Taken.counts: loops that are taken; sizes to choose among; loops that come in any case, as there is
# no memory above.
LOOPS_TAKEN, CHOICES, OFFSET = range(3)


class Taken(NamedTuple):
    """What memories have taken of the loops, and what the next one may take; made once and used again.

    Attributes:
        counts: see its rows; (rows, OPERANDS).
        sizes: bits of the memory with no, one, two… more loops, (OPERANDS, loops + 1).
        whole, mean: extents of the loops, with the whole unrolling and the average one.
    """

    counts: Any
    sizes: Any
    whole: Any
    mean: Any


@njit(error_model="numpy")
def nothing_taken(loops: int) -> Any:
    """Tables for a number of loop factors."""
    counts = np.zeros((3, OPERANDS), dtype=np.int64)
    return Taken(counts, np.zeros((OPERANDS, loops + 1)), np.ones(LOOPS), np.ones(LOOPS))


@njit(error_model="numpy")
def allocate(order: Any, nest: Nest, hw: Hardware, taken: Taken, cuts: Any) -> Any:
    """Give every memory the inner loops of its operands that fit (LOMA's bottom-up allocation).

    Args:
        taken: filled.
        cuts: filled: cuts[op, level] is how many loops of the order lie at or below the level.

    Returns:
        whether they fit.
    """
    counts = taken.counts
    for op in range(OPERANDS):
        counts[LOOPS_TAKEN, op] = 0
    for m in range(hw.size.shape[0]):
        if not find_sizes(m, hw.size[m], order, nest, taken):
            return False
        fit_together, outputs, weights, inputs = most_that_fit(m, hw.size[m], order, nest, taken)
        # Each operand fits, but not together: what the array takes at once passes through (as in ZigZag),
        # unless this is the outermost memory of an operand with loops left.
        if not fit_together and max(counts[OFFSET, O], counts[OFFSET, W], counts[OFFSET, I]) > 0:
            return False
        for op in range(OPERANDS):
            if counts[CHOICES, op] > 0:
                more = outputs if op == O else (weights if op == W else inputs)
                counts[LOOPS_TAKEN, op] += more + counts[OFFSET, op]
                cuts[op, nest.mem_level[m, op]] = counts[LOOPS_TAKEN, op]
    return True


@njit(error_model="numpy")
def find_sizes(m: int, room: float, order: Any, nest: Nest, taken: Taken) -> Any:
    """Fill taken for a memory; returns whether all that comes from below fits, each operand by itself.

    Args:
        room: bits of the memory.
    """
    n = order.shape[0]
    counts, sizes, whole, mean = taken.counts, taken.sizes, taken.whole, taken.mean
    for op in range(OPERANDS):
        level, found, start = nest.mem_level[m, op], 0, counts[LOOPS_TAKEN, op]
        counts[CHOICES, op] = counts[OFFSET, op] = 0
        if level < 0:
            continue
        bits = nest.precision[op]
        for p in range(start, n):
            if op == O and relevance(O, nest.fdim[order[p]], nest.windows) == 0:
                bits = nest.precision[SUMS]
        for d in range(LOOPS):
            mean[d] = nest.unroll[d] if nest.placed_at[op, d] <= level else 1.0
        for p in range(start):
            mean[nest.fdim[order[p]]] *= nest.fsize[order[p]]
        for p in range(start, n + 1):
            for d in range(LOOPS):
                whole[d] = np.ceil(mean[d] - 1e-9)
            size = elements(op, whole, nest.windows) * bits
            if size > room:
                break
            sizes[op, found] = size
            found += 1
            if p < n:
                mean[nest.fdim[order[p]]] *= nest.fsize[order[p]]
        outermost = level == nest.nlev[op] - 1
        if found == 0 or (outermost and start + found - 1 != n):
            return False
        if outermost:
            counts[OFFSET, op], sizes[op, 0], found = found - 1, sizes[op, found - 1], 1
        counts[CHOICES, op] = found
    return True


@njit(error_model="numpy")
def most_that_fit(m: int, space: float, order: Any, nest: Nest, taken: Taken) -> Any:
    """Choose together how many loops each operand takes: least traffic to the memory above.

    Args:
        space: bits of the memory.

    Returns:
        whether anything fits; how many more loops outputs, weights and inputs take.
    """
    counts, sizes, least = taken.counts, taken.sizes, np.inf
    best_o, best_w, best_i, fits = 0, 0, 0, False
    for inputs in range(max(1, counts[CHOICES, I])):
        for weights in range(max(1, counts[CHOICES, W])):
            for outputs in range(max(1, counts[CHOICES, O])):
                room, traffic = 0.0, 0.0
                for op in range(OPERANDS):
                    if counts[CHOICES, op] == 0:
                        continue
                    more = outputs if op == O else (weights if op == W else inputs)
                    room += sizes[op, more]
                    if nest.mem_level[m, op] != nest.nlev[op] - 1:
                        left = 1.0
                        for p in range(counts[LOOPS_TAKEN, op] + more, order.shape[0]):
                            left *= nest.fsize[order[p]]
                        traffic += left * sizes[op, more]
                if room <= space and traffic <= least:
                    least, fits = traffic, True
                    best_o, best_w, best_i = outputs, weights, inputs
    return fits, best_o, best_w, best_i
