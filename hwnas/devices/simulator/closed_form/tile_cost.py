"""One layer tile on the array in closed form, where a search of loop orders would be too slow.

The loop order is not searched but assumed: outputs stay in the array until their sums are complete
(C, FY, FX innermost), and at every memory either maps or weights are the outer loop, whichever costs
less energy. Compute, traffic per memory and port, and first loads follow directly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.contents import ragged, whole_words
from hwnas.devices.simulator.closed_form.flows import (
    Contents,
    Overlaps,
    Registers,
    Sums,
    busiest,
    fill_registers,
    forget_flows,
    map_contents,
    pass_on,
    repeats,
    weight_contents,
)
from hwnas.devices.simulator.closed_form.machine import (
    O_LEVELS,
    READ,
    READ_FREE,
    READ_PJ,
    READ_WIDTH,
    REGISTERS,
    SIZE,
    WRITE_FREE,
    WRITE_PJ,
    WRITE_WIDTH,
    WRITTEN,
    Array,
    I,
    Loops,
    O,
    W,
)
from hwnas.devices.simulator.columns import (
    CYCLES,
    DRAM_READ,
    DRAM_WRITE,
    DX,
    DY,
    ELEMENTWISE,
    ENERGY,
    FREE,
    FX,
    FY,
    ITERATIONS,
    KIND,
    OX,
    SRC1,
    SX,
    SY,
    WEIGHT_BITS,
    C,
    G,
    K,
)


class Tile(NamedTuple):
    """A tile of a layer, and where its data are.

    Attributes:
        oy, ox: outputs along both axes.
        in_bits, out_bits: of the maps.
        i_top, o_top, w_top: positions in the input, output and weight chains up to which data reach.
    """

    oy: float
    ox: float
    in_bits: float
    out_bits: float
    i_top: int
    o_top: int
    w_top: int


class Path(NamedTuple):
    """A way from one position of a chain (O, W or I) to another, outwards or inwards."""

    chain: int
    source: int
    target: int


class Nest(NamedTuple):
    """A tile as loops over the array.

    Attributes:
        tile, loops: what is spread, and its steps.
        per_o, per_w, per_i: array lanes in use on average for outputs, weights, inputs.
        outputs, inner, steps: steps over outputs, over input channels and kernel, over all.
        iterations: of the loop nest.
        weight_bits: bits of all weights.
        two_maps: its second operand is a map, not weights; flat: it is element-wise.
    """

    tile: Tile
    loops: Loops
    per_o: float
    per_w: float
    per_i: float
    outputs: float
    inner: float
    steps: float
    iterations: float
    weight_bits: float
    two_maps: bool
    flat: bool
    overlaps: Overlaps


@njit(error_model="numpy")
def spread(n: float, u: float) -> Any:
    """Steps that n positions take on u units."""
    return np.ceil(n / u - 1e-9) if u > 1 else np.ceil(n - 1e-9)


@njit(error_model="numpy", inline="always")
def make_nest(layer: Any, tile: Tile, unroll: Loops) -> Any:
    """Spread a tile of a layer over the array."""
    oy, ox = tile.oy, tile.ox
    depthwise = layer[K] == 1 and layer[G] > 1
    nk = spread(layer[K], unroll.k if not depthwise else 1.0)
    ng = spread(layer[G], unroll.k if depthwise else unroll.g)
    nc = spread(layer[C], unroll.c if not (layer[C] == 1 and layer[G] > 1) else 1.0)
    # A map of one column (tokens) spreads its rows over both spatial axes of the array.
    column = layer[OX] == 1
    ny = spread(oy, unroll.oy * unroll.ox if column else unroll.oy)
    nx = 1.0 if column else spread(ox, unroll.ox)
    loops = Loops(nk, nc, ng, ny, nx, spread(layer[FY], unroll.fy), spread(layer[FX], unroll.fx))
    per_k, per_c, per_g = layer[K] / nk, layer[C] / nc, layer[G] / ng
    per_y, per_x = oy / ny, ox / nx
    inner = loops.c * loops.fy * loops.fx
    outputs = loops.k * loops.g * loops.oy * loops.ox
    return Nest(
        tile=tile,
        loops=loops,
        per_o=per_k * per_g * per_y * per_x,
        per_w=per_k * per_c * per_g,
        per_i=per_c * per_g * per_y * per_x,
        outputs=outputs,
        inner=inner,
        steps=outputs * inner,
        iterations=layer[K] * layer[C] * layer[G] * layer[FY] * layer[FX] * oy * ox,
        weight_bits=float(layer[WEIGHT_BITS]),
        two_maps=layer[SRC1] > 0 and layer[KIND] != FREE,
        flat=layer[KIND] == ELEMENTWISE,
        overlaps=Overlaps(
            layer[DY] * (layer[FY] - 1.0) + 1.0 - layer[SY],
            oy * layer[SY],
            layer[DX] * (layer[FX] - 1.0) + 1.0 - layer[SX],
            ox * layer[SX],
        ),
    )


@njit(error_model="numpy")
def tile_cost(layer: Any, tile: Tile, array: Array, chains: Any, memory: Any, out: Any) -> None:
    """Add the cost of one tile of a layer to out.

    Args:
        array, chains, memory: of a Machine. They are passed one by one because a tuple of arrays costs
            reference counting at every call.
    """
    nest = make_nest(layer, tile, array.unroll)
    forget_flows(memory)
    sums, energy = hold_sums(nest, array, chains, memory)
    energy, rounds, load = feed_weights(nest, sums, energy, array, chains, memory)
    feed_maps(nest, array, chains, memory)
    rounds, longest_load = bring_in(nest, sums, (rounds, load), chains, memory)
    if rounds > 1.0:
        # Partial sums come and go once a round; the last one goes as complete outputs otherwise do.
        o0, bits = sums.memory, nest.per_o * array.sum_bits
        memory[READ, o0] += sums.bits * rounds
        memory[WRITTEN, o0] += sums.bits * rounds - tile.out_bits
        memory[READ_FREE, o0] -= ragged(rounds * nest.outputs, bits, memory[READ_WIDTH, o0])
        memory[WRITE_FREE, o0] -= ragged((rounds - 1.0) * nest.outputs, bits, memory[WRITE_WIDTH, o0])
    bring_out(nest, chains, memory)
    longest, flowed = busiest(nest.steps, memory)
    dram = memory.shape[1] - 1
    out[CYCLES] += longest + longest_load
    out[ENERGY] += energy + flowed
    out[DRAM_READ] += memory[READ, dram]
    out[DRAM_WRITE] += memory[WRITTEN, dram]
    out[ITERATIONS] += nest.iterations


@njit(error_model="numpy", inline="always")
def hold_sums(nest: Nest, array: Array, chains: Any, memory: Any) -> Any:
    """The partial sums of a tile, and the energy of its multiplications and of the registers for sums."""
    register, out_bits = chains[O, REGISTERS], nest.tile.out_bits
    energy = nest.iterations * array.mac_pj
    held, bits = 1.0, out_bits / array.activation_bits * array.sum_bits
    if register >= 0:
        held = max(1.0, np.floor(memory[SIZE, register] / array.sum_bits))
        pj = memory[WRITE_PJ, register] + (memory[READ_PJ, register] if nest.inner > 1 else 0.0)
        energy += (
            nest.steps * nest.per_o * pj * array.sum_bits / memory[READ_WIDTH, register]
            + out_bits / array.activation_bits * memory[READ_PJ, register]
        )
    return Sums(held, bits, chains[O, 0]), energy


@njit(error_model="numpy", inline="always")
def feed_weights(nest: Nest, sums: Sums, energy: float, array: Array, chains: Any, memory: Any) -> Any:
    """Weights, or the second map of a product, on their way into the array.

    Returns:
        the energy so far with what their registers take; how often partial sums go; cycles of the first load.
    """
    register, weighted, rounds, load = chains[W, REGISTERS], nest.weight_bits > 0.0, 1.0, 0.0
    if weighted and register >= 0:
        bits = array.weight_bits
        held = max(1.0, np.floor(memory[SIZE, register] / bits))
        registers = Registers(nest.per_w * bits, held, chains[W, 0], register)
        fills, rounds, load = fill_registers(nest.loops, registers, sums, memory)
        reads = nest.steps * nest.per_w * memory[READ_PJ, register]
        energy += reads * bits / memory[READ_WIDTH, register]
        writes = fills * nest.per_w * memory[WRITE_PJ, register]
        energy += writes * bits / memory[WRITE_WIDTH, register]
    elif weighted or (nest.two_maps and not nest.flat):
        # The second map of a product comes from the memory for maps at every step.
        source = chains[W, 0] if weighted else chains[I, 0]
        bits = array.weight_bits if weighted else array.activation_bits
        memory[READ, source] += nest.steps * nest.per_w * bits
        memory[READ_FREE, source] -= ragged(nest.steps, nest.per_w * bits, memory[READ_WIDTH, source])
    return energy, rounds, load


@njit(error_model="numpy", inline="always")
def feed_maps(nest: Nest, array: Array, chains: Any, memory: Any) -> None:
    """Maps on their way into the array and out of it.

    A port serves whole cycles: what the array takes at once may fill only a part of one.
    """
    tile, bits = nest.tile, array.activation_bits
    i0, o0 = chains[I, 0], chains[O, 0]
    operands = 2.0 if nest.flat and nest.two_maps else 1.0
    memory[READ, i0] += tile.in_bits if nest.flat else nest.steps * nest.per_i * bits
    memory[WRITTEN, o0] += tile.out_bits
    memory[READ_FREE, i0] -= ragged(nest.steps * operands, nest.per_i * bits, memory[READ_WIDTH, i0])
    memory[WRITE_FREE, o0] -= ragged(nest.outputs, nest.per_o * bits, memory[WRITE_WIDTH, o0])


@njit(error_model="numpy", inline="always")
def bring_in(nest: Nest, sums: Sums, first: Any, chains: Any, memory: Any) -> Any:
    """Maps and weights on their way from memory to memory towards the array.

    Args:
        first: how often partial sums go, and cycles of the first load, because of the registers.

    Returns:
        how often partial sums go; cycles of the longest first load.
    """
    tile, loops = nest.tile, nest.loops
    rounds, load_w = first
    load_i, in_bits, bits = 0.0, tile.in_bits, nest.weight_bits
    for b in range(max(tile.i_top, tile.w_top)):
        brings_map, brings_weights = b < tile.i_top, bits > 0.0 and b < tile.w_top
        parts, contents, several, w_times, i_times = 1.0, 1.0, 1.0, 1.0, 1.0
        i_in, i_out, w_in, w_out = chains[I, b], chains[I, b + 1], chains[W, b], chains[W, b + 1]
        if brings_map:
            room = in_bits + (tile.out_bits if chains[O, min(b, tile.o_top)] == i_in else 0.0)
            parts = max(1.0, np.ceil(room / memory[SIZE, i_in]))
        if brings_weights:
            contents, several, w_times, more = weight_contents(loops, bits, sums, w_out, w_in, memory)
            rounds = max(rounds, more)
        if parts > 1.0 and contents > 1.0:
            i_pj = in_bits * memory[READ_PJ, i_out] / memory[READ_WIDTH, i_out]
            w_pj = bits * memory[READ_PJ, w_out] / memory[READ_WIDTH, w_out]
            again, i_times = repeats(loops, parts, contents, i_pj, w_pj)
            w_times = max(w_times, again)
        if brings_map:
            count, moved = map_contents(loops, in_bits, memory[SIZE, i_in], nest.overlaps)
            maps = Contents(moved / count, count * i_times, nest.steps / count / i_times)
            load_i += pass_on(maps, i_out, i_in, memory)
        if brings_weights:
            content, count = bits / contents, contents * w_times
            fits_twice = 2.0 * content / several <= memory[SIZE, w_in]
            window = nest.steps / count if fits_twice else loops.k * loops.g * nest.inner / contents
            load_w += pass_on(Contents(content, count, window), w_out, w_in, memory)
    return rounds, max(load_w, load_i)


@njit(error_model="numpy", inline="always")
def bring_out(nest: Nest, chains: Any, memory: Any) -> None:
    """Outputs on their way outwards.

    What is written out last is not waited for (ZigZag): the next tile computes meanwhile.
    """
    tile = nest.tile
    for b in range(tile.o_top):
        source, target = chains[O, b], chains[O, b + 1]
        size = memory[SIZE, source]
        fits = tile.in_bits + tile.out_bits <= size
        count = 1.0 if fits else np.ceil(tile.out_bits / (size * 0.5))
        part = whole_words(tile.out_bits / count, 1.0)
        pass_on(Contents(part, count, nest.steps / count), source, target, memory)


@njit(error_model="numpy", inline="always")
def between(source: int, target: int, chains: Any) -> Any:
    """The path of an output from one activation level to another."""
    return Path(O, chains[O_LEVELS, source], chains[O_LEVELS, target])


@njit(error_model="numpy")
def move(bits: float, path: Path, chains: Any, memory: Any, out: Any) -> None:
    """Add a copy of some bits to out."""
    dram = memory.shape[1] - 1
    step = 1 if path.target > path.source else -1
    at = path.source
    while at != path.target:
        a, b = chains[path.chain, at], chains[path.chain, at + step]
        out[CYCLES] += bits / min(memory[READ_WIDTH, a], memory[WRITE_WIDTH, b])
        out[ENERGY] += bits * memory[READ_PJ, a] / memory[READ_WIDTH, a]
        out[ENERGY] += bits * memory[WRITE_PJ, b] / memory[WRITE_WIDTH, b]
        if a == dram:
            out[DRAM_READ] += bits
        if b == dram:
            out[DRAM_WRITE] += bits
        at += step
