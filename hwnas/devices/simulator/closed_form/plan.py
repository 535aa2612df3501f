"""The dynamic program over stacks, compiled: exact for the model that stack_search states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.map_sizes import clear
from hwnas.devices.simulator.closed_form.stack_search import grow
from hwnas.devices.simulator.columns import COSTS, FULLY_CACHED, H_CACHED, OX, OY, RIDER, SRC0, SRC1, UNIT_END
from hwnas.devices.simulator.compiled import cached

# Smaller tiles are not tried: below four rows an array with four spatial lanes idles, and narrow columns
# multiply the overlap.
MIN_ROWS, MIN_COLUMNS = 4, 8


@njit(error_model="numpy")
def candidates(oy: int, ox: int, heights: Any, widths: Any, out: Any) -> Any:
    """Tiles to try: the whole map, then fractions of it. Rows of out: (tile y, tile x, mode)."""
    n = 0
    out[n, 0], out[n, 1], out[n, 2] = oy, ox, FULLY_CACHED
    n += 1
    for b in range(widths.shape[0]):
        tx = -(-ox // widths[b])
        if b > 0 and tx == -(-ox // widths[b - 1]):
            continue
        for a in range(heights.shape[0]):
            ty = -(-oy // heights[a])
            if (a > 0 and ty == -(-oy // heights[a - 1])) or (ty >= oy and tx >= ox):
                continue
            if (ty < oy and ty < MIN_ROWS) or (tx < ox and tx < MIN_COLUMNS):
                continue
            for mode in range(3):
                # Without neighbours to the side there is no horizontal cache.
                if mode == H_CACHED and (tx >= ox or ty >= oy):
                    continue
                out[n, 0], out[n, 1], out[n, 2] = ty, tx, mode
                n += 1
    return n


@cached
def plan(
    layers: Any,
    last_use: Any,
    heights: Any,
    widths: Any,
    forced: Any,
    m: Any,
    arrays: Any,
    objective: int,
    best_cost: Any,
    choice: Any,
) -> Any:
    """Least cost of everything up to every cut: best[e] = min over start, tile, mode of best[start] + cost.

    Args:
        forced: (tile y, tile x, mode, one run): 0, 0, -1, 0 leave all free; one run keeps every stack
            between two neighbouring cuts.
        m, arrays: a Machine; a cleared Scratch without trace.
        best_cost: out, (positions + 1, 2, COSTS); index 0 is the network's input; the second index says
            whether the map stays on chip.
        choice: out, (positions + 1, 2, 5): start, rin, tile y, tile x, mode.
    """
    n = layers.shape[0]
    tried = np.zeros((3 * heights.shape[0] * widths.shape[0] + 4, 3), dtype=np.int64)
    costs, allowed = arrays.costs, arrays.allowed
    found = np.zeros((n + 1, 2), dtype=np.int64)
    found[0, 0] = 1
    run = 0
    taken = np.zeros(n, dtype=np.int64)
    for end in range(n):
        if layers[end, UNIT_END] == 0:
            continue
        last = end
        while layers[last, RIDER] == 1 and last > 0:
            last -= 1
        count = candidates(layers[last, OY], layers[last, OX], heights, widths, tried)
        if forced[0] > 0:
            # The forced tile first; the whole map only where that does not fit.
            count = 0
            for mode in range(3):
                if (forced[0] < layers[last, OY] or forced[1] < layers[last, OX]) and (
                    forced[2] < 0 or forced[2] == mode
                ):
                    tried[count, 0], tried[count, 1], tried[count, 2] = forced[0], forced[1], mode
                    count += 1
            tried[count, 0], tried[count, 1], tried[count, 2] = (
                layers[last, OY],
                layers[last, OX],
                FULLY_CACHED,
            )
            count += 1
            taken[: end + 1] = 0
        floor = run if forced[3] > 0 else 0
        run = end + 1
        for i in range(count):
            if forced[0] == 0 and i > 0 and forced[2] >= 0 and tried[i, 2] != forced[2]:
                continue
            reached = grow(layers, last_use, floor, end, tried[i, 0], tried[i, 1], tried[i, 2], m, arrays)
            lowest = max(floor, reached - 1)
            for start in range(end, lowest - 1, -1):
                for rin in range(2):
                    for rout in range(2):
                        if allowed[start, rin, rout] == 0:
                            continue
                        allowed[start, rin, rout] = 0
                        if forced[0] > 0 and i < count - 1:
                            taken[start] = 1
                        if found[start, rin] == 0 or (taken[start] == 1 and i == count - 1):
                            continue
                        value = best_cost[start, rin, objective] + costs[start, rin, rout, objective]
                        if found[end + 1, rout] == 0 or value < best_cost[end + 1, rout, objective]:
                            found[end + 1, rout] = 1
                            for c in range(COSTS):
                                best_cost[end + 1, rout, c] = (
                                    best_cost[start, rin, c] + costs[start, rin, rout, c]
                                )
                            choice[end + 1, rout, 0], choice[end + 1, rout, 1] = start, rin
                            for c in range(3):
                                choice[end + 1, rout, 2 + c] = tried[i, c]
            # Maps read from further back than it grew are few; forget everything that may have been touched.
            clear(arrays.maps, arrays.want, touched(layers, lowest, end), end + 1)
    return found[n, 0] == 1


@njit(error_model="numpy")
def touched(layers: Any, low: int, high: int) -> Any:
    """Lowest index of a map that the layers low to high read."""
    lowest = low
    for p in range(low, high + 1):
        for k in range(2):
            back = layers[p, SRC0] if k == 0 else layers[p, SRC1]
            if back > 0:
                lowest = min(lowest, max(0, p + 1 - back))
    return lowest
