"""The decision of `hwnas check`: is a network slower than its baseline by more than a threshold?

A regression needs both: an effect over the threshold, and significance on repeats. So a slow-down that lies
exactly at the threshold is found half of the time, whatever the noise, and one of twice the threshold nearly
always. What
cannot be told apart is called inconclusive: neither side of the truth is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hwnas.measurement import STRICT
from hwnas.profiles.gate.rank_tests import Shift, fewest_pairs, paired_shift, unpaired_shift
from hwnas.ranges import Count, Figure, Ratio

FALSE_ALARMS = 0.01
"""The chance at most that a check of equal networks fails, all its networks together."""

FIRST_LOOK = 12
"""After so many repeats a regression is looked for; the other time is at the end."""

LOOKS = 2

Verdict = Literal["pass", "improvement", "regression", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided about one network, and from what; all figures are fractions of the baseline's latency.

    Attributes:
        effect: by how much it is slower; negative is faster.
        low, high: the interval of the effect, at a confidence of 1 − 2 × the accepted chance of a false
            alarm;
            None is no bound: too few repeats.
        noise_floor: the smallest slow-down that these repeats could have told from none; None is none at all.
        p_slower: the p-value of the hypothesis that it is not slower.
        repeats: how many repeats the decision rests on.
    """

    __pydantic_config__ = STRICT
    verdict: Verdict
    threshold: Ratio
    effect: Figure
    low: Figure | None
    high: Figure | None
    noise_floor: Figure | None
    p_slower: Ratio
    repeats: Count


def confidence(networks: int) -> float:
    """Of each network's interval, so that all of them and both looks together keep to `FALSE_ALARMS`."""
    return 1 - 2 * FALSE_ALARMS / LOOKS / networks


def fewest_repeats(networks: int) -> int:
    """Interleaved repeats without which nothing can be significant."""
    return fewest_pairs(confidence(networks))


def decide_paired(log_ratios: Sequence[float], threshold: float, networks: int = 1) -> Decision:
    """Decide from interleaved repeats.

    Args:
        log_ratios: of each repeat, the logarithm of the network's latency over its baseline's.
        threshold: the fraction by which a network may be slower.
        networks: that are checked together.
    """
    return _decide(paired_shift(log_ratios, confidence(networks)), threshold, len(log_ratios))


def decide_recorded(
    baseline_ms: Sequence[float], now_ms: Sequence[float], threshold: float, networks: int = 1
) -> Decision:
    """Decide from repeats of now and of the time when the baseline was recorded."""
    shift = unpaired_shift(
        [math.log(latency_ms) for latency_ms in baseline_ms],
        [math.log(latency_ms) for latency_ms in now_ms],
        confidence(networks),
    )
    return _decide(shift, threshold, len(now_ms))


def decide_modelled(baseline_ms: float, now_ms: float, threshold: float) -> Decision:
    """Decide from a simulator's answers, which have no noise."""
    effect = math.log(now_ms / baseline_ms)
    certain = Shift(
        value=effect, low=effect, high=effect, p_larger=float(effect <= 0), p_smaller=float(effect >= 0)
    )
    return _decide(certain, threshold, 1)


def is_settled(log_ratios: Sequence[float], threshold: float, networks: int = 1) -> bool:
    """Whether repeats may end early: surely under the threshold, or a regression at the first look.

    A pass can be told after any repeat, since it is no false alarm; a failure only at one of the two looks.
    """
    if paired_shift(log_ratios, confidence(networks)).high < math.log1p(threshold):
        return True
    at_first_look = len(log_ratios) == max(FIRST_LOOK, fewest_repeats(networks))
    return at_first_look and decide_paired(log_ratios, threshold, networks).verdict == "regression"


def _decide(shift: Shift, threshold: float, repeats: int) -> Decision:
    effect, low, high = (_fraction(value) for value in (shift.value, shift.low, shift.high))
    assert effect is not None
    noise_floor = _fraction(shift.value - shift.low)
    verdict: Verdict
    if effect > threshold:
        verdict = "regression" if low is not None and low > 0 else "inconclusive"
    elif high is not None and high < threshold:
        verdict = "improvement" if effect < -threshold and high < 0 else "pass"
    else:
        verdict = "pass" if noise_floor is not None and noise_floor <= threshold else "inconclusive"
    return Decision(
        verdict=verdict,
        threshold=threshold,
        effect=effect,
        low=low,
        high=high,
        noise_floor=noise_floor,
        p_slower=shift.p_larger,
        repeats=repeats,
    )


def _fraction(log_ratio: float) -> float | None:
    """exp(log ratio) − 1; None for an infinite one."""
    return math.expm1(log_ratio) if math.isfinite(log_ratio) else None
