"""What a memory holds of a loop nest at once, and how often that changes, in closed form, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.accelerator import BANK_BITS
from hwnas.devices.simulator.columns import G, K

# How many factors the search of loop orders cuts a loop nest in; mapper.LOOP_FACTORS.
LOOP_FACTORS = 6


@njit(error_model="numpy")
def ragged(times: float, bits: float, width: float) -> Any:
    """Bits that a port could have moved in the cycles that a number of transfers of some bits take."""
    return times * (np.ceil(bits / width - 1e-9) * width - bits)


@njit(error_model="numpy")
def portion(loops: Any, room: float) -> Any:
    """How many steps over input channels and kernel a memory holds the weights of: loops as a whole.

    A loop nest is cut into few factors (LOMA), so that loops over kernel rows and columns, and mostly those
    over channels, lie inside or outside of a memory; a loop that nothing else shares the room with is cut.

    Args:
        loops: steps of the nest, see is_cut; room: steps that there is room for.
    """
    nc, ny, nx = loops.c, loops.fy, loops.fx
    if nc * ny * nx <= room:
        return nc * ny * nx
    if ny * nx == 1.0:
        return nc / np.ceil(nc / max(room, 1.0))
    most = 1.0
    for which in range(7):
        steps = (nc if which & 1 else 1.0) * (ny if which & 2 else 1.0) * (nx if which & 4 else 1.0)
        if steps <= room:
            most = max(most, steps)
    return most


@njit(error_model="numpy")
def primes(n: float) -> Any:
    """How many prime factors a number of steps has."""
    left, p, found = int(n), 2, 0
    while p * p <= left:
        if left % p == 0:
            left //= p
            found += 1
        else:
            p += 1
    return found + 1 if left > 1 else found


@njit(error_model="numpy")
def is_cut(at: int, loops: Any) -> Any:
    """Whether the search of loop orders cuts a loop in several factors.

    It merges two factors of the loop that has most of them, the first of such loops, until six are left
    (mapper.loop_factors): where two each are too many, the first loops become one factor.

    Args:
        at: which of them: K to FX, which number loops as they number the layer table's columns.
        loops: steps of the nest.
    """
    if primes(loops[at]) < 2:
        return False
    once, twice, behind = 0, 0, 0
    for i in range(7):
        found = primes(loops[i])
        once += min(found, 1)
        twice += min(found, 2)
        if i > at and found >= 2:
            behind += 1
    return twice <= LOOP_FACTORS or behind < LOOP_FACTORS - once


@njit(error_model="numpy")
def together(channels: float, room: float, loops: Any) -> Any:
    """How many output channels a memory holds the weights of, where it does not hold those of all.

    As many as fit and divide them, because LOMA gives a memory whole loop factors; one where the loop over
    channels is one factor.

    Args:
        channels: steps over output channels and groups; room: steps that there is room for.
        loops: steps of the nest, see is_cut.
    """
    if room < 2.0 or not is_cut(K if loops.k > 1.0 else G, loops):
        return 1.0
    parts = max(1.0, np.ceil(channels / room - 1e-9))
    while channels % parts != 0.0:
        parts += 1.0
    return channels / parts


@njit(error_model="numpy")
def pieces(parts: float, at: int, loops: Any) -> Any:
    """In how many parts a loop is worked through where it takes some at least.

    A loop that is one factor lies outside of the memory as a whole.

    Args:
        parts: how many at least; at, loops: which loop, and all loops; see is_cut.
    """
    return parts if parts < loops[at] and is_cut(at, loops) else loops[at]


@njit(error_model="numpy")
def reread(parts: float, at: int, loops: Any, overlap: float, extent: float) -> Any:
    """What share of a map is read twice when it comes in parts along one axis.

    Neighbouring windows share d(k - 1) + 1 - s positions (Alwani et al., MICRO 2016, section III), which are
    read again for every part but the first.

    Args:
        parts, at, loops: see pieces.
        overlap, extent: positions that neighbours share, and of the whole map, along the axis.
    """
    if overlap <= 0.0:
        return 0.0
    return (pieces(parts, at, loops) - 1.0) * overlap / (extent + overlap)


@njit(error_model="numpy")
def whole_words(bits: float, times: float) -> Any:
    """Bits that a number of transfers move: a memory opens whole banks (accelerator.BANK_BITS)."""
    return np.ceil(bits / BANK_BITS - 1e-9) * BANK_BITS * times


@njit(error_model="numpy")
def waits(bits: float, times: float, window: float, width: float) -> Any:
    """Cycles that the array waits because a memory's content changes as a whole.

    Stall = transfer - window for every content but the first (Mei et al., DATE 2022).

    Args:
        bits: of one content; times: how many of them come or go one after the other.
        window: cycles of one content's service in which the next may come: all where two contents fit, else
            those in which something of it is used for the first time, as the last of it is held until then.
        width: of the port.
    """
    return max(0.0, np.ceil(bits / width - 1e-9) - window) * (times - 1.0)
