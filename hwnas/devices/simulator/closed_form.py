"""One layer tile on the array in closed form, where a search of loop orders would be too slow.

The loop order is not searched but assumed: outputs stay in the array until their sums are complete
(C, FY, FX innermost), and at every memory either maps or weights are the outer loop, whichever costs
less energy. Compute, traffic per memory and port, and first loads follow directly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .refills import pieces, portion, ragged, reread, refills, together, waits, whole_words

# Columns of the layer table (one row a layer, int64).
(
    K,
    C,
    G,
    OY,
    OX,
    FY,
    FX,
    SY,
    SX,
    DY,
    DX,
    PAD_T,
    PAD_L,
    IN_Y,
    IN_X,
    IN_CH,
    SRC0,
    SRC1,
    SRC1_CH,
    KIND,
    WEIGHT_BITS,
    UNIT_END,
    BARRIER,
    RIDER,
    SCALE_Y,
    SCALE_X,
    WHOLE,
    PRODUCTS,
) = range(28)
LAYER_COLUMNS = 28
CONV, ELEMENTWISE, FREE = 0, 1, 2

# Rows of the memory table (one column a memory, float64).
SIZE, READ_WIDTH, WRITE_WIDTH, READ_PJ, WRITE_PJ, INSTANCES, SINGLE_PORT = range(7)
MEMORY_ROWS = 7

# Entries of a cost vector.
CYCLES, ENERGY, DRAM_READ, DRAM_WRITE, ITERATIONS = range(5)
COSTS = 5


class Machine(NamedTuple):
    """An accelerator as arrays.

    Attributes:
        array: unrolling of (K, C, G, OY, OX, FY, FX); depthwise layers use that of K for their groups.
        chains: chains[op, i] is the memory at position i of the shared chain of O, W, I; -1 ends it;
            chains[op, 7] is the register file or -1.
        levels: levels[0, a], levels[1, a]: positions in the output and the input chain of activation level
            a, a shared memory that holds both; the last one is off chip.
        level_sizes: bits of the activation levels.
        memory: (MEMORY_ROWS, memories).
        scalars: mac_pj, activation bits, weight bits, partial sum bits, number of memories.
        limits: bits on chip for activations, for weights, and whether both are one memory.
    """

    array: Any
    chains: Any
    levels: Any
    level_sizes: Any
    n_levels: int
    memory: Any
    scalars: Any
    limits: Any
    batch: float


@njit(error_model="numpy")
def spread(n: float, u: float) -> Any:
    """Steps that n positions take on u units."""
    return np.ceil(n / u - 1e-9) if u > 1 else np.ceil(n - 1e-9)


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
        busy: scratch, (6, memories): bits read and written; how many of them take no time while the array
            computes: first loads, the last write, less what ragged transfers take beside them; cycles for
            which the array waits for a port whatever else it does, see waits().
    """
    act = scalars[1]
    par = scalars[3]
    nmem = int(scalars[4])
    depthwise = layer[K] == 1 and layer[G] > 1
    uk = array[0] if not depthwise else 1.0
    ug = array[0] if depthwise else array[2]
    uc = array[1] if not (layer[C] == 1 and layer[G] > 1) else 1.0
    nk, ng, nc = spread(layer[K], uk), spread(layer[G], ug), spread(layer[C], uc)
    # A map of one column (tokens) spreads its rows over both spatial axes of the array.
    column = layer[OX] == 1
    ny = spread(oy, array[3] * array[4] if column else array[3])
    nx = 1.0 if column else spread(ox, array[4])
    nfy, nfx = spread(layer[FY], array[5]), spread(layer[FX], array[6])
    nf = nfy * nfx
    steps = nk * ng * nc * ny * nx * nf
    channels, inner, positions = nk * ng, nc * nf, ny * nx
    loops = (nk, nc, ng, ny, nx, nfy, nfx)
    widest = 0 if nk > 1.0 else 2  # the loop over output channels
    # Average units in use: outputs, weights and inputs per cycle.
    per_o = layer[K] / nk * (layer[G] / ng) * (oy / ny) * (ox / nx)
    per_w = layer[K] / nk * (layer[C] / nc) * (layer[G] / ng)
    per_i = layer[C] / nc * (layer[G] / ng) * (oy / ny) * (ox / nx)
    iterations = layer[K] * layer[C] * layer[G] * layer[FY] * layer[FX] * oy * ox
    for x in range(nmem):
        for way in range(6):
            busy[way, x] = 0.0
    energy = iterations * scalars[0]
    # --- registers
    o_rf, w_rf = chains[0, 7], chains[1, 7]
    hold_o = 1.0
    if o_rf >= 0:
        hold_o = max(1.0, np.floor(memory[SIZE, o_rf] / par))
        words = steps * per_o
        energy += (
            words
            * (memory[WRITE_PJ, o_rf] + (memory[READ_PJ, o_rf] if nc * nf > 1 else 0.0))
            * par
            / memory[READ_WIDTH, o_rf]
        )
        energy += out_bits / act * memory[READ_PJ, o_rf]
    i0, o0 = chains[2, 0], chains[0, 0]
    weighted = layer[WEIGHT_BITS] > 0
    # The second map of an attention product comes from the activation memory.
    w0 = chains[1, 0] if weighted else i0
    o0_pj = memory[READ_PJ, o0] / memory[READ_WIDTH, o0] + memory[WRITE_PJ, o0] / memory[WRITE_WIDTH, o0]
    sums = out_bits / act * par
    w_pj = memory[READ_PJ, w0] / memory[READ_WIDTH, w0]
    streamed = layer[KIND] == CONV and layer[SRC1] > 0
    fills, held, rounds, load_w, load_i = 0.0, 1.0, 1.0, 0.0, 0.0
    wb = scalars[2] if weighted else act
    if weighted and w_rf >= 0:
        hold_w = max(1.0, np.floor(memory[SIZE, w_rf] / wb))
        held = portion(nc, nfy, nfx, hold_w)
        energy += steps * per_w * memory[READ_PJ, w_rf] * wb / memory[READ_WIDTH, w_rf]
        fills, rounds = refills(
            channels,
            inner,
            held,
            positions,
            hold_o,
            per_w * wb * (w_pj + memory[WRITE_PJ, w_rf] / memory[WRITE_WIDTH, w_rf]),
            o0_pj,
            sums,
            memory[SIZE, o0],
        )
        energy += fills * per_w * memory[WRITE_PJ, w_rf] * wb / memory[WRITE_WIDTH, w_rf]
        # What the registers hold at once: all weights, those of some steps, or those of one step.
        if held < inner and rounds == 1.0:
            held = 1.0
        one = held
        if fills <= hold_w:
            held = fills
        elif held == inner:
            held *= together(channels, hold_w / inner, widest, loops)
        first = held * per_w * wb
        load_w = max(first / memory[READ_WIDTH, w0], held * wb / memory[WRITE_WIDTH, w_rf])
        busy[2, w0] += first
        window = steps * held / fills if 2.0 * one <= hold_w else held
        busy[4, w0] += waits(first, fills / held, window, memory[READ_WIDTH, w0])
    elif weighted or streamed:
        fills = steps
    busy[0, w0] += fills * per_w * wb
    reads = steps * per_i * act
    operands = 1.0
    if layer[KIND] == ELEMENTWISE:
        reads = in_bits
        operands = 2.0 if layer[SRC1] > 0 else 1.0
    busy[0, i0] += reads
    busy[1, o0] += out_bits
    # A port serves whole cycles: what the array takes at once may fill only a part of one.
    busy[2, i0] -= ragged(steps * operands, per_i * act, memory[READ_WIDTH, i0])
    busy[3, o0] -= ragged(channels * positions, per_o * act, memory[WRITE_WIDTH, o0])
    busy[2, w0] -= ragged(fills / held, per_w * wb * held, memory[READ_WIDTH, w0])
    # --- between memories: maps outer or weights outer, whichever costs less at each boundary
    levels = max(i_top, w_top)
    for b in range(levels):
        n_maps = 1.0
        maps_move = b < i_top
        if maps_move:
            inside = chains[2, b]
            room = in_bits + (out_bits if chains[0, min(b, o_top)] == inside else 0.0)
            n_maps = max(1.0, np.ceil(room / memory[SIZE, inside]))
        n_weights, again, contents, more, content = 1.0, 1.0, 1.0, 1.0, float(layer[WEIGHT_BITS])
        weights_move = weighted and b < w_top
        if weights_move:
            room = memory[SIZE, chains[1, b]]
            n_weights = max(1.0, np.ceil(content / room))
            if n_weights > 1.0:
                # Those of one output channel after the other, or of a part of its sums.
                part = portion(nc, nfy, nfx, np.floor(room * channels * inner / content))
                outer, inside = chains[1, b + 1], chains[1, b]
                times, more = refills(
                    channels,
                    inner,
                    part,
                    positions,
                    hold_o,
                    per_w
                    * wb
                    * (
                        memory[READ_PJ, outer] / memory[READ_WIDTH, outer]
                        + memory[WRITE_PJ, inside] / memory[WRITE_WIDTH, inside]
                    ),
                    o0_pj,
                    sums,
                    memory[SIZE, o0],
                )
                rounds = max(rounds, more)
                again = times / (channels * inner)
                more = together(channels, room * channels / content, widest, loops) if part == inner else 1.0
                contents = channels * inner / part / more
                content /= contents
        w_times, i_times = 1.0, 1.0
        if n_maps > 1.0 and n_weights > 1.0:
            # A weight is read again for other positions only, a map for other output channels only, and
            # neither for other groups.
            n_maps = np.ceil(n_maps / ng)
            if n_maps > 1.0:
                n_maps = min(pieces(n_maps, 3, loops), pieces(n_maps, 4, loops))
            n_weights = min(np.ceil(contents / ng), nk)
            i_pj = in_bits * memory[READ_PJ, chains[2, b + 1]] / memory[READ_WIDTH, chains[2, b + 1]]
            all_pj = (
                layer[WEIGHT_BITS] * memory[READ_PJ, chains[1, b + 1]] / memory[READ_WIDTH, chains[1, b + 1]]
            )
            if all_pj * (n_maps - 1.0) <= i_pj * (n_weights - 1.0):
                w_times = n_maps
            else:
                i_times = n_weights
        if maps_move:
            outer, inside = chains[2, b + 1], chains[2, b]
            contents_i = np.ceil(in_bits / (memory[SIZE, inside] * 0.5))
            moved = in_bits
            if contents_i > ng and layer[KIND] == CONV:
                # Parts of a map that are not groups of channels overlap.
                parts = np.ceil(contents_i / ng)
                moved *= 1.0 + min(
                    reread(parts, 3, loops, layer[DY] * (layer[FY] - 1.0) + 1.0 - layer[SY], oy * layer[SY]),
                    reread(parts, 4, loops, layer[DX] * (layer[FX] - 1.0) + 1.0 - layer[SX], ox * layer[SX]),
                )
            part = moved / contents_i
            moved = whole_words(part, contents_i)
            busy[0, outer] += moved * i_times
            busy[1, inside] += moved * i_times
            load_i += part / min(memory[WRITE_WIDTH, inside], memory[READ_WIDTH, outer])
            busy[2, outer] += part
            busy[3, inside] += part
            contents_i *= i_times
            period = steps / contents_i
            busy[4, outer] += waits(part, contents_i, period, memory[READ_WIDTH, outer])
            busy[5, inside] += waits(part, contents_i, period, memory[WRITE_WIDTH, inside])
        if weights_move:
            w_times = max(w_times, again)
            outer, inside = chains[1, b + 1], chains[1, b]
            busy[0, outer] += layer[WEIGHT_BITS] * w_times
            busy[1, inside] += layer[WEIGHT_BITS] * w_times
            busy[2, outer] += content
            busy[3, inside] += content
            load_w += content / min(memory[WRITE_WIDTH, inside], memory[READ_WIDTH, outer])
            contents *= w_times
            period, size = steps / contents, memory[SIZE, inside]
            used = period * w_times / positions
            window = period if 2.0 * content / more <= size else used
            busy[4, outer] += waits(content, contents, window, memory[READ_WIDTH, outer])
            busy[5, inside] += waits(content, contents, window, memory[WRITE_WIDTH, inside])
    if rounds > 1.0:
        # Partial sums come and go once a round; the last one goes as complete outputs otherwise do.
        times = rounds * channels * positions
        busy[0, o0] += sums * rounds
        busy[1, o0] += sums * rounds - out_bits
        busy[2, o0] -= ragged(times, per_o * par, memory[READ_WIDTH, o0])
        busy[3, o0] -= ragged(times - channels * positions, per_o * par, memory[WRITE_WIDTH, o0])
    # --- time: first loads, then the array or the port that is busy longest
    # What is written out last is not waited for (ZigZag): the next tile computes meanwhile.
    for b in range(o_top):
        size = memory[SIZE, chains[0, b]]
        contents = 1.0 if in_bits + out_bits <= size else np.ceil(out_bits / (size * 0.5))
        part = out_bits / contents
        moved = whole_words(part, contents)
        busy[0, chains[0, b]] += moved
        busy[1, chains[0, b + 1]] += moved
        busy[2, chains[0, b]] += part
        busy[3, chains[0, b + 1]] += part
        busy[4, chains[0, b]] += waits(part, contents, steps / contents, memory[READ_WIDTH, chains[0, b]])
        busy[5, chains[0, b + 1]] += waits(
            part, contents, steps / contents, memory[WRITE_WIDTH, chains[0, b + 1]]
        )
    longest = steps
    for x in range(nmem):
        if busy[0, x] == 0.0 and busy[1, x] == 0.0:
            continue
        energy += (
            busy[0, x] / memory[READ_WIDTH, x] * memory[READ_PJ, x]
            + busy[1, x] / memory[WRITE_WIDTH, x] * memory[WRITE_PJ, x]
        )
        r = (busy[0, x] - busy[2, x]) / memory[READ_WIDTH, x] - busy[4, x]
        w = (busy[1, x] - busy[3, x]) / memory[WRITE_WIDTH, x] - busy[5, x]
        if memory[SINGLE_PORT, x] > 0:
            longest = max(longest, max(steps, r + w) + busy[4, x] + busy[5, x])
        else:
            longest = max(longest, max(steps, r) + busy[4, x], max(steps, w) + busy[5, x])
    dram = nmem - 1
    out[CYCLES] += longest + max(load_w, load_i)
    out[ENERGY] += energy
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
