"""Intervals for accuracies on a held-out part."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest
from torch import Tensor

from hwnas.measurement import Interval

RESAMPLES = 10_000


def accuracy(correct: Tensor) -> Interval:
    """Share of correct answers with Wilson's interval. correct: (N,) bool."""
    hits, total = int(correct.sum()), len(correct)
    interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return Interval(value=hits / total, low=float(interval.low), high=float(interval.high))


def paired_difference(correct: Tensor, reference: Tensor) -> Interval:
    """Accuracy minus the reference's on the same images, with a paired bootstrap interval.

    correct, reference: (N,) bool, by image.
    """
    difference = correct.numpy().astype(float) - reference.numpy().astype(float)
    generator = np.random.default_rng(0)
    means = [generator.choice(difference, len(difference), replace=True).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(value=float(difference.mean()), low=float(low), high=float(high))
