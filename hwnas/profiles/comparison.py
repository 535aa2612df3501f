"""Two networks side by side on one device: the ratio of their latencies, with its interval."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hwnas.devices.base import BaseDevice
from hwnas.devices.queue import QueueDevice
from hwnas.files import encode
from hwnas.measurement import STRICT, Fingerprint, Interval, Measurement, Protocol
from hwnas.network import Network
from hwnas.profiles.gate.check import measure_repeats
from hwnas.profiles.gate.rank_tests import Shift, fewest_pairs, paired_shift, unpaired_shift
from hwnas.profiles.judgement import judge_conditions
from hwnas.profiles.session import require_kind
from hwnas.profiles.sitting import Pace, Slices, latency_ms, median_ms

SCHEMA = "hwnas.comparison/1"
CONFIDENCE = 0.95
FEWEST_REPEATS = fewest_pairs(CONFIDENCE)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The second network against the first one.

    Attributes:
        median_ms: of each network, the median over repeats.
        undisturbed_ms: of each network, the median over repeats of their lower deciles.
        ratio: of the undisturbed latencies, second over first, with its exact 95 % interval over repeats.
            With
            too few repeats for one, its ends are the smallest and the largest ratio.
        median_ratio: the same of the medians.
        is_precise: whether the interval became as narrow as it was asked for.
        judgement: what stands against the measurement, in sentences.
    """

    __pydantic_config__ = STRICT
    models: tuple[str, str]
    device: str
    fingerprint: Fingerprint
    repeats: int
    median_ms: tuple[float, float]
    undisturbed_ms: tuple[float, float]
    ratio: Interval
    median_ratio: Interval
    is_precise: bool
    judgement: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema's name and version; see docs/json.md."""
        return {"schema": SCHEMA, **encode(self)}


def compare(
    device: BaseDevice,
    first: Network,
    second: Network,
    *,
    precision: float,
    pace: Pace,
    keep: Callable[[Measurement], None] = lambda measurement: None,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Interleave two networks until half of the ratio's interval is at most `precision`, or the time is up.

    Args:
        device: not yet entered.
        keep: called with the measurement of each network.

    Raises:
        DeviceError, PreparationError, NetworkFormError: something cannot be measured.
    """
    require_kind(device, {"measured", "modelled"}, "a comparison")
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with device:
        fingerprint, before = device.fingerprint(), device.conditions()
        settled = partial(_is_precise, precision=precision)
        taken = measure_repeats(device, [first, second], pace, settled, clock)
        conditions = (before, device.conditions())
    for network, repeats in zip((first, second), taken, strict=True):
        keep(
            Measurement(
                network_hash=network.hash,
                kind=device.kind,
                repeats_ms=tuple(tuple(itertools.chain.from_iterable(slices)) for slices in repeats),
                warmup_ms=(),
                anchor_ms=(),
                metrics={},
                placement={},
                protocol=_protocol(pace),
                fingerprint=fingerprint,
                conditions=conditions,
                started_at=started_at,
                network_name=network.name,
                device_name=device.profile.name,
            )
        )
    paired = not isinstance(device, QueueDevice)
    shift = _shift(taken, latency_ms, paired)
    return Comparison(
        models=(first.name, second.name),
        device=device.profile.name,
        fingerprint=fingerprint,
        repeats=len(taken[1]),
        median_ms=(_middle(taken[0], median_ms), _middle(taken[1], median_ms)),
        undisturbed_ms=(_middle(taken[0], latency_ms), _middle(taken[1], latency_ms)),
        ratio=_interval(shift, taken, latency_ms),
        median_ratio=_interval(_shift(taken, median_ms, paired), taken, median_ms),
        is_precise=device.kind == "modelled" or (shift.high - shift.low) / 2 <= precision,
        judgement=tuple(finding.text for finding in judge_conditions(conditions)),
    )


def _is_precise(log_ratios: Sequence[float], precision: float) -> bool:
    if len(log_ratios) < FEWEST_REPEATS:
        return False
    shift = paired_shift(log_ratios, CONFIDENCE)
    return (shift.high - shift.low) / 2 <= precision


def _logs(repeats: Sequence[Slices], latency: Callable[[Slices], float]) -> list[float]:
    return [math.log(latency(slices)) for slices in repeats]


def _shift(taken: Sequence[Sequence[Slices]], latency: Callable[[Slices], float], paired: bool) -> Shift:
    first, second = (_logs(repeats, latency) for repeats in taken)
    if not paired:
        return unpaired_shift(first, second, CONFIDENCE)
    return paired_shift([b - a for a, b in zip(first, second, strict=True)], CONFIDENCE)


def _interval(
    shift: Shift, taken: Sequence[Sequence[Slices]], latency: Callable[[Slices], float]
) -> Interval:
    if math.isinf(shift.low):
        ratios = [latency(b) / latency(a) for a, b in zip(taken[0], taken[1], strict=True)]
        return Interval(value=math.exp(shift.value), low=min(ratios), high=max(ratios))
    return Interval(value=math.exp(shift.value), low=math.exp(shift.low), high=math.exp(shift.high))


def _middle(repeats: Sequence[Slices], latency: Callable[[Slices], float]) -> float:
    return statistics.median(map(latency, repeats))


def _protocol(pace: Pace) -> Protocol:
    """The pace as a protocol, for the history."""
    return Protocol(
        name="side by side",
        warmup_s=pace.warmup_s,
        min_runs=pace.repeat_runs,
        min_s=pace.repeat_s,
        repeats=1,
        max_repeats=pace.max_repeats,
        max_spread=0.0,
        fresh=True,
        max_seconds=pace.max_seconds,
    )
