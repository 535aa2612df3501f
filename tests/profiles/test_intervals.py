"""Intervals over repeats."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest

from hwnas.profiles.statistics import median_interval


def test_one_value_is_its_own_interval() -> None:
    interval = median_interval([2.5])
    assert (interval.low, interval.value, interval.high) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_values_give_their_whole_range(count: int) -> None:
    """The quantiles of all their resamples, of which there are few enough to go through."""
    values = [1.0 + i**2 for i in range(count)]
    medians = [statistics.median(resample) for resample in itertools.product(values, repeat=count)]
    low, high = np.percentile(medians, [2.5, 97.5], method="nearest")
    interval = median_interval(values)
    assert interval.value == statistics.median(values)
    assert (interval.low, interval.high) == (low, high) == (values[0], values[-1])


def test_it_is_the_quantile_of_all_resamples() -> None:
    """Six values have 6⁶ resamples: few enough to go through all of them."""
    values = [1.0, 1.1, 1.2, 1.5, 2.0, 4.0]
    medians = [statistics.median(resample) for resample in itertools.product(values, repeat=len(values))]
    low, high = np.percentile(medians, [2.5, 97.5], method="nearest")
    interval = median_interval(values)
    assert interval.low == pytest.approx(low, abs=0.06)
    assert interval.high == pytest.approx(high, abs=0.51)


def test_it_covers_the_median_of_the_distribution() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        interval = median_interval(generator.normal(10.0, 1.0, 15).tolist())
        covered += interval.low <= 10.0 <= interval.high
    assert covered >= 270
