"""Intervals for latencies. Repeats are independent of each other, the samples within one are not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from hwnas.measurement import Interval, Measurement, MeasurementResult

RESAMPLES = 10_000
WHOLE_RANGE = 6
"""Of fewer values, the smallest is the median of at least one resample in twenty."""


def half_width(values: Sequence[float]) -> float:
    """Half of the median's 95 % interval, as a fraction of the median."""
    interval = median_interval(values)
    return (interval.high - interval.low) / 2 / interval.value


def median_interval(values: Sequence[float]) -> Interval:
    """Median with its 95 % percentile-bootstrap interval over values that are independent of each other.

    With fewer than six values the interval is their whole range; one value is its own interval.
    """
    if len(values) < WHOLE_RANGE:
        ordered = sorted(map(float, values))
        return Interval(value=statistics.median(ordered), low=ordered[0], high=ordered[-1])
    import numpy as np

    repeats = np.asarray(values, dtype=float)
    resampled = np.random.default_rng(0).choice(repeats, (RESAMPLES, len(repeats)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5], method="nearest")
    return Interval(value=float(np.median(repeats)), low=float(low), high=float(high))


def overhead_of(results: Iterable[MeasurementResult]) -> str:
    """One line on what networks cost beyond their measuring time; empty where the device does not tell."""
    measured = [result for result in results if isinstance(result, Measurement)]
    overheads_ms = [m.metrics["overhead_ms"] for m in measured if "overhead_ms" in m.metrics]
    if not overheads_ms:
        return ""
    return (
        "overhead beyond measuring (converting, copying, loading, round trips): "
        f"{statistics.median(overheads_ms) / 1000:.2f} s a network, {max(overheads_ms) / 1000:.2f} s at most"
    )
