"""Rules that decide whether one network is slower than another, for benchmarks/gate_power.py.

Each takes `repeats_ms` (repeat → baseline, candidate → slice → runs, in ms) and a threshold, and answers
`regression`, `pass` or, ours only, `inconclusive`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

from scipy import stats

from hwnas.profiles.gate import decision
from hwnas.profiles.interleave import Slices, latency_ms

Repeats = Sequence[tuple[Slices, Slices]]
Rule = Callable[[Repeats, float], str]

OURS = "hwnas check"
ASV_P, ASV_FACTOR = 0.002, 1.1


def log_ratio(repeat: Sequence[Slices]) -> float:
    """Logarithm of the second network's latency over the first one's."""
    first_ms, second_ms = (latency_ms([*itertools.chain.from_iterable(slices)]) for slices in repeat)
    return math.log(second_ms / first_ms)


def ours(repeats_ms: Repeats, threshold: float) -> str:
    """`hwnas check`, which looks after each repeat whether it is settled."""
    needed = repeats_needed(repeats_ms, threshold)
    return decision.decide_paired([*map(log_ratio, repeats_ms[:needed])], threshold).verdict


def repeats_needed(repeats_ms: Repeats, threshold: float) -> int:
    """How many of the repeats `hwnas check` takes: until it is settled, or all there are."""
    log_ratios = [*map(log_ratio, repeats_ms)]
    settled = (
        count for count in range(1, len(log_ratios)) if decision.is_settled(log_ratios[:count], threshold)
    )
    return next(settled, len(log_ratios))


def pytest_benchmark(statistic: Callable[[list[float]], float], repeats_ms: Repeats, threshold: float) -> str:
    """pytest-benchmark's `--benchmark-compare-fail=STATISTIC:P%`: the statistic of all runs, no test."""
    old, new = (_runs(repeats_ms, place) for place in (0, 1))
    return _verdict(statistic(new) > (1 + threshold) * statistic(old))


def asv(factor: float | None, repeats_ms: Repeats, threshold: float) -> str:
    """asv's `continuous`: Mann-Whitney's U, p < 0.002, and the medians apart by a factor.

    A sample of asv is the mean of some runs, here of a slice. Without a factor it is 1 + threshold.
    """
    old, new = (_slice_means(repeats_ms, place) for place in (0, 1))
    p_value = stats.mannwhitneyu(new, old, alternative="two-sided").pvalue
    limit = 1 + threshold if factor is None else factor
    return _verdict(p_value < ASV_P and statistics.median(new) > limit * statistics.median(old))


def t_test(with_effect: bool, repeats_ms: Repeats, threshold: float) -> str:
    """Welch's t-test on all runs, one-sided, p < 0.05; with or without an effect over the threshold."""
    old, new = (_runs(repeats_ms, place) for place in (0, 1))
    significant = stats.ttest_ind(new, old, equal_var=False, alternative="greater").pvalue < 0.05
    large = statistics.fmean(new) > (1 + threshold) * statistics.fmean(old)
    return _verdict(bool(significant) and (large or not with_effect))


RULES: dict[str, Rule] = {
    OURS: ours,
    "pytest-benchmark, min": partial(pytest_benchmark, min),
    "pytest-benchmark, median": partial(pytest_benchmark, statistics.median),
    "pytest-benchmark, mean": partial(pytest_benchmark, statistics.fmean),
    "asv, factor 1.1": partial(asv, ASV_FACTOR),
    "asv, factor 1 + threshold": partial(asv, None),
    "t-test on runs": partial(t_test, False),
    "t-test on runs and effect": partial(t_test, True),
}


def share(count: int, total: int) -> str:
    """A share with its Clopper-Pearson 95 % interval in percent; a dash for a share of nothing."""
    if not total:
        return "–"
    interval = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    return f"{count}/{total}: {count / total:.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _runs(repeats_ms: Repeats, place: int) -> list[float]:
    return list(itertools.chain.from_iterable(part for repeat in repeats_ms for part in repeat[place]))


def _slice_means(repeats_ms: Repeats, place: int) -> list[float]:
    return [statistics.fmean(part) for repeat in repeats_ms for part in repeat[place]]


def _verdict(is_slower: bool) -> str:
    return "regression" if is_slower else "pass"
