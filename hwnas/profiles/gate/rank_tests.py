"""How far two sets of latencies lie apart, by ranks: exact at any number of repeats, indifferent to outliers.

Both estimates are due to Hodges and Lehmann (1963): the median of all pairwise averages (paired repeats) or
of all pairwise differences (two independent sets). Intervals and p-values come from the exact null
distribution of Wilcoxon's signed-rank statistic and of Mann and Whitney's U, so they hold for ten repeats as
for a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.measurement import STRICT

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Shift:
    """By how much one set is larger than another, in the unit of its values.

    Attributes:
        low, high: the exact interval; infinite where there are too few repeats for any.
        p_larger: of the hypothesis that it is not larger, one-sided; `p_smaller` the other way.
    """

    __pydantic_config__ = STRICT
    value: float
    low: float
    high: float
    p_larger: float
    p_smaller: float


def paired_shift(differences: Sequence[float], confidence: float) -> Shift:
    """The shift of paired repeats from their differences.

    Under the null hypothesis, that the two were exchanged at random within each pair, it is exact.
    """
    import numpy as np

    values = np.asarray(differences, dtype=float)
    first, second = np.triu_indices(len(values))
    return _shift((values[first] + values[second]) / 2, _signed_rank_distribution(len(values)), confidence)


def unpaired_shift(old: Sequence[float], new: Sequence[float], confidence: float) -> Shift:
    """The shift from `old` to `new`, two independent sets of repeats."""
    import numpy as np

    between = np.subtract.outer(np.asarray(new, dtype=float), np.asarray(old, dtype=float)).ravel()
    return _shift(between, _rank_sum_distribution(len(old), len(new)), confidence)


def fewest_pairs(confidence: float) -> int:
    """The smallest number of paired repeats that can have a finite interval of this confidence."""
    pairs = 1
    while 0.5**pairs > (1 - confidence) / 2:
        pairs += 1
    return pairs


def _shift(between: np.ndarray, distribution: np.ndarray, confidence: float) -> Shift:
    """From all pairwise averages or differences, and the distribution of how many are positive."""
    import numpy as np

    ordered, below = np.sort(between), np.cumsum(distribution)
    # Each end leaves out as many as a chance of (1 − confidence) / 2 allows.
    left_out = int(np.searchsorted(below, (1 - confidence) / 2 * (1 + 1e-9), side="right"))
    low, high = (ordered[left_out - 1], ordered[-left_out]) if left_out else (-np.inf, np.inf)

    def tail(count: int) -> float:
        return float(distribution[count:].sum())

    return Shift(
        value=float(np.median(ordered)),
        low=float(low),
        high=float(high),
        p_larger=min(1.0, tail(int((ordered > 0).sum()))),
        p_smaller=min(1.0, tail(int((ordered < 0).sum()))),
    )


def _signed_rank_distribution(pairs: int) -> np.ndarray:
    """P(W = w) for w = 0 … pairs (pairs + 1) / 2: each rank counts with probability one half."""
    import numpy as np

    distribution = np.ones(1)
    for rank in range(1, pairs + 1):
        wider = np.zeros(len(distribution) + rank)
        wider[: len(distribution)] += distribution / 2
        wider[rank:] += distribution / 2
        distribution = wider
    return distribution


def _rank_sum_distribution(old: int, new: int) -> np.ndarray:
    """P(U = u) for u = 0 … old × new: all choices of `new` ranks out of all are equally likely."""
    import math

    import numpy as np

    most = old * new
    # ways[k][u]: choices of k of the ranks so far whose sum is u above the smallest possible one.
    ways = np.zeros((new + 1, most + 1))
    ways[0, 0] = 1
    for rank in range(old + new):
        for taken in range(min(new - 1, rank), -1, -1):
            above = rank - taken  # the smallest possible rank of the next one taken is `taken`
            if above <= most:
                ways[taken + 1, above:] += ways[taken, : most + 1 - above]
    distribution: np.ndarray = ways[new] / math.comb(old + new, new)
    return distribution
