"""A network's parts, each measured alone, against the whole: by how much their sum is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwnas.files import encode
from hwnas.measurement import Interval, Measurement, MeasurementResult
from hwnas.profiles.judgement import disturbed_by
from hwnas.profiles.statistics import median_interval

FEWEST_REPEATS = 3
"""Of something measured, without which there is no interval."""


def parts_row(
    model: str, whole: MeasurementResult, names: Sequence[str], parts: Sequence[MeasurementResult]
) -> dict[str, Any]:
    """The latency of each part alone, their sum, and by how much that is wrong, as plain data."""
    latencies = {
        name: part.latency_ms if isinstance(part, Measurement) else None
        for name, part in zip(names, parts, strict=True)
    }
    known = [part for part in parts if isinstance(part, Measurement)]
    plain: dict[str, Any] = {"model": model, "blocks_ms": latencies}
    if isinstance(whole, Measurement) and len(known) == len(latencies):
        error = sum_error(whole, known)
        sum_ms = sum(part.latency_ms for part in known)
        plain |= {
            "whole_ms": whole.latency_ms,
            "sum_ms": sum_ms,
            "error": sum_ms / whole.latency_ms - 1,
            "error_interval": None if error is None else encode(error),
            "disturbed_by": next(filter(None, map(disturbed_by, [whole, *known])), ""),
        }
    return plain


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


def describe_sum(plain: dict[str, Any]) -> str:
    """What the sum of the parts is worth, in a sentence: it is called wrong only where that is shown.

    Args:
        plain: of `parts_row`; empty text where a part failed.
    """
    if "error" not in plain:
        return ""
    text = f"the sum of the parts is {plain['sum_ms']:.3f} ms, "
    text += f"the whole network takes {plain['whole_ms']:.3f} ms"
    interval, error = plain["error_interval"], f"{plain['error']:+.1%}"
    if plain["disturbed_by"]:
        return f"{text}; whether the sum is wrong cannot be told: disturbed by {plain['disturbed_by']}"
    if interval is None:
        return f"{text}; whether the sum is wrong cannot be told: too few repeats"
    error += (
        f" [{interval['low']:+.1%}, {interval['high']:+.1%}]" if interval["low"] < interval["high"] else ""
    )
    if interval["low"] <= 0 <= interval["high"]:
        return f"{text}: they differ by {error}, no more than repeats of one network do"
    return f"{text}: on this device the sum is wrong by {error}"
