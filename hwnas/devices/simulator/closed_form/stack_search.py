"""Stacks grown backwards from their last layer, compiled.

What a map's size depends on follows from the layers after it (map_sizes), so a layer joins a growing stack
in O(1): its cost, its live maps and its caches are added, and nothing before changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.contents import whole_words
from hwnas.devices.simulator.closed_form.machine import SIZE
from hwnas.devices.simulator.closed_form.map_sizes import (
    CACHED,
    CHANNELS,
    COUNT,
    HEIGHT,
    MAP_ROWS,
    REMAINDER,
    SEEN,
    TILE,
    WIDTH,
    ask,
    clear,
    extent,
    follow,
    kept,
    largest,
    source_of,
)
from hwnas.devices.simulator.closed_form.stack_layers import add_rider, add_tiles, innermost
from hwnas.devices.simulator.closed_form.tile_cost import move
from hwnas.devices.simulator.columns import (
    BARRIER,
    COSTS,
    FULLY_CACHED,
    H_CACHED,
    OX,
    OY,
    RIDER,
    UNIT_END,
    WEIGHT_BITS,
    WHOLE,
    G,
    K,
)
from hwnas.devices.simulator.compiled import cached


class Scratch(NamedTuple):
    """Arrays that grow() fills; made once and used again.

    Attributes:
        costs: (position, rin, rout, COSTS) of the stack that starts there; rin, rout: the boundary map
            before, after the stack stays on chip.
        allowed: (position, rin, rout) whether that stack is possible.
        held: (position, 2) bits of live maps and of overlap caches.
        maps, want: geometry of the maps met so far; see clear().
        pending: indices of the maps that are read, but whose producer has not been reached.
        trace: (position, rout, COSTS) running totals, or no rows where they are not wanted.
    """

    costs: Any
    allowed: Any
    held: Any
    maps: Any
    want: Any
    pending: Any
    trace: Any


def scratch(positions: int, traced: bool = False) -> Scratch:
    """Arrays for a network with a number of layers."""
    made = Scratch(
        np.zeros((positions, 2, 2, COSTS)),
        np.zeros((positions, 2, 2), dtype=np.int64),
        np.zeros((positions, 2)),
        np.zeros((MAP_ROWS, positions + 2)),
        np.zeros((4, positions + 2), dtype=np.int64),
        np.zeros(positions + 2, dtype=np.int64),
        np.zeros((positions if traced else 0, 2, COSTS)),
    )
    clear.py_func(made.maps, made.want, 0, positions + 1)
    return made


@cached
def grow(
    layers: Any, last_use: Any, first: int, end: int, tile_y: int, tile_x: int, mode: int, m: Any, arrays: Any
) -> Any:
    """Cost of every stack that ends at a layer, for one tile and mode.

    Args:
        first: position of the first layer that may be reached.
        m, arrays: a Machine; a Scratch, which is filled.

    Returns:
        the lowest position it reached.
    """
    act, n_levels, batch = m.scalars[1], m.n_levels, m.batch
    chains, memory, levels, level_sizes = m.chains, m.memory, m.levels, m.level_sizes
    maps, trace = arrays.maps, arrays.trace
    last = end
    while layers[last, RIDER] == 1 and last > first:
        last -= 1
    tiling = make_tiling(layers[last], tile_y, tile_x, mode)
    tiles = tiling[0, COUNT] * tiling[1, COUNT]
    single = tiles == 1
    w_off = 0  # position of the off-chip memory in the weight chain
    while w_off < 6 and m.chains[1, w_off + 1] >= 0:
        w_off += 1
    pending, n_pending = arrays.pending, 0
    busy = np.zeros((6, int(m.scalars[4])))
    total, tail, one = np.zeros(COSTS), np.zeros((2, COSTS)), np.zeros(COSTS)
    biggest = np.zeros(2)
    peak, caches, neighbours, weights, vectors = 0.0, 0.0, 0.0, 0.0, 0.0
    lonely = True  # still within the run between two neighbouring cuts
    p = end
    while p >= first:
        layer = layers[p]
        if layer[WHOLE] == 1 and not single:
            return p + 1
        if layer[RIDER] == 1:
            leaves = last_use[p] > layers.shape[0]
            vectors = max(vectors, add_rider(layer, tiles, w_off, leaves, m, busy, one, total))
        else:
            at = p + 1
            if maps[SEEN, at] == 0.0:
                follow(layer, layers[last], maps, at)
            weights += layer[WEIGHT_BITS]
            w_top = w_off
            if tiles > 1 or batch > 1:
                w_top = 0
                while w_top < w_off and weights > m.memory[SIZE, m.chains[1, w_top]]:
                    w_top += 1
            read_later = last_use[p] > end
            channels = float(layer[K]) * layer[G]
            rows = largest(tiling, 0, float(layer[OY]), maps, at)
            beside, below = kept(tiling, 1, maps, at), kept(tiling, 0, maps, at)
            # What is kept for the neighbour stays where maps and such caches fit together.
            neighbours += channels * beside * rows * act
            level = min(innermost(peak + neighbours, level_sizes, n_levels), n_levels - 2)
            add_tiles(
                layer,
                at,
                p == last,
                read_later,
                tiling,
                w_top,
                level,
                m,
                arrays,
                busy,
                one,
                total,
                tail,
                biggest,
            )
            # A map that is also read after the stack goes off chip.
            if p != last and read_later:
                a = innermost(biggest[1], level_sizes, n_levels)
                bits = channels * layer[OY] * layer[OX] * act * batch
                move(bits, levels[0, a], levels[0, n_levels - 1], 0, chains, memory, total)
            # Weights come on chip once; a single tile has streamed them already.
            if w_top < w_off and layer[WEIGHT_BITS] > 0:
                move(float(layer[WEIGHT_BITS]), w_off, w_top, 1, chains, memory, total)
            # Live maps: this layer's own and those that pass by.
            passing = 0.0
            for i in range(n_pending):
                q = pending[i]
                if q != at and q != source_of(layer, 0, at) and q != source_of(layer, 1, at):
                    rows = largest(tiling, 0, maps[HEIGHT, q], maps, q)
                    passing += maps[CHANNELS, q] * rows * largest(tiling, 1, maps[WIDTH, q], maps, q) * act
            peak = max(peak, biggest[0] + biggest[1] + passing)
            if p != last:
                caches += channels * (beside * rows + below * layer[OX]) * act
            n_pending = ask(layer, at, maps, pending, n_pending)
        if trace.shape[0] > 0:
            for c in range(COSTS):
                for rout in range(2):
                    trace[p, rout, c] = total[c] + tail[rout, c]
        at_start = p == first or layers[p - 1, UNIT_END] >= 1
        on_chip = peak + caches + vectors + (weights if m.limits[2] > 0 and not single else 0.0)
        fits = on_chip <= m.limits[0] and (single or weights <= m.limits[1])
        # Both sums only grow: a stack that does not fit stays so. One run may spill map by map instead.
        if not fits and not (lonely and single):
            return p
        if at_start:
            arrays.held[p, 0] = peak
            finish(
                layers,
                last_use,
                p,
                end,
                last,
                tiling,
                pending,
                n_pending,
                on_chip,
                caches,
                lonely and not fits,
                m,
                arrays,
                total,
                tail,
            )
            if not fits:
                return p
            lonely = False
        if layer[BARRIER] == 1 and not single:
            return p
        p -= 1
    return first


@njit(error_model="numpy", inline="always")
def make_tiling(layer: Any, tile_y: int, tile_x: int, mode: int) -> Any:
    """The tiling of a stack by its last layer's output; see map_sizes."""
    tiling = np.zeros((2, 4))
    for axis in range(2):
        size = float(layer[OY]) if axis == 0 else float(layer[OX])
        tile = min(float(tile_y) if axis == 0 else float(tile_x), size)
        count = np.ceil(size / tile)
        tiling[axis, TILE], tiling[axis, REMAINDER], tiling[axis, COUNT] = (
            tile,
            size - (count - 1.0) * tile,
            count,
        )
        cached = count > 1 and (mode >= H_CACHED if axis == 1 else mode >= FULLY_CACHED)
        tiling[axis, CACHED] = 1.0 if cached else 0.0
    return tiling


@njit(error_model="numpy", inline="always")
def finish(
    layers: Any,
    last_use: Any,
    start: int,
    end: int,
    last: int,
    tiling: Any,
    pending: Any,
    n_pending: int,
    on_chip: float,
    caches: float,
    spills: bool,
    m: Any,
    arrays: Any,
    total: Any,
    tail: Any,
) -> None:
    """Note a stack that starts here: fetch its sources, and say which boundary maps may stay on chip."""
    act, n_levels, top, maps = m.scalars[1], m.n_levels, m.n_levels - 2, arrays.maps
    chains, memory, levels = m.chains, m.memory, m.levels
    tiled = tiling[0, COUNT] * tiling[1, COUNT] > 1
    fetch = np.zeros((2, COSTS))
    source_bits, source_caches = 0.0, 0.0
    for i in range(n_pending):
        q = pending[i]
        channels, height, width = maps[CHANNELS, q], maps[HEIGHT, q], maps[WIDTH, q]
        source_bits += channels * height * width * act
        rows = largest(tiling, 0, height, maps, q)
        source_caches += channels * (kept(tiling, 1, maps, q) * rows + kept(tiling, 0, maps, q) * width) * act
        for cls in range(4):
            first_y, first_x = cls < 2, cls % 2 == 0
            count = (1.0 if first_y else tiling[0, COUNT] - 1.0) * (
                1.0 if first_x else tiling[1, COUNT] - 1.0
            )
            goal = arrays.want[cls, q]
            if count == 0.0 or goal < 0:
                continue
            area = extent(first_y, tiling, 0, height, maps, q) * extent(first_x, tiling, 1, width, maps, q)
            bits = whole_words(channels * area * act, count * m.batch)
            if goal < n_levels - 1:
                move(bits, levels[0, n_levels - 1], levels[0, goal], 0, chains, memory, fetch[0])
            if top >= 0 and goal != top:
                move(bits, levels[0, top], levels[0, goal], 0, chains, memory, fetch[1])
    out_bits = float(layers[last, K]) * layers[last, G] * layers[last, OY] * layers[last, OX] * act
    arrays.held[start, 1] = caches + source_caches
    # A map may stay if it is the only one alive at the cut and nobody reads it after the next stack.
    may_come = n_pending == 1 and start > 0 and layers[start - 1, UNIT_END] == 2
    may_come = may_come and last_use[pending[0] - 1] <= end
    may_stay = layers[end, UNIT_END] == 2 and end < layers.shape[0] - 1
    for rin in range(2):
        for rout in range(2):
            if rin + rout > 0 and (top < 0 or (rin == 1 and not may_come) or (rout == 1 and not may_stay)):
                continue
            need = on_chip + source_caches
            if tiled:
                need += rin * source_bits + rout * out_bits
            if need > m.limits[0] and not (spills and rin + rout == 0):
                continue
            arrays.allowed[start, rin, rout] = 1
            for c in range(COSTS):
                arrays.costs[start, rin, rout, c] = total[c] + tail[rout, c] + fetch[rin, c]
