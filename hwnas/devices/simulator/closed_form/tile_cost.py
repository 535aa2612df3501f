"""One layer tile on the array in closed form, where a search of loop orders would be too slow.

The loop order is not searched but assumed: outputs stay in the array until their sums are complete
(C, FY, FX innermost), and at every memory either maps or weights are the outer loop, whichever costs
less energy. Compute, traffic per memory and port, and first loads follow directly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.contents import ragged, whole_words
from hwnas.devices.simulator.closed_form.flows import (
    busiest,
    fill_registers,
    map_contents,
    pass_on,
    repeats,
    weight_contents,
)
from hwnas.devices.simulator.closed_form.machine import READ_PJ, READ_WIDTH, SIZE, WRITE_PJ, WRITE_WIDTH
from hwnas.devices.simulator.columns import (
    CONV,
    CYCLES,
    DRAM_READ,
    DRAM_WRITE,
    DX,
    DY,
    ELEMENTWISE,
    ENERGY,
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


@njit(error_model="numpy")
def spread(n: float, u: float) -> Any:
    """Steps that n positions take on u units."""
    return np.ceil(n / u - 1e-9) if u > 1 else np.ceil(n - 1e-9)


@njit(error_model="numpy")
def nest(layer: Any, oy: float, ox: float, array: Any) -> Any:
    """Steps over K, C, G, OY, OX, FY, FX of a tile, and array lanes in use on average for O, W, I."""
    depthwise = layer[K] == 1 and layer[G] > 1
    nk = spread(layer[K], array[0] if not depthwise else 1.0)
    ng = spread(layer[G], array[0] if depthwise else array[2])
    nc = spread(layer[C], array[1] if not (layer[C] == 1 and layer[G] > 1) else 1.0)
    # A map of one column (tokens) spreads its rows over both spatial axes of the array.
    column = layer[OX] == 1
    ny = spread(oy, array[3] * array[4] if column else array[3])
    nx = 1.0 if column else spread(ox, array[4])
    loops = (nk, nc, ng, ny, nx, spread(layer[FY], array[5]), spread(layer[FX], array[6]))
    per_k, per_c, per_g = layer[K] / nk, layer[C] / nc, layer[G] / ng
    per_y, per_x = oy / ny, ox / nx
    return loops, per_k * per_g * per_y * per_x, per_k * per_c * per_g, per_c * per_g * per_y * per_x


@njit(error_model="numpy")
def tile_cost(
    layer: Any,
    oy: float,
    ox: float,
    in_bits: float,
    out_bits: float,
    i_top: int,
    o_top: int,
    w_top: int,
    array: Any,
    chains: Any,
    memory: Any,
    scalars: Any,
    busy: Any,
    out: Any,
) -> None:
    """Add the cost of one tile of a layer (oy x ox outputs) to out.

    Args:
        i_top, o_top, w_top: positions in the input, output and weight chains up to which data reach.
        array, chains, memory, scalars: of the accelerator, as in Machine. They are passed one by one because
            a tuple of arrays costs reference counting at every call.
        busy: scratch, (6, memories); see flows.
    """
    act, par = scalars[1], scalars[3]
    loops, per_o, per_w, per_i = nest(layer, oy, ox, array)
    inner = loops[1] * loops[5] * loops[6]
    outputs = loops[0] * loops[2] * loops[3] * loops[4]
    steps = outputs * inner
    iterations = layer[K] * layer[C] * layer[G] * layer[FY] * layer[FX] * oy * ox
    busy[:] = 0.0
    energy = iterations * scalars[0]
    # --- registers
    o_rf, w_rf, i0, o0 = chains[0, 7], chains[1, 7], chains[2, 0], chains[0, 0]
    hold_o, sums = 1.0, out_bits / act * par
    if o_rf >= 0:
        hold_o = max(1.0, np.floor(memory[SIZE, o_rf] / par))
        pj = memory[WRITE_PJ, o_rf] + (memory[READ_PJ, o_rf] if inner > 1 else 0.0)
        energy += steps * per_o * pj * par / memory[READ_WIDTH, o_rf] + out_bits / act * memory[READ_PJ, o_rf]
    weighted = layer[WEIGHT_BITS] > 0
    load_w, load_i, rounds = 0.0, 0.0, 1.0
    if weighted and w_rf >= 0:
        wb = scalars[2]
        hold_w = max(1.0, np.floor(memory[SIZE, w_rf] / wb))
        fills, rounds, load_w = fill_registers(
            loops, per_w * wb, hold_w, hold_o, sums, chains[1, 0], w_rf, o0, memory, busy
        )
        energy += steps * per_w * memory[READ_PJ, w_rf] * wb / memory[READ_WIDTH, w_rf]
        energy += fills * per_w * memory[WRITE_PJ, w_rf] * wb / memory[WRITE_WIDTH, w_rf]
    elif weighted or (layer[KIND] == CONV and layer[SRC1] > 0):
        # The second map of a product comes from the memory for maps at every step.
        w0, wb = (chains[1, 0], scalars[2]) if weighted else (i0, act)
        busy[0, w0] += steps * per_w * wb
        busy[2, w0] -= ragged(steps, per_w * wb, memory[READ_WIDTH, w0])
    # --- the array; a port serves whole cycles: what the array takes at once may fill only a part of one
    flat = layer[KIND] == ELEMENTWISE
    operands = 2.0 if flat and layer[SRC1] > 0 else 1.0
    busy[0, i0] += in_bits if flat else steps * per_i * act
    busy[1, o0] += out_bits
    busy[2, i0] -= ragged(steps * operands, per_i * act, memory[READ_WIDTH, i0])
    busy[3, o0] -= ragged(outputs, per_o * act, memory[WRITE_WIDTH, o0])
    # --- between memories
    overlaps = (
        layer[DY] * (layer[FY] - 1.0) + 1.0 - layer[SY],
        oy * layer[SY],
        layer[DX] * (layer[FX] - 1.0) + 1.0 - layer[SX],
        ox * layer[SX],
    )
    bits = float(layer[WEIGHT_BITS])
    for b in range(max(i_top, w_top)):
        parts, contents, several, w_times, i_times = 1.0, 1.0, 1.0, 1.0, 1.0
        i_in, i_out, w_in, w_out = chains[2, b], chains[2, b + 1], chains[1, b], chains[1, b + 1]
        if b < i_top:
            room = in_bits + (out_bits if chains[0, min(b, o_top)] == i_in else 0.0)
            parts = max(1.0, np.ceil(room / memory[SIZE, i_in]))
        if weighted and b < w_top:
            contents, several, w_times, more = weight_contents(
                loops, bits, hold_o, sums, w_out, w_in, o0, memory
            )
            rounds = max(rounds, more)
        if parts > 1.0 and contents > 1.0:
            i_pj = in_bits * memory[READ_PJ, i_out] / memory[READ_WIDTH, i_out]
            w_pj = bits * memory[READ_PJ, w_out] / memory[READ_WIDTH, w_out]
            again, i_times = repeats(loops, parts, contents, i_pj, w_pj)
            w_times = max(w_times, again)
        if b < i_top:
            count, moved = map_contents(loops, in_bits, memory[SIZE, i_in], overlaps)
            window = steps / count / i_times
            load_i += pass_on(moved / count, count * i_times, window, i_out, i_in, memory, busy)
        if weighted and b < w_top:
            content, count = bits / contents, contents * w_times
            fits_twice = 2.0 * content / several <= memory[SIZE, w_in]
            window = steps / count if fits_twice else loops[0] * loops[2] * inner / contents
            load_w += pass_on(content, count, window, w_out, w_in, memory, busy)
    if rounds > 1.0:
        # Partial sums come and go once a round; the last one goes as complete outputs otherwise do.
        busy[0, o0] += sums * rounds
        busy[1, o0] += sums * rounds - out_bits
        busy[2, o0] -= ragged(rounds * outputs, per_o * par, memory[READ_WIDTH, o0])
        busy[3, o0] -= ragged((rounds - 1.0) * outputs, per_o * par, memory[WRITE_WIDTH, o0])
    # What is written out last is not waited for (ZigZag): the next tile computes meanwhile.
    for b in range(o_top):
        size = memory[SIZE, chains[0, b]]
        count = 1.0 if in_bits + out_bits <= size else np.ceil(out_bits / (size * 0.5))
        part = whole_words(out_bits / count, 1.0)
        pass_on(part, count, steps / count, chains[0, b], chains[0, b + 1], memory, busy)
    longest, flowed = busiest(steps, memory, busy)
    dram = memory.shape[1] - 1
    out[CYCLES] += longest + max(load_w, load_i)
    out[ENERGY] += energy + flowed
    out[DRAM_READ] += busy[0, dram]
    out[DRAM_WRITE] += busy[1, dram]
    out[ITERATIONS] += iterations


@njit(error_model="numpy")
def move(bits: float, source: int, target: int, op: int, chains: Any, memory: Any, out: Any) -> None:
    """Add a copy between two positions of an operand's chain (outwards or inwards) to out."""
    dram = memory.shape[1] - 1
    step = 1 if target > source else -1
    at = source
    while at != target:
        a, b = chains[op, at], chains[op, at + step]
        out[CYCLES] += bits / min(memory[READ_WIDTH, a], memory[WRITE_WIDTH, b])
        out[ENERGY] += bits * memory[READ_PJ, a] / memory[READ_WIDTH, a]
        out[ENERGY] += bits * memory[WRITE_PJ, b] / memory[WRITE_WIDTH, b]
        if a == dram:
            out[DRAM_READ] += bits
        if b == dram:
            out[DRAM_WRITE] += bits
        at += step
