"""Intervals for accuracies and other scores on a held-out part."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import binomtest, bootstrap
from torch import Tensor

from hwnas.measurement import Interval

RESAMPLES, DRAWN_AT_ONCE = 10_000, 10**6


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
