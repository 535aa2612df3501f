"""Data that flow between the memories during one layer tile, in closed form, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hwnas.devices.simulator.closed_form.contents import (
    pieces,
    portion,
    ragged,
    reread,
    together,
    waits,
    whole_words,
)
from hwnas.devices.simulator.closed_form.machine import (
    READ,
    READ_FREE,
    READ_PJ,
    READ_WAIT,
    READ_WIDTH,
    SINGLE_PORT,
    SIZE,
    WRITE_FREE,
    WRITE_PJ,
    WRITE_WAIT,
    WRITE_WIDTH,
    WRITTEN,
)
from hwnas.devices.simulator.columns import OX, OY


class Contents(NamedTuple):
    """What a memory holds one after the other.

    Attributes:
        bits: of one content.
        times: how many of them come or go.
        window: cycles of one content's service in which the next may come, see contents.waits.
    """

    bits: float
    times: float
    window: float


class Sums(NamedTuple):
    """Partial sums of a tile.

    Attributes:
        held: how many a register file holds.
        bits: of all outputs as partial sums.
        memory: the memory for outputs next to the array.
    """

    held: float
    bits: float
    memory: int


class Overlaps(NamedTuple):
    """Rows and columns of a map that neighbouring windows share, and those that it has."""

    rows: float
    height: float
    columns: float
    width: float


class Registers(NamedTuple):
    """Register files that are filled from a memory.

    Attributes:
        bits: of the weights of one step.
        held: how many weights a register file holds.
        source, target: the memory, the register file.
    """

    bits: float
    held: float
    source: int
    target: int


@njit(error_model="numpy")
def forget_flows(memory: Any) -> None:
    """Clear what flowed during the tile before; loops, because slices cost reference counting."""
    for row in range(READ, WRITE_WAIT + 1):
        for x in range(memory.shape[1]):
            memory[row, x] = 0.0


@njit(error_model="numpy")
def hop_pj(source: int, target: int, memory: Any) -> Any:
    """Energy of a bit that goes from one memory to another."""
    return (
        memory[READ_PJ, source] / memory[READ_WIDTH, source]
        + memory[WRITE_PJ, target] / memory[WRITE_WIDTH, target]
    )


@njit(error_model="numpy")
def pass_on(contents: Contents, source: int, target: int, memory: Any) -> Any:
    """Note contents that go from one memory to another; the first (or last) of them takes no time here.

    Returns:
        cycles that the first takes.
    """
    bits, times, window = contents
    memory[READ, source] += bits * times
    memory[WRITTEN, target] += bits * times
    memory[READ_FREE, source] += bits
    memory[WRITE_FREE, target] += bits
    memory[READ_WAIT, source] += waits(bits, times, window, memory[READ_WIDTH, source])
    memory[WRITE_WAIT, target] += waits(bits, times, window, memory[WRITE_WIDTH, target])
    return bits / min(memory[READ_WIDTH, source], memory[WRITE_WIDTH, target])


@njit(error_model="numpy")
def refills(loops: Any, held: float, fill_pj: float, sums: Sums, memory: Any) -> Any:
    """How often the weight registers are filled, and how often partial sums come and go meanwhile.

    Args:
        held: steps over input channels and kernel that a register file holds.
        fill_pj: energy of one fill.
    """
    channels, inner, positions = loops.k * loops.g, loops.c * loops.fy * loops.fx, loops.oy * loops.ox
    once = channels * inner
    if inner <= held:
        return once, 1.0
    # Each output stays until it is complete, and weights change from step to step; or each weight stays until
    # every position has used it.
    fills = once * np.ceil(positions / max(1.0, min(sums.held, positions)))
    parts = np.ceil(sums.bits / channels / memory[SIZE, sums.memory])
    rounds = inner / held
    sum_pj = hop_pj(sums.memory, sums.memory, memory)
    if fills > once and once * parts * fill_pj + rounds * sums.bits * sum_pj < fills * fill_pj:
        return once * parts, rounds
    return fills, 1.0


@njit(error_model="numpy")
def fill_registers(loops: Any, registers: Registers, sums: Sums, memory: Any) -> Any:
    """Weights that come into their registers from the memory next to them.

    Returns:
        how many steps' weights came; how often partial sums go; cycles of the first load.
    """
    bits, room, source, target = registers
    channels, inner, positions = loops.k * loops.g, loops.c * loops.fy * loops.fx, loops.oy * loops.ox
    held = portion(loops, room)
    fills, rounds = refills(loops, held, bits * hop_pj(source, target, memory), sums, memory)
    # What the registers hold at once: all weights, those of some steps, or those of one step.
    if held < inner and rounds == 1.0:
        held = 1.0
    one = held
    if fills <= room:
        held = fills
    elif held == inner:
        held *= together(channels, room / inner, loops)
    steps = channels * inner * positions
    window = steps * held / fills if 2.0 * one <= room else held
    memory[READ, source] += fills * bits
    memory[READ_FREE, source] += held * bits - ragged(fills / held, bits * held, memory[READ_WIDTH, source])
    memory[READ_WAIT, source] += waits(held * bits, fills / held, window, memory[READ_WIDTH, source])
    first = max(
        held * bits / memory[READ_WIDTH, source],
        held * memory[SIZE, target] / room / memory[WRITE_WIDTH, target],
    )
    return fills, rounds, first


@njit(error_model="numpy")
def weight_contents(loops: Any, bits: float, sums: Sums, source: int, target: int, memory: Any) -> Any:
    """How a layer's weights come into a shared memory.

    Output channels come one after the other, or parts of their sums do.

    Args:
        bits: of all weights.

    Returns:
        how many contents they are; how many output channels are in one; how often all are read for other
        positions; how often partial sums go.
    """
    room = memory[SIZE, target]
    if bits <= room:
        return 1.0, 1.0, 1.0, 1.0
    channels, inner = loops.k * loops.g, loops.c * loops.fy * loops.fx
    steps = channels * inner
    part = portion(loops, np.floor(room * steps / bits))
    fills, rounds = refills(loops, part, bits / steps * hop_pj(source, target, memory), sums, memory)
    several = together(channels, room * channels / bits, loops) if part == inner else 1.0
    return steps / part / several, several, fills / steps, rounds


@njit(error_model="numpy")
def map_contents(loops: Any, bits: float, room: float, overlaps: Overlaps) -> Any:
    """In how many parts an input map comes into a memory, and bits of all of them.

    Parts that are not groups of channels overlap. One half of the memory is left for the next part.
    """
    count = np.ceil(bits / (room * 0.5))
    parts = np.ceil(count / loops.g)
    if parts > 1.0:
        bits *= 1.0 + min(
            reread(parts, OY, loops, overlaps.rows, overlaps.height),
            reread(parts, OX, loops, overlaps.columns, overlaps.width),
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
    parts = np.ceil(parts / loops.g)
    if parts > 1.0:
        parts = min(pieces(parts, OY, loops), pieces(parts, OX, loops))
    contents = min(np.ceil(contents / loops.g), loops.k)
    if weights_pj * (parts - 1.0) <= map_pj * (contents - 1.0):
        return parts, 1.0
    return 1.0, contents


@njit(error_model="numpy")
def busiest(steps: float, memory: Any) -> Any:
    """Cycles until the array and every port are done, and energy of all that flowed.

    Streams of a port share what their windows leave of its time (Mei et al., DATE 2022).
    """
    longest, energy = steps, 0.0
    for x in range(memory.shape[1]):
        if memory[READ, x] == 0.0 and memory[WRITTEN, x] == 0.0:
            continue
        read, written = memory[READ, x] / memory[READ_WIDTH, x], memory[WRITTEN, x] / memory[WRITE_WIDTH, x]
        energy += read * memory[READ_PJ, x] + written * memory[WRITE_PJ, x]
        read_wait, write_wait = memory[READ_WAIT, x], memory[WRITE_WAIT, x]
        read -= memory[READ_FREE, x] / memory[READ_WIDTH, x] + read_wait
        written -= memory[WRITE_FREE, x] / memory[WRITE_WIDTH, x] + write_wait
        if memory[SINGLE_PORT, x] > 0:
            longest = max(longest, max(steps, read + written) + read_wait + write_wait)
        else:
            longest = max(longest, max(steps, read) + read_wait, max(steps, written) + write_wait)
    return longest, energy
