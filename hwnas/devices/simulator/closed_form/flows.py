"""Data that flow between the memories during one layer tile, in closed form, compiled.

busy is a scratch of six rows and a column for every memory: bits read and written; how many of them take no
time while the array computes (first loads and the last write, less what ragged transfers take beside them);
cycles in which the array waits for the port whatever else it does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.contents import (
    pieces,
    portion,
    ragged,
    refills,
    reread,
    together,
    waits,
    whole_words,
)
from hwnas.devices.simulator.closed_form.machine import (
    READ_PJ,
    READ_WIDTH,
    SINGLE_PORT,
    SIZE,
    WRITE_PJ,
    WRITE_WIDTH,
)


@njit(error_model="numpy")
def hop_pj(source: int, target: int, memory: Any) -> Any:
    """Energy of a bit that goes from one memory to another."""
    return (
        memory[READ_PJ, source] / memory[READ_WIDTH, source]
        + memory[WRITE_PJ, target] / memory[WRITE_WIDTH, target]
    )


@njit(error_model="numpy")
def pass_on(
    bits: float, times: float, window: float, source: int, target: int, memory: Any, busy: Any
) -> Any:
    """Note contents that go from one memory to another; the first (or last) of them takes no time here.

    Args:
        bits, times, window: see waits().

    Returns:
        cycles that the first takes.
    """
    busy[0, source] += bits * times
    busy[1, target] += bits * times
    busy[2, source] += bits
    busy[3, target] += bits
    busy[4, source] += waits(bits, times, window, memory[READ_WIDTH, source])
    busy[5, target] += waits(bits, times, window, memory[WRITE_WIDTH, target])
    return bits / min(memory[READ_WIDTH, source], memory[WRITE_WIDTH, target])


@njit(error_model="numpy")
def fill_registers(
    loops: Any,
    bits: float,
    hold_w: float,
    hold_o: float,
    sums: float,
    source: int,
    target: int,
    o0: int,
    memory: Any,
    busy: Any,
) -> Any:
    """Weights that come into their registers from the memory next to them.

    Args:
        loops: steps of the nest, see contents.is_cut.
        bits: of the weights of one step; sums: of all outputs as partial sums.
        hold_w, hold_o: weights, partial sums that a register file holds.
        source, target, o0: the memory, the register file, the memory for outputs next to the array.

    Returns:
        how many steps' weights came; how often partial sums go; cycles of the first load.
    """
    channels, inner = loops[0] * loops[2], loops[1] * loops[5] * loops[6]
    positions = loops[3] * loops[4]
    held = portion(loops, hold_w)
    fills, rounds = refills(
        channels,
        inner,
        held,
        positions,
        hold_o,
        bits * hop_pj(source, target, memory),
        hop_pj(o0, o0, memory),
        sums,
        memory[SIZE, o0],
    )
    # What the registers hold at once: all weights, those of some steps, or those of one step.
    if held < inner and rounds == 1.0:
        held = 1.0
    one = held
    if fills <= hold_w:
        held = fills
    elif held == inner:
        held *= together(channels, hold_w / inner, loops)
    steps = channels * inner * positions
    window = steps * held / fills if 2.0 * one <= hold_w else held
    busy[0, source] += fills * bits
    busy[2, source] += held * bits - ragged(fills / held, bits * held, memory[READ_WIDTH, source])
    busy[4, source] += waits(held * bits, fills / held, window, memory[READ_WIDTH, source])
    first = max(
        held * bits / memory[READ_WIDTH, source],
        held * memory[SIZE, target] / hold_w / memory[WRITE_WIDTH, target],
    )
    return fills, rounds, first


@njit(error_model="numpy")
def weight_contents(
    loops: Any, bits: float, hold_o: float, sums: float, source: int, target: int, o0: int, memory: Any
) -> Any:
    """How a layer's weights come into a shared memory.

    Output channels come one after the other, or parts of their sums do.

    Args:
        bits: of all weights; the others as for fill_registers.

    Returns:
        how many contents they are; how many output channels are in one; how often all are read for other
        positions; how often partial sums go.
    """
    room = memory[SIZE, target]
    if bits <= room:
        return 1.0, 1.0, 1.0, 1.0
    channels, inner = loops[0] * loops[2], loops[1] * loops[5] * loops[6]
    steps = channels * inner
    part = portion(loops, np.floor(room * steps / bits))
    fills, rounds = refills(
        channels,
        inner,
        part,
        loops[3] * loops[4],
        hold_o,
        bits / steps * hop_pj(source, target, memory),
        hop_pj(o0, o0, memory),
        sums,
        memory[SIZE, o0],
    )
    several = together(channels, room * channels / bits, loops) if part == inner else 1.0
    return steps / part / several, several, fills / steps, rounds


@njit(error_model="numpy")
def map_contents(loops: Any, bits: float, room: float, overlaps: Any) -> Any:
    """In how many parts an input map comes into a memory, and bits of all of them.

    Parts that are not groups of channels overlap. One half of the memory is left for the next part.

    Args:
        overlaps: what neighbouring windows share, and positions of the map, along rows and columns.
    """
    count = np.ceil(bits / (room * 0.5))
    parts = np.ceil(count / loops[2])
    if parts > 1.0:
        bits *= 1.0 + min(
            reread(parts, 3, loops, overlaps[0], overlaps[1]),
            reread(parts, 4, loops, overlaps[2], overlaps[3]),
        )
    return count, whole_words(bits / count, count)


@njit(error_model="numpy")
def repeats(loops: Any, parts: float, contents: float, map_pj: float, weights_pj: float) -> Any:
    """How often weights and maps are read where a memory holds neither: one is the outer loop.

    A weight is read again for other positions only, a map for other output channels only, and neither for
    other groups; whichever costs less.

    Args:
        parts, contents: of maps and of weights; map_pj, weights_pj: energy of reading all of them once.
    """
    parts = np.ceil(parts / loops[2])
    if parts > 1.0:
        parts = min(pieces(parts, 3, loops), pieces(parts, 4, loops))
    contents = min(np.ceil(contents / loops[2]), loops[0])
    if weights_pj * (parts - 1.0) <= map_pj * (contents - 1.0):
        return parts, 1.0
    return 1.0, contents


@njit(error_model="numpy")
def busiest(steps: float, memory: Any, busy: Any) -> Any:
    """Cycles until the array and every port are done, and energy of all that flowed.

    Streams of a port share what their windows leave of its time (Mei et al., DATE 2022).
    """
    longest, energy = steps, 0.0
    for x in range(memory.shape[1]):
        if busy[0, x] == 0.0 and busy[1, x] == 0.0:
            continue
        read, written = busy[0, x] / memory[READ_WIDTH, x], busy[1, x] / memory[WRITE_WIDTH, x]
        energy += read * memory[READ_PJ, x] + written * memory[WRITE_PJ, x]
        read -= busy[2, x] / memory[READ_WIDTH, x] + busy[4, x]
        written -= busy[3, x] / memory[WRITE_WIDTH, x] + busy[5, x]
        if memory[SINGLE_PORT, x] > 0:
            longest = max(longest, max(steps, read + written) + busy[4, x] + busy[5, x])
        else:
            longest = max(longest, max(steps, read) + busy[4, x], max(steps, written) + busy[5, x])
    return longest, energy
