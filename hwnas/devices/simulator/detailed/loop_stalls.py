"""Cycles that the array waits for memories (ZigZag: Mei et al., DATE 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.detailed.loop_contents import (
    BITS,
    BOOST,
    CUT,
    DATA,
    DOUBLE,
    KEPT,
    MEAN_DATA,
    NEEDED,
    PARTIAL,
    PERIOD,
    SERVED,
    USED,
    WINDOW,
    Contents,
)
from hwnas.devices.simulator.detailed.loop_nest import (
    OPERANDS,
    READ_PORTS,
    SHARED_PORTS,
    WRITE_PORTS,
    Hardware,
    Nest,
    O,
    relevance,
)
from hwnas.devices.simulator.detailed.port_windows import (
    FROM_ABOVE,
    TO_ABOVE,
    TO_ARRAY,
    WAYS,
    port_of,
    window_union,
)


@njit(error_model="numpy")
def find_refills(order: Any, nest: Nest, sizes: Any, contents: Contents) -> None:
    """Fill DOUBLE, KEPT, USED: which memories can be refilled while they are used (double buffering)."""
    counts, amounts, shared = contents.counts, contents.amounts, contents.shared
    for m in range(sizes.shape[0]):
        shared[m] = 0.0
    for op in range(OPERANDS):
        for lv in range(nest.nlev[op]):
            m, fresh, kept = nest.levels[op, lv], 1, 1
            low, high = counts[CUT, op, lv], counts[CUT, op, lv + 1] - 1
            p = high
            while p >= low and relevance(op, nest.fdim[order[p]], nest.windows) == 1:
                fresh *= nest.fsize[order[p]]
                p -= 1
            p = high
            while p >= low and relevance(op, nest.fdim[order[p]], nest.windows) == 0:
                kept *= nest.fsize[order[p]]
                p -= 1
            counts[KEPT, op, lv + 1] = kept
            bits = amounts[BITS, op, lv + 1]
            data = np.floor(amounts[MEAN_DATA, op, lv + 1] + 0.5)
            amounts[USED, op, lv] = np.floor(data * bits / fresh) / sizes[m]
            shared[m] += amounts[USED, op, lv]
    for op in range(OPERANDS):
        counts[DOUBLE, op, 0], counts[KEPT, op, 0] = 0, 1
        for lv in range(nest.nlev[op]):
            m, used = nest.levels[op, lv], amounts[USED, op, lv]
            fits = shared[m] <= 0.5 or used <= 1 - shared[m]
            counts[DOUBLE, op, lv + 1] = int(fits)
            if fits and shared[m] > 0.5:
                shared[m] += used


@njit(error_model="numpy")
def longest_stall(nest: Nest, hw: Hardware, total: int, contents: Contents) -> Any:
    """The stall of the port that delays the array most: streams that share a port compete for its cycles.

    Args:
        total: cycles of all loops.
    """
    counts, amounts, streams = contents.counts, contents.amounts, contents.streams
    stall = 0.0
    for m in range(hw.size.shape[0]):
        reads, writes = hw.ports[m, READ_PORTS], hw.ports[m, WRITE_PORTS]
        one_for_both = hw.ports[m, SHARED_PORTS] > 0 and reads == 0
        for port in range(hw.ports[m, SHARED_PORTS] if one_for_both else reads + writes):
            found = 0
            for op in range(OPERANDS):
                lv = nest.mem_level[m, op]
                if lv < 0:
                    continue
                sums_below, sums_above = counts[PARTIAL, O, lv] > 0, counts[PARTIAL, O, lv + 1] > 0
                for way in range(WAYS):
                    upper = way in (FROM_ABOVE, TO_ABOVE)
                    if (upper and lv == nest.nlev[op] - 1) or not flows(op, way, sums_below, sums_above):
                        continue
                    if port != (0 if one_for_both else port_of(way, reads, writes)):
                        continue
                    edge = lv + 1 if upper else lv
                    served, kept = counts[SERVED, op, edge], counts[KEPT, op, edge]
                    amount = amounts[DATA, op, edge] * (1.0 if upper else amounts[BOOST, op, lv])
                    wide = hw.read_bits[m] if way in (TO_ARRAY, TO_ABOVE) else hw.write_bits[m]
                    cycles = np.ceil(amount * amounts[BITS, op, edge] / wide - 1e-9)
                    streams[PERIOD, found] = served
                    streams[WINDOW, found] = served if counts[DOUBLE, op, edge] else served // kept
                    streams[NEEDED, found] = int(cycles)
                    found += 1
            if found > 0:
                stall = max(stall, port_stall(streams, found, total))
    return stall


@njit(error_model="numpy")
def flows(op: int, way: int, sums_below: bool, sums_above: bool) -> Any:
    """Whether an operand takes a way through a memory below which, above which partial sums travel up."""
    if op != O:
        return way in (TO_ARRAY, FROM_ABOVE)
    if way == TO_ARRAY:
        return sums_below
    return way != FROM_ABOVE or sums_above


@njit(error_model="numpy")
def port_stall(streams: Any, found: int, total: int) -> Any:
    """Cycles that the streams of a port wait for one another.

    Args:
        found: how many streams there are; total: cycles of all loops.
    """
    if found == 1:
        return float((streams[NEEDED, 0] - streams[WINDOW, 0]) * (total // streams[PERIOD, 0] - 1))
    sort_by_period(streams, found)
    lost, slack, windows = 0.0, 0.0, 0.0
    for i in range(found):
        repeats = total // streams[PERIOD, i] - 1
        difference = float((streams[NEEDED, i] - streams[WINDOW, i]) * repeats)
        if difference > 0:
            lost += difference
        else:
            slack += difference
        windows += float(streams[WINDOW, i] * repeats)
    longest = total // streams[PERIOD, found - 1]
    union = float(window_union(streams[PERIOD], streams[WINDOW], found)) * longest
    return lost + max(0.0, slack + windows - union)


@njit(error_model="numpy")
def sort_by_period(streams: Any, found: int) -> None:
    """Sort the first streams by period; equal ones stay in their order."""
    for i in range(1, found):
        b = i
        while b > 0 and streams[PERIOD, b] < streams[PERIOD, b - 1]:
            for row in range(streams.shape[0]):
                streams[row, b], streams[row, b - 1] = streams[row, b - 1], streams[row, b]
            b -= 1
