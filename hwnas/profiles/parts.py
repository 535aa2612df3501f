"""A network's parts, each measured alone, against the whole: by how much their sum is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.files import encode
from hwnas.measurement import Interval, Measurement, MeasurementResult
from hwnas.profiles.judgement import disturbed_by
from hwnas.profiles.statistics import median_interval

FEWEST_REPEATS = 3
"""Of something measured, without which there is no interval."""


@dataclass(frozen=True, kw_only=True)
class Sum:
    """The latencies of the parts added up, beside the whole network's.

    Attributes:
        error: the sum over the whole, − 1.
        interval: of the error, with 95 % at least; None where something was measured too few times.
        disturbed_by: what disturbed any of the measurements; empty where nothing did.
    """

    whole_ms: float
    sum_ms: float
    interval: Interval | None
    disturbed_by: str

    @property
    def error(self) -> float:
        return self.sum_ms / self.whole_ms - 1

    def describe(self) -> str:
        """What the sum is worth, in a sentence: it is called wrong only where that is shown."""
        text = f"the sum of the parts is {self.sum_ms:.3f} ms, the whole network takes {self.whole_ms:.3f} ms"
        if self.disturbed_by:
            return f"{text}; whether the sum is wrong cannot be told: disturbed by {self.disturbed_by}"
        if self.interval is None:
            return f"{text}; whether the sum is wrong cannot be told: too few repeats"
        low, high = self.interval.low, self.interval.high
        error = f"{self.error:+.1%}" + (f" [{low:+.1%}, {high:+.1%}]" if low < high else "")
        if low <= 0 <= high:
            return f"{text}: they differ by {error}, no more than repeats of one network do"
        return f"{text}: on this device the sum is wrong by {error}"


@dataclass(frozen=True, kw_only=True)
class PartsTimes:
    """Each part of a network measured alone.

    Attributes:
        latencies_ms: by the part's name; None where it could not be measured.
        sum: None where one of them, or the whole network, could not be measured.
    """

    model: str
    latencies_ms: Mapping[str, float | None]
    sum: Sum | None

    def describe(self) -> str:
        """What the sum is worth; empty where there is none."""
        return self.sum.describe() if self.sum else ""

    def to_json(self) -> dict[str, Any]:
        """Return them as plain data."""
        plain: dict[str, Any] = {"model": self.model, "blocks_ms": dict(self.latencies_ms)}
        if self.sum is not None:
            plain |= {
                "whole_ms": self.sum.whole_ms,
                "sum_ms": self.sum.sum_ms,
                "error": self.sum.error,
                "error_interval": None if self.sum.interval is None else encode(self.sum.interval),
                "disturbed_by": self.sum.disturbed_by,
            }
        return plain


def times_of_parts(
    model: str, whole: MeasurementResult, parts: Mapping[str, MeasurementResult]
) -> PartsTimes:
    """The latency of each part alone, their sum, and by how much that is wrong.

    Args:
        parts: by name, in their order.
    """
    known = [part for part in parts.values() if isinstance(part, Measurement)]
    total = None
    if isinstance(whole, Measurement) and len(known) == len(parts):
        total = Sum(
            whole_ms=whole.latency_ms,
            sum_ms=sum(part.latency_ms for part in known),
            interval=sum_error(whole, known),
            disturbed_by=next(filter(None, map(disturbed_by, [whole, *known])), ""),
        )
    latencies = {
        name: part.latency_ms if isinstance(part, Measurement) else None for name, part in parts.items()
    }
    return PartsTimes(model=model, latencies_ms=latencies, sum=total)


def sum_error(whole: Measurement, parts: Sequence[Measurement]) -> Interval | None:
    """Sum of the parts' latencies over the whole network's, − 1, with an interval of 95 % at least.

    Its ends are those of the parts' own intervals added up, over the other end of the whole's: whatever slows
    one part down slows the others as well, so their errors do not cancel.

    Returns:
        None where something was measured too few times to have an interval.
    """
    repeats = min(len(measurement.repeats_ms) for measurement in (whole, *parts))
    if whole.kind == "measured" and repeats < FEWEST_REPEATS:
        return None
    of_whole = median_interval(whole.medians_ms)
    of_parts = [median_interval(part.medians_ms) for part in parts]
    return Interval(
        value=sum(part.value for part in of_parts) / of_whole.value - 1,
        low=sum(part.low for part in of_parts) / of_whole.high - 1,
        high=sum(part.high for part in of_parts) / of_whole.low - 1,
    )
