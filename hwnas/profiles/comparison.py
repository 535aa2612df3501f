"""Two networks side by side on one device: the ratio of their latencies, with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.devices.queue import QueueDevice
from hwnas.files import encode
from hwnas.measurement import STRICT, Fingerprint, Interval, Measurement
from hwnas.network import Network
from hwnas.profiles.gate.check import log_ratios, lower_deciles_ms
from hwnas.profiles.gate.rank_tests import Shift, fewest_pairs, paired_shift, unpaired_shift
from hwnas.profiles.judgement import judge_conditions
from hwnas.profiles.session import Session, require_kind

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
            With too few repeats for one, its ends are the smallest and the largest ratio.
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


def compare(session: Session, first: Network, second: Network, *, precision: float) -> Comparison:
    """Interleave two networks until half of the ratio's interval is at most `precision`, or the time is up.

    Args:
        session: not yet entered; it takes `SIDE_BY_SIDE` and recalls nothing.

    Raises:
        DeviceError, PreparationError, NetworkFormError: something cannot be measured.
    """
    device = session.device
    require_kind(device, {"measured", "modelled"}, "a comparison")

    def settled(taken: Sequence[Measurement]) -> bool:
        ratios = log_ratios(*taken)
        if len(ratios) < FEWEST_REPEATS:
            return False
        shift = paired_shift(ratios, CONFIDENCE)
        return (shift.high - shift.low) / 2 <= precision

    with session:
        before = device.conditions()
        taken = session.side_by_side([first, second], settled)
        conditions = (before, device.conditions())
        fingerprint = session.fingerprint
    deciles_ms = [lower_deciles_ms(measurement) for measurement in taken]
    medians_ms = [measurement.medians_ms for measurement in taken]
    paired = not isinstance(device, QueueDevice)
    shift = _shift(deciles_ms, paired)
    return Comparison(
        models=(first.name, second.name),
        device=device.profile.name,
        fingerprint=fingerprint,
        repeats=len(medians_ms[1]),
        median_ms=(statistics.median(medians_ms[0]), statistics.median(medians_ms[1])),
        undisturbed_ms=(statistics.median(deciles_ms[0]), statistics.median(deciles_ms[1])),
        ratio=_interval(shift, deciles_ms),
        median_ratio=_interval(_shift(medians_ms, paired), medians_ms),
        is_precise=device.kind == "modelled" or (shift.high - shift.low) / 2 <= precision,
        judgement=tuple(finding.text for finding in judge_conditions(conditions)),
    )


def _shift(latencies_ms: Sequence[Sequence[float]], paired: bool) -> Shift:
    first, second = ([math.log(each) for each in of_network] for of_network in latencies_ms)
    if not paired:
        return unpaired_shift(first, second, CONFIDENCE)
    return paired_shift([b - a for a, b in zip(first, second, strict=True)], CONFIDENCE)


def _interval(shift: Shift, latencies_ms: Sequence[Sequence[float]]) -> Interval:
    if math.isinf(shift.low):
        ratios = [b / a for a, b in zip(*latencies_ms, strict=True)]
        return Interval(value=math.exp(shift.value), low=min(ratios), high=max(ratios))
    return Interval(value=math.exp(shift.value), low=math.exp(shift.low), high=math.exp(shift.high))
