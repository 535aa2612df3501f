"""What one layer adds to a growing stack, compiled."""

from __future__ import annotations

from typing import Any

from numba import njit

from hwnas.devices.simulator.closed_form.map_sizes import (
    COUNT,
    extent,
    kept,
    nest_span,
    read_span,
    source_of,
    touched,
)
from hwnas.devices.simulator.closed_form.tile_cost import move, tile_cost
from hwnas.devices.simulator.columns import COSTS, FREE, IN_CH, IN_X, IN_Y, KIND, OX, OY, SRC1, SRC1_CH, G, K


@njit(error_model="numpy")
def innermost(bits: float, sizes: Any, count: int) -> Any:
    """Innermost activation level with room; the last one (off chip) takes everything."""
    for level in range(count - 1):
        if bits <= sizes[level]:
            return level
    return count - 1


@njit(error_model="numpy")
def clear_cost(cost: Any) -> None:
    """Set a cost to nothing."""
    for c in range(COSTS):
        cost[c] = 0.0


@njit(error_model="numpy")
def add_scaled(cost: Any, times: float, total: Any) -> None:
    """Add a cost a number of times; a loop, because array arithmetic would allocate."""
    for c in range(COSTS):
        total[c] += cost[c] * times


@njit(error_model="numpy", inline="always")
def add_rider(
    layer: Any, tiles: float, w_off: int, leaves: bool, m: Any, busy: Any, one: Any, total: Any
) -> Any:
    """A vector layer, or the pooling that makes one: computed once, its result never leaves the chip.

    Returns:
        bits of the result.
    """
    array, chains, memory, scalars = m.array, m.chains, m.memory, m.scalars
    levels, level_sizes = m.levels, m.level_sizes
    act = scalars[1]
    clear_cost(one)
    in_bits = float(layer[IN_CH]) * layer[IN_Y] * layer[IN_X] * act
    out_bits = float(layer[K]) * layer[G] * layer[OY] * layer[OX] * act
    a = innermost(in_bits / tiles, level_sizes, m.n_levels)
    o = innermost(out_bits, level_sizes, m.n_levels)
    oy, ox = float(layer[OY]), float(layer[OX])
    if layer[KIND] != FREE:
        tile_cost(
            layer,
            oy,
            ox,
            in_bits,
            out_bits,
            levels[1, a],
            levels[0, o],
            w_off,
            array,
            chains,
            memory,
            scalars,
            busy,
            one,
        )
    add_scaled(one, m.batch, total)
    if leaves:
        move(out_bits * m.batch, levels[0, o], levels[0, m.n_levels - 1], 0, chains, memory, total)
    return out_bits


@njit(error_model="numpy", inline="always")
def add_tiles(
    layer: Any,
    at: int,
    is_last: bool,
    read_later: bool,
    tiling: Any,
    w_top: int,
    beside_level: int,
    m: Any,
    arrays: Any,
    busy: Any,
    one: Any,
    total: Any,
    tail: Any,
    biggest: Any,
) -> None:
    """All tiles of a layer: first and later ones along both axes, with hand-overs and overlap caches.

    A stack's last layer goes to tail, once for an output that leaves the chip and once for one that stays.
    Args:
        w_top: position in the weight chain from which weights come.
        beside_level: activation level of the cache between neighbours in a row of tiles.
        biggest: out, bits of the largest input and output tile.
    """
    array, chains, memory, scalars = m.array, m.chains, m.memory, m.scalars
    levels, level_sizes = m.levels, m.level_sizes
    act, n_levels, top = scalars[1], m.n_levels, m.n_levels - 2
    maps, want = arrays.maps, arrays.want
    channels = float(layer[K]) * layer[G]
    beside, below = kept(tiling, 1, maps, at), kept(tiling, 0, maps, at)
    biggest[0], biggest[1] = 0.0, 0.0
    for cls in range(4):
        first_y, first_x = cls < 2, cls % 2 == 0
        count = (1.0 if first_y else tiling[0, COUNT] - 1.0) * (1.0 if first_x else tiling[1, COUNT] - 1.0)
        oy = extent(first_y, tiling, 0, float(layer[OY]), maps, at)
        ox = extent(first_x, tiling, 1, float(layer[OX]), maps, at)
        if count == 0.0 or oy <= 0.0 or ox <= 0.0:
            continue
        area = read_span(layer, 0, oy) * read_span(layer, 1, ox)
        in_bits = (layer[IN_CH] + (layer[SRC1_CH] if layer[SRC1] > 0 else 0)) * area * act
        out_bits = channels * oy * ox * act
        biggest[0], biggest[1] = max(biggest[0], in_bits), max(biggest[1], out_bits)
        read_bits = in_bits * touched(layer, 0, oy) * touched(layer, 1, ox)
        # The loop nest takes room for rows and columns of padding as well.
        nest_bits = in_bits * nest_span(layer, 0, oy) * nest_span(layer, 1, ox) / area
        a = innermost(nest_bits, level_sizes, n_levels)
        o = 0
        while o < n_levels - 1 and out_bits + (nest_bits if o == a else 0.0) > level_sizes[o]:
            o += 1
        free = layer[KIND] == FREE
        if free:
            o = max(a, o)
        repeat = count * m.batch
        i_top = levels[1, a]
        if is_last:
            for rout in range(2):
                clear_cost(one)
                goal = (max(top, 0) if rout == 1 else n_levels - 1) if read_later else o
                if free:
                    move(out_bits, levels[0, o], levels[0, goal], 0, chains, memory, one)
                else:
                    tile_cost(
                        layer,
                        oy,
                        ox,
                        read_bits,
                        out_bits,
                        i_top,
                        levels[0, goal],
                        w_top,
                        array,
                        chains,
                        memory,
                        scalars,
                        busy,
                        one,
                    )
                add_scaled(one, repeat, tail[rout])
        else:
            clear_cost(one)
            if not free:
                tile_cost(
                    layer,
                    oy,
                    ox,
                    read_bits,
                    out_bits,
                    i_top,
                    levels[0, o],
                    w_top,
                    array,
                    chains,
                    memory,
                    scalars,
                    busy,
                    one,
                )
            # Hand over to the level where the next layer wants it.
            goal = want[cls, at]
            if goal >= 0 and goal != o:
                move(out_bits, levels[0, o], levels[0, goal], 0, chains, memory, one)
            # What a cache keeps in another level than the map is copied; rows for the tiles below stand in
            # the outermost level on chip.
            for side in range(2):
                keeper = beside_level if side == 0 else top
                span = min(beside, ox) * oy if side == 0 else min(below, oy) * max(0.0, ox - beside)
                overlap = channels * span * act
                if keeper >= 0 and overlap > 0.0:
                    if o != keeper:
                        move(overlap, levels[0, o], levels[0, keeper], 0, chains, memory, one)
                    if goal >= 0 and goal != keeper:
                        move(overlap, levels[0, keeper], levels[0, goal], 0, chains, memory, one)
            add_scaled(one, repeat, total)
        for k in range(2):
            q = source_of(layer, k, at)
            if q >= 0:
                want[cls, q] = max(want[cls, q], a)
