"""Stacks grown backwards from their last layer, compiled.

What a map's size depends on follows from the layers after it (map_sizes), so a layer joins a growing stack
in O(1): its cost, its live maps and its caches are added, and nothing before changes.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from hwnas.devices.simulator.closed_form.contents import whole_words
from hwnas.devices.simulator.closed_form.growing import (
    CACHES,
    OFF_CHIP,
    ON_CHIP,
    PEAK,
    Held,
    Rows,
    Scratch,
    Stack,
    Way,
    class_of,
    make_stack,
)
from hwnas.devices.simulator.closed_form.machine import SIZE, Machine, W
from hwnas.devices.simulator.closed_form.map_sizes import (
    CHANNELS,
    HEIGHT,
    SEEN,
    WIDTH,
    X,
    Y,
    ask,
    extent,
    follow,
    kept,
    largest,
    source_of,
)
from hwnas.devices.simulator.closed_form.stack_layers import (
    Place,
    add_rider,
    add_tiles,
    clear_cost,
    innermost,
)
from hwnas.devices.simulator.closed_form.tile_cost import Path, between, move
from hwnas.devices.simulator.columns import (
    ARTICULATION,
    BARRIER,
    COSTS,
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


@cached
def grow(rows: Rows, first: int, end: int, way: Way, m: Machine, arrays: Scratch) -> Any:
    """Cost of every stack that ends at a layer, for one tile and mode.

    Args:
        first: position of the first layer that may be reached.
        arrays: filled.

    Returns:
        the lowest position it reached.
    """
    layers, last_use, total, tail, trace = rows.layers, rows.last_use, arrays.total, arrays.tail, arrays.trace
    stack = make_stack(rows, first, end, way)
    single = stack.tiles == 1
    clear_cost(total)
    clear_cost(tail[OFF_CHIP])
    clear_cost(tail[ON_CHIP])
    held = Held(0.0, 0.0, 0.0, 0.0, 0.0, 0)
    lonely = True  # still within the run between two neighbouring cuts
    p = end
    while p >= first:
        layer = layers[p]
        if layer[WHOLE] == 1 and not single:
            return p + 1
        if layer[RIDER] == 1:
            leaves = last_use[p] > layers.shape[0]
            vectors = max(held.vectors, add_rider(layer, stack.tiles, leaves, m, arrays))
            held = Held(held.peak, held.caches, held.neighbours, held.weights, vectors, held.waiting)
        else:
            held = add_map(p, stack, held, m, arrays)
        if trace.shape[0] > 0:
            for c in range(COSTS):
                for rout in range(2):
                    trace[p, rout, c] = total[c] + tail[rout, c]
        fits = on_chip_bits(held, single, m) <= m.map_room and (single or held.weights <= m.weight_room)
        # Both sums only grow: a stack that does not fit stays so. One run may spill map by map instead.
        if not fits and not (lonely and single):
            return p
        if p == first or layers[p - 1, UNIT_END] >= 1:
            finish(p, stack, held, lonely and not fits, m, arrays)
            if not fits:
                return p
            lonely = False
        if layer[BARRIER] == 1 and not single:
            return p
        p -= 1
    return first


@njit(error_model="numpy", inline="always")
def on_chip_bits(held: Held, single: bool, m: Machine) -> Any:
    """Bits that a stack needs in the memory for maps; a single tile streams its weights."""
    return held.peak + held.caches + held.vectors + (held.weights if m.one_room and not single else 0.0)


@njit(error_model="numpy", inline="always")
def add_map(p: int, stack: Stack, held: Held, m: Machine, arrays: Scratch) -> Any:
    """Add a layer that makes a map; returns what the stack holds now."""
    layer, tiling, maps, at = stack.rows.layers[p], stack.tiling, arrays.maps, p + 1
    chains, memory = m.chains, m.memory
    act, is_last = m.array.activation_bits, p == stack.last
    if maps[SEEN, at] == 0.0:
        follow(layer, stack.rows.layers[stack.last], maps, at)
    weights = held.weights + layer[WEIGHT_BITS]
    w_top = m.weights_top
    if stack.tiles > 1 or m.batch > 1:
        w_top = 0
        while w_top < m.weights_top and weights > memory[SIZE, chains[W, w_top]]:
            w_top += 1
    read_later = stack.rows.last_use[p] > stack.end
    channels = float(layer[K]) * layer[G]
    height = largest(tiling, Y, float(layer[OY]), maps, at)
    beside, below = kept(tiling, X, maps, at), kept(tiling, Y, maps, at)
    # What is kept for the neighbour stays where maps and such caches fit together.
    neighbours = held.neighbours + channels * beside * height * act
    level = min(innermost(held.peak + neighbours, m.level_sizes, m.n_levels), m.n_levels - 2)
    place = Place(at, is_last, read_later, w_top, channels, beside, below, level)
    in_bits, out_bits = add_tiles(layer, place, tiling, m, arrays)
    # A map that is also read after the stack goes off chip.
    if not is_last and read_later:
        a = innermost(out_bits, m.level_sizes, m.n_levels)
        bits = channels * layer[OY] * layer[OX] * act * m.batch
        move(bits, between(a, m.n_levels - 1, chains), chains, memory, arrays.total)
    # Weights come on chip once; a single tile has streamed them already.
    if w_top < m.weights_top and layer[WEIGHT_BITS] > 0:
        move(float(layer[WEIGHT_BITS]), Path(W, m.weights_top, w_top), chains, memory, arrays.total)
    passing, passing_height = passing_bits(layer, at, tiling, held.waiting, m, arrays)
    peak = max(held.peak, in_bits + out_bits + passing)
    # Where maps pass by, the rows of the last one stand for the layer's own in its caches.
    if passing_height >= 0.0:
        height = passing_height
    caches = held.caches
    if not is_last:
        caches += channels * (beside * height + below * layer[OX]) * act
    waiting = ask(layer, at, maps, arrays.pending, held.waiting)
    return Held(peak, caches, neighbours, weights, held.vectors, waiting)


@njit(error_model="numpy", inline="always")
def passing_bits(layer: Any, at: int, tiling: Any, waiting: int, m: Machine, arrays: Scratch) -> Any:
    """Bits of tiles of maps that are alive beside a layer's own; rows of the last of them, or -1."""
    maps, pending, passing = arrays.maps, arrays.pending, 0.0
    rows = -1.0
    for i in range(waiting):
        q = pending[i]
        if q != at and q != source_of(layer, 0, at) and q != source_of(layer, 1, at):
            rows = largest(tiling, Y, maps[HEIGHT, q], maps, q)
            columns = largest(tiling, X, maps[WIDTH, q], maps, q)
            passing += maps[CHANNELS, q] * rows * columns * m.array.activation_bits
    return passing, rows


@njit(error_model="numpy", inline="always")
def fetch_sources(stack: Stack, waiting: int, m: Machine, arrays: Scratch) -> Any:
    """Fetch the maps that a stack reads, from off chip and from where the stack before may leave them.

    Returns:
        bits of these maps; of their overlap caches.
    """
    maps, pending, want, fetch = arrays.maps, arrays.pending, arrays.want, arrays.fetch
    chains, memory, top, tiling, act = (
        m.chains,
        m.memory,
        m.n_levels - 2,
        stack.tiling,
        m.array.activation_bits,
    )
    clear_cost(fetch[OFF_CHIP])
    clear_cost(fetch[ON_CHIP])
    bits, caches = 0.0, 0.0
    for i in range(waiting):
        q = pending[i]
        channels, height, width = maps[CHANNELS, q], maps[HEIGHT, q], maps[WIDTH, q]
        bits += channels * height * width * act
        rows = largest(tiling, Y, height, maps, q)
        caches += channels * (kept(tiling, X, maps, q) * rows + kept(tiling, Y, maps, q) * width) * act
        for number in range(4):
            first_y, first_x, count = class_of(number, tiling)
            goal = want[number, q]
            if count == 0.0 or goal < 0:
                continue
            area = extent(first_y, tiling, Y, height, maps, q) * extent(first_x, tiling, X, width, maps, q)
            moved = whole_words(channels * area * act, count * m.batch)
            if goal < m.n_levels - 1:
                move(
                    moved,
                    between(m.n_levels - 1, goal, chains),
                    chains,
                    memory,
                    fetch[OFF_CHIP],
                )
            if top >= 0 and goal != top:
                move(
                    moved,
                    between(top, goal, chains),
                    chains,
                    memory,
                    fetch[ON_CHIP],
                )
    return bits, caches


@njit(error_model="numpy", inline="always")
def finish(start: int, stack: Stack, held: Held, spills: bool, m: Machine, arrays: Scratch) -> None:
    """Note a stack that starts here: fetch its sources, and say which boundary maps may stay on chip."""
    layers, tiled, end = stack.rows.layers, stack.tiles > 1, stack.end
    costs, allowed, total, tail, fetch = arrays.costs, arrays.allowed, arrays.total, arrays.tail, arrays.fetch
    source_bits, source_caches = fetch_sources(stack, held.waiting, m, arrays)
    last = layers[stack.last]
    out_bits = float(last[K]) * last[G] * last[OY] * last[OX] * m.array.activation_bits
    arrays.held[start, PEAK], arrays.held[start, CACHES] = held.peak, held.caches + source_caches
    # A map may stay if it is the only one alive at the cut and nobody reads it after the next stack.
    may_come = held.waiting == 1 and start > 0 and layers[start - 1, UNIT_END] == ARTICULATION
    may_come = may_come and stack.rows.last_use[arrays.pending[0] - 1] <= end
    may_stay = layers[end, UNIT_END] == ARTICULATION and end < layers.shape[0] - 1
    for rin in range(2):
        for rout in range(2):
            stays = rin + rout > 0
            if stays and (
                m.n_levels < 2 or (rin == ON_CHIP and not may_come) or (rout == ON_CHIP and not may_stay)
            ):
                continue
            need = on_chip_bits(held, not tiled, m) + source_caches
            if tiled:
                need += rin * source_bits + rout * out_bits
            if need > m.map_room and not (spills and not stays):
                continue
            allowed[start, rin, rout] = 1
            for c in range(COSTS):
                costs[start, rin, rout, c] = total[c] + tail[rout, c] + fetch[rin, c]
