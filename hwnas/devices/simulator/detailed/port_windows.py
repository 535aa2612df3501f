"""Streams that share a memory's port: which port they take, and when it is in use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Where a stream through a memory goes or comes from.
TO_ARRAY, FROM_ABOVE, FROM_ARRAY, TO_ABOVE = range(4)
WAYS = 4


@njit(error_model="numpy")
def port_of(way: int, reads: int, writes: int) -> Any:
    """Which port of a memory carries a stream; with two, the array side and the upper side have their own.

    Args:
        reads, writes: how many ports read, how many write.
    """
    if way == TO_ARRAY:
        return 0
    if way == TO_ABOVE:
        return 1 if reads > 1 else 0
    if way == FROM_ABOVE:
        return reads
    return reads + (1 if writes > 1 else 0)


@njit(error_model="numpy")
def window_union(periods: Any, windows: Any, count: int) -> Any:
    """Cycles of the longest period covered by at least one of the periodic transfer windows.

    Stream i may use the first windows[i] cycles of every periods[i] cycles. Periods are prefix products
    of one loop order, so each divides the next and the union has this closed form (ZigZag walks through
    every cycle instead). Arrays are sorted by period.
    """
    covered = np.zeros(count, dtype=np.int64)
    for i in range(count):
        covered[i] = windows[i]
        if i > 0 and windows[i] < periods[i]:
            until_end = _covered(periods, windows, covered, i - 1, periods[i])
            covered[i] += until_end - _covered(periods, windows, covered, i - 1, windows[i])
    return covered[count - 1]


@njit(error_model="numpy")
def _covered(periods: Any, windows: Any, covered: Any, top: int, end: int) -> Any:
    """Cycles in [0, end) covered by the windows 0..top, repeated for ever."""
    total = (end // periods[top]) * covered[top]
    rest = end % periods[top]
    if rest <= windows[top] or top == 0:
        return total + min(rest, windows[top])
    until_rest = _covered(periods, windows, covered, top - 1, rest)
    return total + windows[top] + until_rest - _covered(periods, windows, covered, top - 1, windows[top])
