"""The dynamic program over stacks, compiled: exact for the model that stack_search states."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.growing import Rows, Scratch, Way
from hwnas.devices.simulator.closed_form.machine import Machine
from hwnas.devices.simulator.closed_form.map_sizes import clear
from hwnas.devices.simulator.closed_form.stack_search import grow
from hwnas.devices.simulator.columns import COSTS, FULLY_CACHED, H_CACHED, OX, OY, RIDER, SRC0, SRC1, UNIT_END
from hwnas.devices.simulator.compiled import cached
from hwnas.devices.simulator.forced import Forced

# Smaller tiles are not tried: below four rows an array with four spatial lanes idles, and narrow columns
# multiply the overlap.
MIN_ROWS, MIN_COLUMNS = 4, 8


# Columns of what is tried, and of Best.choice: a tile, the overlap mode; the first layer of the stack, and
# whether its input stays on chip.
TILE_Y, TILE_X, MODE, START, INPUT_STAYS = range(5)


class Tries(NamedTuple):
    """What is tried: fractions of rows and of columns, and what is forced."""

    heights: Any
    widths: Any
    forced: Forced


class Best(NamedTuple):
    """What the program finds; the first index is a cut or 0, the second whether the map there stays on chip.

    Attributes:
        cost: (positions + 1, 2, COSTS) least cost of everything up to there; infinite where nothing is found.
        choice: (positions + 1, 2, 5): the last stack, see TILE_Y.
    """

    cost: Any
    choice: Any


class Link(NamedTuple):
    """A stack, and whether the maps before and after it stay on chip."""

    start: int
    end: int
    rin: int
    rout: int


def nothing_found(positions: int) -> Best:
    """Where the program starts."""
    cost = np.full((positions + 1, 2, COSTS), np.inf)
    cost[0, 0] = 0.0
    return Best(cost, np.zeros((positions + 1, 2, 5), dtype=np.int64))


@njit(error_model="numpy")
def candidates(oy: int, ox: int, heights: Any, widths: Any, out: Any) -> Any:
    """Tiles to try: the whole map, then fractions of it. A row of out for each."""
    n = 0
    out[n, TILE_Y], out[n, TILE_X], out[n, MODE] = oy, ox, FULLY_CACHED
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
                out[n, TILE_Y], out[n, TILE_X], out[n, MODE] = ty, tx, mode
                n += 1
    return n


@njit(error_model="numpy")
def forced_candidates(oy: int, ox: int, forced: Forced, out: Any) -> Any:
    """Tiles to try where one is forced: that one first; the whole map only where it does not fit."""
    n = 0
    for mode in range(3):
        smaller = forced.tile_y < oy or forced.tile_x < ox
        if smaller and (forced.mode < 0 or forced.mode == mode):
            out[n, TILE_Y], out[n, TILE_X], out[n, MODE] = forced.tile_y, forced.tile_x, mode
            n += 1
    out[n, TILE_Y], out[n, TILE_X], out[n, MODE] = oy, ox, FULLY_CACHED
    return n + 1


@cached
def plan(rows: Rows, tries: Tries, m: Machine, arrays: Scratch, objective: int, best: Best) -> Any:
    """Least cost of everything up to every cut: best[e] = min over start, tile, mode of best[start] + cost.

    Args:
        arrays: cleared, without trace.
        objective: entry of a cost that is minimised.
        best: filled.

    Returns:
        whether there is a schedule.
    """
    layers, forced = rows.layers, tries.forced
    n, tile_is_forced = layers.shape[0], forced.tile_y > 0
    tried = np.zeros((3 * tries.heights.shape[0] * tries.widths.shape[0] + 4, 3), dtype=np.int64)
    taken = np.zeros(n, dtype=np.int64)
    costs, allowed, cost, choice = arrays.costs, arrays.allowed, best.cost, best.choice
    run = 0
    for end in range(n):
        if layers[end, UNIT_END] == 0:
            continue
        last = end
        while layers[last, RIDER] == 1 and last > 0:
            last -= 1
        if tile_is_forced:
            count = forced_candidates(layers[last, OY], layers[last, OX], forced, tried)
            taken[: end + 1] = 0
        else:
            count = candidates(layers[last, OY], layers[last, OX], tries.heights, tries.widths, tried)
        floor = run if forced.one_run > 0 else 0
        run = end + 1
        for i in range(count):
            way = Way(tried[i, TILE_Y], tried[i, TILE_X], tried[i, MODE])
            if not tile_is_forced and i > 0 and forced.mode >= 0 and way.mode != forced.mode:
                continue
            lowest = max(floor, grow(rows, floor, end, way, m, arrays) - 1)
            for start in range(end, lowest - 1, -1):
                for rin in range(2):
                    for rout in range(2):
                        if allowed[start, rin, rout] == 0:
                            continue
                        allowed[start, rin, rout] = 0
                        if tile_is_forced and i < count - 1:
                            taken[start] = 1
                        if taken[start] == 0 or i < count - 1:
                            improve(Link(start, end, rin, rout), way, costs, objective, cost, choice)
            # Maps read from further back than it grew are few; forget everything that may have been touched.
            clear(arrays.maps, arrays.want, touched(layers, lowest, end), end + 1)
    return cost[n, 0, objective] < np.inf


@njit(error_model="numpy", inline="always")
def improve(link: Link, way: Way, costs: Any, objective: int, cost: Any, choice: Any) -> None:
    """Take a stack behind the best schedule up to its start, where that costs less than what is known."""
    start, rin, rout, after = link.start, link.rin, link.rout, link.end + 1
    value = cost[start, rin, objective] + costs[start, rin, rout, objective]
    if value < cost[after, rout, objective]:
        for c in range(COSTS):
            cost[after, rout, c] = cost[start, rin, c] + costs[start, rin, rout, c]
        choice[after, rout, TILE_Y], choice[after, rout, TILE_X] = way.tile_y, way.tile_x
        choice[after, rout, MODE] = way.mode
        choice[after, rout, START], choice[after, rout, INPUT_STAYS] = start, rin


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
