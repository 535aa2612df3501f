"""What a session knows so far, told after each round: repeats, intervals, the time left."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hwnas.measurement import Protocol
from hwnas.profiles.gate.rank_tests import fewest_pairs, paired_shift
from hwnas.profiles.interleave import Series, latency_ms
from hwnas.profiles.statistics import median_interval
from hwnas.progress import Progress

CONFIDENCE = 0.95

OnRound = Callable[[Sequence[Series], Protocol, float], None]
"""Is told the networks that are measured, how, and the seconds since the first round began."""


def live_latencies(progress: Progress) -> OnRound:
    """Tell each network's median so far with its interval; those that are done stay among them."""
    known: dict[str, str] = {}

    def tell(taken: Sequence[Series], protocol: Protocol, elapsed_s: float) -> None:
        repeats = max(len(series.repeats) for series in taken)
        for series in taken:
            known[series.network.hash] = _latency(series)
        progress.live("\n".join([_head(repeats, protocol, elapsed_s), *known.values()]))

    return tell


def live_ratio(progress: Progress) -> OnRound:
    """Tell the ratio of two networks' latencies so far with its interval; of one network its latency."""

    def tell(taken: Sequence[Series], protocol: Protocol, elapsed_s: float) -> None:
        repeats = len(taken[0].repeats)
        text = _ratio(*taken) if len(taken) == 2 else _latency(taken[0])
        progress.live(f"{_head(repeats, protocol, elapsed_s)}\n{text}")

    return tell


def seconds_left(protocol: Protocol, repeats: int, elapsed_s: float) -> float:
    """Return how long repeats may go on: until the time is up, or the most repeats are taken at this pace."""
    at_pace_s = (protocol.max_repeats - repeats) * elapsed_s / repeats
    return max(0.0, min(at_pace_s, protocol.max_seconds - elapsed_s) if protocol.max_seconds else at_pace_s)


def _head(repeats: int, protocol: Protocol, elapsed_s: float) -> str:
    return f"repeat {repeats}, {seconds_left(protocol, repeats, elapsed_s):.0f} s left at most"


def _latency(series: Series) -> str:
    found = median_interval(series.medians_ms)
    return f"{series.network.name}: {found.value:.3f} ms ({found.low:.3f} … {found.high:.3f})"


def _ratio(first: Series, second: Series) -> str:
    pairs = zip(first.repeats_ms, second.repeats_ms, strict=True)
    ratios = [math.log(latency_ms(now) / latency_ms(then)) for then, now in pairs]
    shift = paired_shift(ratios, CONFIDENCE)
    interval = ""
    if len(ratios) >= fewest_pairs(CONFIDENCE):
        interval = f" ({math.exp(shift.low):.4f} … {math.exp(shift.high):.4f})"
    names = f"{second.network.name} takes {{}} of the latency of {first.network.name}"
    return names.replace("{}", f"{math.exp(shift.value):.4f}{interval}")
