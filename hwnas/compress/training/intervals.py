"""Intervals for accuracies and other scores on a held-out part."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import binomtest, bootstrap
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from hwnas.compress.tasks.task import Evidence, Measure
from hwnas.measurement import Interval

RESAMPLES, DRAWN_AT_ONCE = 10_000, 10**6
RESAMPLES_OF_TOTALS = 1_000
"""Of metrics that are no means over images, each of which is computed anew from the images drawn."""


def accuracy(correct: Tensor) -> Interval:
    """Share of correct answers with Wilson's interval. correct: (N,) bool."""
    hits, total = int(correct.sum()), len(correct)
    interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return Interval(value=hits / total, low=float(interval.low), high=float(interval.high))


def mean_score(scores: Tensor) -> Interval:
    """The mean over images: of answers with Wilson's interval, of figures with a bootstrap interval.

    scores: (N,) bool or float, by image.
    """
    return accuracy(scores) if scores.dtype == torch.bool else _bootstrap(scores.double().numpy())


def paired_difference(scores: Tensor, reference: Tensor) -> Interval:
    """The mean score minus the reference's on the same images, with a paired bootstrap interval.

    scores, reference: (N,) bool or float, by image.
    """
    return _bootstrap(scores.numpy().astype(float) - reference.numpy().astype(float))


def measured(evidence: Evidence | None, measure: Measure) -> Interval | None:
    """A metric over images: a mean as in `mean_score`, a total with a bootstrap interval over the images.

    None without evidence, and where the metric does not apply to it.
    """
    if evidence is None:
        return None
    found = measure.total(evidence)
    if found.ndim:
        return mean_score(found) if len(found) else None
    return _resampled(lambda which: float(measure.total(_of(evidence, which))), _count(evidence))


def measured_difference(
    evidence: Evidence | None, reference: Evidence | None, measure: Measure
) -> Interval | None:
    """A metric minus the reference's, as `measured`; the same images are drawn for both."""
    if evidence is None or reference is None:
        return None
    found = measure.total(evidence)
    if found.ndim:
        return paired_difference(found, measure.total(reference)) if len(found) else None

    def apart(which: Tensor) -> float:
        first, second = (measure.total(_of(each, which)) for each in (evidence, reference))
        return float(first - second)

    return _resampled(apart, _count(evidence))


def _count(evidence: Evidence) -> int:
    return len(tree_leaves(evidence)[0])


def _of(evidence: Evidence, which: Tensor) -> Evidence:
    """The evidence of some images, with repetition."""
    return tree_map(lambda leaf: leaf[which], evidence)


def _resampled(figure: Callable[[Tensor], float], count: int) -> Interval:
    """A figure of images (N,), with the interval of the same of images that are drawn among them."""
    generator = torch.Generator().manual_seed(0)
    value = figure(torch.arange(count))
    draws = (torch.randint(count, (count,), generator=generator) for _ in range(RESAMPLES_OF_TOTALS))
    low, high = np.percentile([figure(which) for which in draws], [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))


def _bootstrap(values: np.ndarray) -> Interval:
    mean = float(values.mean())
    if len(values) == 1 or not math.isfinite(mean):  # nothing to resample
        return Interval(value=mean, low=mean, high=mean)
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, DRAWN_AT_ONCE // len(values)),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value=mean, low=float(interval.low), high=float(interval.high))
