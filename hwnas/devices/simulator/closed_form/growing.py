"""A stack while it grows backwards from its last layer: the values that the compiled functions exchange."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.map_sizes import (
    CACHED,
    COUNT,
    MAP_ROWS,
    REMAINDER,
    TILE,
    X,
    Y,
    clear,
)
from hwnas.devices.simulator.columns import COSTS, FULLY_CACHED, H_CACHED, OX, OY, RIDER


class Rows(NamedTuple):
    """A network's table, see table.Table."""

    layers: Any
    last_use: Any


class Way(NamedTuple):
    """How a stack is worked through: the tile of its last layer's output, and the overlap mode."""

    tile_y: int
    tile_x: int
    mode: int


class Stack(NamedTuple):
    """What does not change while a stack grows.

    Attributes:
        rows: the network's.
        end, last: its last layer, and the last one that makes a map.
        tiling: see map_sizes.
        tiles: how many they are.
    """

    rows: Rows
    end: int
    last: int
    tiling: Any
    tiles: float


class Held(NamedTuple):
    """What a growing stack has to hold on chip, in bits.

    Attributes:
        peak: most of maps alive at once.
        caches: overlaps of all maps; neighbours: those beside a tile, in its row.
        weights, vectors: of all layers; the largest vector.
        waiting: how many maps are read, but were not made yet.
    """

    peak: float
    caches: float
    neighbours: float
    weights: float
    vectors: float
    waiting: int


# Columns of Scratch.held.
PEAK, CACHES = range(2)

# The two places of a map at a cut: rin and rout of Scratch.
OFF_CHIP, ON_CHIP = range(2)


class Scratch(NamedTuple):
    """Arrays that grow() fills; made once and used again.

    Attributes:
        costs: (position, rin, rout, COSTS) of the stack that starts there; rin, rout: whether the
            boundary map before, after the stack stays ON_CHIP.
        allowed: (position, rin, rout) whether that stack is possible.
        held: (position, 2) bits of live maps (PEAK) and of overlap caches (CACHES).
        trace: (position, rout, COSTS) running totals, or no rows where they are not wanted.
        maps, want: geometry of the maps met so far; see clear().
        pending: indices of the maps that are read, but whose producer has not been reached.
        total: (COSTS) of all layers but the last; tail: (rout, COSTS) of the last; fetch: (rin, COSTS) of
            bringing in what the stack reads.
        one: (COSTS) of one tile.
    """

    costs: Any
    allowed: Any
    held: Any
    trace: Any
    maps: Any
    want: Any
    pending: Any
    total: Any
    tail: Any
    fetch: Any
    one: Any


def scratch(positions: int, traced: bool = False) -> Scratch:
    """Arrays for a network with a number of layers."""
    made = Scratch(
        costs=np.zeros((positions, 2, 2, COSTS)),
        allowed=np.zeros((positions, 2, 2), dtype=np.int64),
        held=np.zeros((positions, 2)),
        trace=np.zeros((positions if traced else 0, 2, COSTS)),
        maps=np.zeros((MAP_ROWS, positions + 2)),
        want=np.zeros((4, positions + 2), dtype=np.int64),
        pending=np.zeros(positions + 2, dtype=np.int64),
        total=np.zeros(COSTS),
        tail=np.zeros((2, COSTS)),
        fetch=np.zeros((2, COSTS)),
        one=np.zeros(COSTS),
    )
    clear.py_func(made.maps, made.want, 0, positions + 1)
    return made


@njit(error_model="numpy", inline="always")
def make_stack(rows: Rows, first: int, end: int, way: Way) -> Any:
    """A stack that has not grown yet; first is the first layer that it may reach."""
    last = end
    while rows.layers[last, RIDER] == 1 and last > first:
        last -= 1
    tiling = np.zeros((2, 4))
    for axis in (Y, X):
        size = float(rows.layers[last, OY]) if axis == Y else float(rows.layers[last, OX])
        tile = min(float(way.tile_y) if axis == Y else float(way.tile_x), size)
        count = np.ceil(size / tile)
        tiling[axis, TILE], tiling[axis, COUNT] = tile, count
        tiling[axis, REMAINDER] = size - (count - 1.0) * tile
        cached = count > 1 and (way.mode >= H_CACHED if axis == X else way.mode >= FULLY_CACHED)
        tiling[axis, CACHED] = 1.0 if cached else 0.0
    return Stack(rows, end, last, tiling, tiling[Y, COUNT] * tiling[X, COUNT])


@njit(error_model="numpy", inline="always")
def class_of(number: int, tiling: Any) -> Any:
    """One of the four classes of tiles: whether they are the first along y, along x; how many they are."""
    first_y, first_x = number < 2, number % 2 == 0
    count = (1.0 if first_y else tiling[Y, COUNT] - 1.0) * (1.0 if first_x else tiling[X, COUNT] - 1.0)
    return first_y, first_x, count
