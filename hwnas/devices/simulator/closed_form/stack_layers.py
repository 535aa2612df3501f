"""What one layer adds to a growing stack, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import njit

from hwnas.devices.simulator.closed_form.growing import OFF_CHIP, ON_CHIP, Scratch, class_of
from hwnas.devices.simulator.closed_form.machine import I_LEVELS, O_LEVELS, Machine, O
from hwnas.devices.simulator.closed_form.map_sizes import (
    X,
    Y,
    extent,
    nest_span,
    read_span,
    source_of,
    touched,
)
from hwnas.devices.simulator.closed_form.tile_cost import Path, Tile, between, move, tile_cost
from hwnas.devices.simulator.columns import COSTS, FREE, IN_CH, IN_X, IN_Y, KIND, OX, OY, SRC1, SRC1_CH, G, K


class Place(NamedTuple):
    """Where in a stack a layer stands.

    Attributes:
        at: index of its output among the maps.
        is_last, read_later: it is the stack's last one; its output is read after the stack.
        w_top: position in the weight chain from which weights come.
        channels: of its output.
        beside, below: columns and rows of its output that caches keep for the tiles beside and below.
        beside_level: activation level of the cache for tiles beside.
    """

    at: int
    is_last: bool
    read_later: bool
    w_top: int
    channels: float
    beside: float
    below: float
    beside_level: int


class TileClass(NamedTuple):
    """Tiles of one size: one of them, the activation level of its output, and how many they are."""

    tile: Tile
    level: int
    times: float


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
def add_rider(layer: Any, tiles: float, leaves: bool, m: Machine, arrays: Scratch) -> Any:
    """A vector layer, or the pooling that makes one: computed once, its result never leaves the chip.

    Returns:
        bits of the result.
    """
    one, total, sizes, chains, memory = arrays.one, arrays.total, m.level_sizes, m.chains, m.memory
    clear_cost(one)
    in_bits = float(layer[IN_CH]) * layer[IN_Y] * layer[IN_X] * m.array.activation_bits
    out_bits = float(layer[K]) * layer[G] * layer[OY] * layer[OX] * m.array.activation_bits
    a = innermost(in_bits / tiles, sizes, m.n_levels)
    o = innermost(out_bits, sizes, m.n_levels)
    if layer[KIND] != FREE:
        oy, ox = float(layer[OY]), float(layer[OX])
        tile = Tile(oy, ox, in_bits, out_bits, chains[I_LEVELS, a], chains[O_LEVELS, o], m.weights_top)
        tile_cost(layer, tile, m.array, chains, memory, one)
    add_scaled(one, m.batch, total)
    if leaves:
        move(
            out_bits * m.batch,
            between(o, m.n_levels - 1, chains),
            chains,
            memory,
            total,
        )
    return out_bits


@njit(error_model="numpy", inline="always")
def add_tiles(layer: Any, place: Place, tiling: Any, m: Machine, arrays: Scratch) -> Any:
    """All tiles of a layer: first and later ones along both axes, with hand-overs and overlap caches.

    Returns:
        bits of the largest input and output.
    """
    n_levels, act, at = m.n_levels, m.array.activation_bits, place.at
    one, total, maps, want = arrays.one, arrays.total, arrays.maps, arrays.want
    sizes, chains, memory = m.level_sizes, m.chains, m.memory
    most_in, most_out = 0.0, 0.0
    for number in range(4):
        first_y, first_x, count = class_of(number, tiling)
        oy = extent(first_y, tiling, Y, float(layer[OY]), maps, at)
        ox = extent(first_x, tiling, X, float(layer[OX]), maps, at)
        if count == 0.0 or oy <= 0.0 or ox <= 0.0:
            continue
        area = read_span(layer, Y, oy) * read_span(layer, X, ox)
        in_bits = (layer[IN_CH] + (layer[SRC1_CH] if layer[SRC1] > 0 else 0)) * area * act
        out_bits = place.channels * oy * ox * act
        most_in, most_out = max(most_in, in_bits), max(most_out, out_bits)
        read_bits = in_bits * touched(layer, Y, oy) * touched(layer, X, ox)
        # The loop nest takes room for rows and columns of padding as well.
        nest_bits = in_bits * nest_span(layer, Y, oy) * nest_span(layer, X, ox) / area
        a = innermost(nest_bits, sizes, n_levels)
        o = 0
        while o < n_levels - 1 and out_bits + (nest_bits if o == a else 0.0) > sizes[o]:
            o += 1
        free = layer[KIND] == FREE
        if free:
            o = max(a, o)
        tile = Tile(oy, ox, read_bits, out_bits, chains[I_LEVELS, a], chains[O_LEVELS, o], place.w_top)
        made = TileClass(tile, o, count * m.batch)
        if place.is_last:
            add_last(layer, place.read_later, made, m, arrays)
        else:
            clear_cost(one)
            if not free:
                tile_cost(layer, tile, m.array, chains, memory, one)
            hand_over(place, made, want[number, at], m, arrays)
            add_scaled(one, made.times, total)
        for k in range(2):
            q = source_of(layer, k, at)
            if q >= 0:
                want[number, q] = max(want[number, q], a)
    return most_in, most_out


@njit(error_model="numpy", inline="always")
def add_last(layer: Any, read_later: bool, made: TileClass, m: Machine, arrays: Scratch) -> None:
    """Tiles of a stack's last layer, once for an output that leaves the chip and once for one that stays."""
    top, tile, one = m.n_levels - 2, made.tile, arrays.one
    chains, memory, tail = m.chains, m.memory, arrays.tail
    for rout in (OFF_CHIP, ON_CHIP):
        clear_cost(one)
        goal = (max(top, 0) if rout == ON_CHIP else m.n_levels - 1) if read_later else made.level
        if layer[KIND] == FREE:
            move(tile.out_bits, Path(O, tile.o_top, chains[O_LEVELS, goal]), chains, memory, one)
        else:
            there = Tile(
                tile.oy, tile.ox, tile.in_bits, tile.out_bits, tile.i_top, chains[O_LEVELS, goal], tile.w_top
            )
            tile_cost(layer, there, m.array, chains, memory, one)
        add_scaled(one, made.times, tail[rout])


@njit(error_model="numpy", inline="always")
def hand_over(place: Place, made: TileClass, goal: int, m: Machine, arrays: Scratch) -> None:
    """Bring an output to the level where the next layer wants it, and what caches keep to theirs.

    What a cache keeps in another level than the map is copied; rows for the tiles below stand in the
    outermost level on chip.
    """
    top, one, chains, memory = m.n_levels - 2, arrays.one, m.chains, m.memory
    oy, ox, o = made.tile.oy, made.tile.ox, made.level
    if goal >= 0 and goal != o:
        move(made.tile.out_bits, between(o, goal, chains), chains, memory, one)
    for side in range(2):
        keeper = place.beside_level if side == 0 else top
        beside = min(place.beside, ox) * oy
        below = min(place.below, oy) * max(0.0, ox - place.beside)
        overlap = place.channels * (beside if side == 0 else below) * m.array.activation_bits
        if keeper >= 0 and overlap > 0.0:
            if o != keeper:
                move(overlap, between(o, keeper, chains), chains, memory, one)
            if goal >= 0 and goal != keeper:
                move(overlap, between(keeper, goal, chains), chains, memory, one)
