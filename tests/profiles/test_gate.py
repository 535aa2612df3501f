"""The decision: on plain numbers, and by simulation of what it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.profiles.gate.decision import (
    FALSE_ALARMS,
    FIRST_LOOK,
    confidence,
    decide_modelled,
    decide_paired,
    decide_recorded,
    fewest_repeats,
    is_settled,
)

log_ratios = st.lists(st.floats(-1, 1), min_size=1, max_size=20)


def repeats(effect: float, noise: float, count: int = FIRST_LOOK, seed: int = 0) -> list[float]:
    drawn = np.random.default_rng(seed).standard_t(3, count)
    return (math.log1p(effect) + noise * drawn).tolist()  # type: ignore[no-any-return]


def run(effect: float, noise: float, threshold: float, seed: int) -> str:
    """A whole check, up to thirty repeats."""
    taken = repeats(effect, noise, 30, seed)
    count = next((n for n in range(1, 31) if is_settled(taken[:n], threshold)), 30)
    return decide_paired(taken[:count], threshold).verdict


@pytest.mark.parametrize(
    ("effect", "noise", "verdict"),
    [
        (0.10, 0.01, "regression"),
        (0.04, 0.01, "pass"),
        (0.0, 0.01, "pass"),
        (-0.10, 0.01, "improvement"),
        (-0.04, 0.01, "pass"),
        (0.0, 0.3, "inconclusive"),
        (0.10, 0.3, "inconclusive"),
    ],
)
def test_effect_and_noise_make_the_verdict(effect: float, noise: float, verdict: str) -> None:
    assert decide_paired(repeats(effect, noise), 0.05).verdict == verdict


def test_too_few_repeats_are_inconclusive_however_clear_they_are() -> None:
    few = decide_paired([0.5] * (fewest_repeats(1) - 1), 0.05)
    assert (few.verdict, few.low, few.high, few.noise_floor) == ("inconclusive", None, None, None)
    assert decide_paired([0.5] * fewest_repeats(1), 0.05).verdict == "regression"


@given(log_ratios, st.floats(0.001, 0.5))
def test_what_holds_of_every_decision(values: list[float], threshold: float) -> None:
    decision = decide_paired(values, threshold)
    significant = decision.low is not None and decision.low > 0
    assert (decision.verdict == "regression") == (decision.effect > threshold and significant)
    if decision.verdict == "regression":
        assert decision.p_slower <= FALSE_ALARMS
    if decision.verdict == "pass":
        assert decision.noise_floor is not None
        assert decision.high is not None
        assert min(decision.noise_floor, decision.high) <= threshold
    if (
        decision.noise_floor is not None
        and decision.noise_floor > threshold
        and (decision.high or 0) > threshold
    ):
        assert decision.verdict == "inconclusive"


@given(log_ratios, st.floats(0.001, 0.5))
def test_repeats_end_early_only_for_a_pass_or_at_the_first_look(
    values: list[float], threshold: float
) -> None:
    if is_settled(values, threshold):
        verdict = decide_paired(values, threshold).verdict
        assert verdict in {"pass", "improvement"} or (verdict, len(values)) == ("regression", FIRST_LOOK)


def test_more_networks_need_more_evidence() -> None:
    assert confidence(10) > confidence(1)
    assert fewest_repeats(10) > fewest_repeats(1)
    assert decide_paired([0.5] * fewest_repeats(1), 0.05, networks=10).verdict == "inconclusive"


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_equal_networks_hardly_ever_fail(noise: float) -> None:
    """Heavy-tailed noise; the bound is on the failure rate, so of 400 some four are expected at most."""
    failures = sum(run(0.0, noise, 0.025, seed) == "regression" for seed in range(400))
    assert failures <= 9  # P(X > 9 | 400 × 1 %) = 0.8 %


@pytest.mark.parametrize("threshold", [0.025, 0.05])
def test_twice_the_threshold_is_found(threshold: float) -> None:
    found = sum(run(2 * threshold, 0.4 * threshold, threshold, seed) == "regression" for seed in range(100))
    assert found >= 95


def test_recorded_samples_are_compared_as_two_sets() -> None:
    then = np.exp(repeats(0.0, 0.005, 16, 1)).tolist()
    for effect, verdict in ((0.1, "regression"), (0.0, "pass"), (-0.1, "improvement")):
        now = np.exp(repeats(effect, 0.005, 16, 2)).tolist()
        decision = decide_recorded(then, now, 0.05)
        assert decision.verdict == verdict
        assert decision.effect == pytest.approx(effect, abs=0.01)
    assert decide_recorded(then[:2], then[2:4], 0.05).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("now_ms", "verdict"), [(10.6, "regression"), (10.4, "pass"), (10.0, "pass"), (9.0, "improvement")]
)
def test_a_model_has_no_noise(now_ms: float, verdict: str) -> None:
    decision = decide_modelled(10.0, now_ms, 0.05)
    assert (decision.verdict, decision.noise_floor) == (verdict, 0.0)
