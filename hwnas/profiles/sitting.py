"""Networks side by side: short slices in turn, in repeats that share nothing but the device.

A repeat prepares every network anew, in a process of its own where the device has such, and then gives each a
slice of runs in turn, `a b b a a b …`, so that whatever slows the device down meets all of them alike.
Repeats are independent of each other; the runs within one are not.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hwnas.devices.base import Device
from hwnas.measurement import STRICT
from hwnas.network import Network

QUANTILE = 0.1
SLOWEST = 4

Slices = tuple[tuple[float, ...], ...]
"""The samples of one network in one repeat, slice by slice, in ms."""

Repeat = tuple[Slices, ...]
"""What one repeat gave for each network, in the given order."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long things take.

    Attributes:
        warmup_s: runs of each network before its first slice go on at least this long.
        slice_s: each slice takes at least this long, and at least one run.
        repeat_s: slices of a repeat go on until they have taken this long a network,
        repeat_runs: and this many runs of it, or `SLOWEST` times this long.
        max_repeats: no more repeats than this,
        max_seconds: and none that would end later than this.
    """

    __pydantic_config__ = STRICT
    warmup_s: float = 0.05
    slice_s: float = 0.05
    repeat_s: float = 0.35
    repeat_runs: int = 60
    max_repeats: int = 30
    max_seconds: float = 45.0


def repeats(
    device: Device,
    networks: Sequence[Network],
    pace: Pace,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Repeat]:
    """Yield repeats until the pace's time or number is used up; the first one is always taken.

    Repeats in which the device throttled are left out.

    Raises:
        DeviceLostError: the device went away.
        PreparationError, NetworkFormError: it cannot run one of the networks.
    """
    start_s = clock()
    device.conditions()  # throttling is what happened since the last look
    for number in range(pace.max_repeats):
        taken = _repeat(device, networks, pace, backwards=number % 2 == 1)
        if not device.conditions().throttled:
            yield taken
        elapsed_s = clock() - start_s
        if elapsed_s * (number + 2) / (number + 1) > pace.max_seconds:
            return


def latency_ms(slices: Slices) -> float:
    """The lower decile of a network's runs in one repeat: its latency where nothing else ran.

    Other work on the device only ever adds time, and to some runs more than to others. The median follows how
    many runs were disturbed, the smallest run is a single one; the decile is near the one and steady as the
    other.
    """
    ordered = sorted(itertools.chain.from_iterable(slices))
    return ordered[int(QUANTILE * (len(ordered) - 1))]


def median_ms(slices: Slices) -> float:
    """The median of a network's runs in one repeat."""
    return statistics.median(itertools.chain.from_iterable(slices))


def log_ratio(repeat: Repeat, latency: Callable[[Slices], float] = latency_ms) -> float:
    """Logarithm of the second network's latency over the first one's."""
    return math.log(latency(repeat[1]) / latency(repeat[0]))


def _repeat(device: Device, networks: Sequence[Network], pace: Pace, *, backwards: bool) -> Repeat:
    order = list(range(len(networks)))[:: -1 if backwards else 1]
    slices: list[list[tuple[float, ...]]] = [[] for _ in networks]
    with ExitStack() as held:
        handles = {}
        for place in order:
            handles[place] = device.prepare(networks[place], fresh=True)
            held.callback(device.release, handles[place])
        if pace.warmup_s:
            for place in order:
                device.sample(handles[place], runs=1, seconds=pace.warmup_s)
        while not _is_enough(slices, pace):
            for place in order:
                slices[place].append(tuple(device.sample(handles[place], runs=1, seconds=pace.slice_s)))
            order.reverse()
    return tuple(tuple(taken) for taken in slices)


def _is_enough(slices: Sequence[Sequence[Sequence[float]]], pace: Pace) -> bool:
    taken_s = sum(map(sum, itertools.chain.from_iterable(slices))) / 1000 / len(slices)
    runs = min(sum(map(len, taken)) for taken in slices)
    return runs > 0 and taken_s >= pace.repeat_s * (1 if runs >= pace.repeat_runs else SLOWEST)
