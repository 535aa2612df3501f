"""Exact rank statistics, against scipy and against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwnas.profiles.gate.rank_tests import fewest_pairs, paired_shift, unpaired_shift

distinct = st.lists(st.integers(-10_000, 10_000).filter(bool), min_size=1, max_size=14, unique_by=abs)


@given(distinct)
def test_the_paired_p_value_is_wilcoxons(values: list[int]) -> None:
    shift = paired_shift(values, 0.95)
    assert shift.p_larger == pytest.approx(
        stats.wilcoxon(values, alternative="greater", method="exact").pvalue
    )
    assert shift.p_smaller == pytest.approx(stats.wilcoxon(values, alternative="less", method="exact").pvalue)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=16, unique=True), st.data())
def test_the_unpaired_p_value_is_mann_and_whitneys(values: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(values) - 1))
    old, new = values[:cut], values[cut:]
    expected = stats.mannwhitneyu(new, old, alternative="greater", method="exact").pvalue
    assert unpaired_shift(old, new, 0.95).p_larger == pytest.approx(expected)


@given(distinct, st.sampled_from([0.9, 0.98, 0.99]))
def test_the_interval_is_what_the_test_does_not_reject(values: list[int], confidence: float) -> None:
    shift = paired_shift(values, confidence)
    if math.isinf(shift.low):
        assert len(values) < fewest_pairs(confidence)
        return
    alpha = (1 - confidence) / 2
    inside = paired_shift([value - shift.low - 1e-6 for value in values], confidence)
    outside = paired_shift([value - shift.low + 1e-6 for value in values], confidence)
    assert inside.p_larger > alpha - 1e-12
    assert outside.p_larger <= alpha + 1e-12
    assert shift.low <= shift.value <= shift.high


@given(distinct)
def test_the_other_direction_is_the_mirror_image(values: list[int]) -> None:
    there, back = paired_shift(values, 0.98), paired_shift([-value for value in values], 0.98)
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)
    assert (back.p_larger, back.p_smaller) == (there.p_smaller, there.p_larger)


def test_equal_values_are_no_evidence() -> None:
    shift = paired_shift([0.0] * 12, 0.98)
    assert (shift.value, shift.low, shift.high, shift.p_larger) == (0.0, 0.0, 0.0, 1.0)
    shift = unpaired_shift([3.0] * 8, [3.0] * 8, 0.98)
    assert (shift.value, shift.low, shift.high, shift.p_larger) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("confidence", "pairs"), [(0.5, 2), (0.98, 7), (0.99, 8)])
def test_the_fewest_pairs_are_the_first_with_an_interval(confidence: float, pairs: int) -> None:
    assert fewest_pairs(confidence) == pairs
    assert math.isfinite(paired_shift(range(pairs), confidence).low)
    assert math.isinf(paired_shift(range(pairs - 1), confidence).low)


def test_under_exchange_a_small_p_value_is_as_rare_as_it_says() -> None:
    """Every way to exchange the two within each pair, once: the exact null distribution."""
    sizes = [0.3, 1.0, 1.1, 2.0, 5.0, 9.0, 40.0, 41.0]
    p_values = [
        paired_shift([s * x for s, x in zip(signs, sizes, strict=True)], 0.98).p_larger
        for signs in itertools.product((-1, 1), repeat=len(sizes))
    ]
    for alpha in (0.005, 0.01, 0.05, 0.2):
        assert np.mean(np.asarray(p_values) <= alpha) <= alpha
