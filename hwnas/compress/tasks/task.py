"""What a task is: the losses that its networks are trained with, and the metrics that they are judged by.

Blocks are distilled alike for every task. The training of whole networks depends on it, and what is said of
their quality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hwnas.compress.data import Data
from hwnas.compress.data.dataset import Given
from hwnas.compress.data.images import CROP, CUT, Fit
from hwnas.measurement import STRICT, Interval

Tree = Any
"""What a network gives: a tensor, or a tuple, list or dictionary of them, nested."""

Evidence = Any
"""What tells how good the answers for N images are: a tensor (N, …), or a tree of them."""

Compared = Callable[[Tree, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a figure of quality is called and how it is read.

    Attributes:
        name: `accuracy`, `mean IoU`, `mean absolute error`.
        share: it is a share of 1, told in per cent.
        higher_is_better: or lower.

    >>> import hwnas
    >>> hwnas.Metric(name="top-5 accuracy", share=True, higher_is_better=True).name
    'top-5 accuracy'
    """

    __pydantic_config__ = STRICT
    name: str
    share: bool
    higher_is_better: bool


ACCURACY = Metric(name="accuracy", share=True, higher_is_better=True)


KEPT = Metric(name="share of the reference's quality", share=True, higher_is_better=True)


def each_image(evidence: Tensor) -> Tensor:
    """Return evidence that is the figure of each image already."""
    return evidence


def joined(evidence: Sequence[Evidence]) -> Evidence:
    """The evidence of several batches as that of all their images, on the CPU."""
    return tree_map(lambda *leaves: torch.cat(leaves).cpu(), *evidence)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric, and how it follows from the evidence of some images.

    Attributes:
        total: evidence of N images → the figure of each, (N,), whose mean is told; or one figure of all of
            them, (), for a metric that is no mean over images; or none, (0,), where it does not apply.

    >>> import hwnas, torch
    >>> metric = hwnas.Metric(name="largest error", share=False, higher_is_better=False)
    >>> hwnas.Measure(metric=metric, total=lambda errors: errors.max()).total(torch.tensor([1.0, 3.0]))
    tensor(3.)
    """

    metric: Metric
    total: Callable[[Evidence], Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task. One's own is such an object in a module: `--task module:NAME`.

    Each function takes the output of a network first, as its `forward()` gives it: a tensor (B, …), or a tree
    of them.

    Attributes:
        loss: output, targets (B, …) → the loss of the batch; trains a reference, and joins in finetuning
            where there are targets. None: nothing is trained on targets.
        distill: output, the reference's output → the loss of the batch; finetunes, and needs no targets.
        score: output, targets → the evidence of each image: its figure (B,), bool or float, or whatever
            `total` makes one of.
        total: evidence of N images → `metric`, as `Measure.total`.
        further_metrics: further metrics of the same evidence, which are told beside the first one.
        agreement: output, the reference's output → `agreement_metric` of each image, (B,).
        output: what a network has to give, for messages.
        ranks: numbers of dimensions that an output may have, the batch among them; empty for a tree.
        takes_classes: the targets are the classes of images; other targets are tensors (B, …).
        outputs: the size of dimension 1 of the output that the data ask for; None where they do not say.
        kept: evidence of a network and of its reference for the same N images → the share of the reference's
            quality that the network keeps, (): the accuracy predictor is fitted to it. None: to the metric.
        given: an image (C, H, W) in 0 … 1, and what is random → what the network is given: the image itself
            is then the target, wherever the data have no other.
        enlarges: how often the side of an image is that of what the network is given.
        plain_pixels: the network is given pixels in 0 … 1 as they are, unless its weights say otherwise.
        check: output for two images, data, the model's name → raises InputError for what does not fit.

    >>> from dataclasses import replace
    >>> from torch.nn import functional
    >>> from hwnas.compress.tasks.classification import CLASSIFICATION
    >>> strict = replace(CLASSIFICATION, name="strict", loss=functional.cross_entropy)
    >>> strict.metric.name
    'accuracy'
    """

    name: str
    metric: Metric
    agreement_metric: Metric
    loss: Compared | None
    distill: Compared
    score: Callable[[Tree, Any], Evidence]
    agreement: Compared
    output: str
    ranks: tuple[int, ...]
    total: Callable[[Evidence], Tensor] = each_image
    further_metrics: tuple[Measure, ...] = ()
    takes_classes: bool = False
    kept: Callable[[Evidence, Evidence], Tensor] | None = None
    given: Given | None = None
    enlarges: int = 1
    plain_pixels: bool = False
    outputs: Callable[[Data], int | None] = lambda data: None
    check: Callable[[Tree, Data, str], None] = lambda output, data, model: None

    def judged(self, has_targets: bool) -> Metric:
        """What the accuracy predictor is fitted to.

        >>> strict.judged(has_targets=True).name
        'accuracy'
        """
        if not has_targets:
            return self.agreement_metric
        return self.metric if self.kept is None else KEPT

    @property
    def fit(self) -> Fit:
        """How image files become squares: where the image is the target, nothing is scaled.

        >>> strict.fit.kind
        'cut'
        """
        return CUT if self.given is None else CROP

    @property
    def measure(self) -> Measure:
        """The first metric.

        >>> strict.measure.metric == strict.metric
        True
        """
        return Measure(metric=self.metric, total=self.total)


def quantity(interval: Interval | None, metric: Metric) -> str:
    """`97.2 % [95.0, 98.5]`, `0.123 [0.101, 0.150]`, or that it is not known."""
    if interval is None:
        return "not known (no labels)"
    said = figure(interval.value, metric)
    if not metric.share:
        return f"{said} [{interval.low:.4g}, {interval.high:.4g}]"
    return f"{said} [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def figure(value: float, metric: Metric) -> str:
    """`97.2 %`, `0.123`."""
    return f"{value * 100:.1f} %" if metric.share else f"{value:.4g}"


def difference(interval: Interval | None, metric: Metric) -> str:
    """`-0.3 points [-1.1, +0.6]`, `+0.01 [-0.02, +0.03]`, or that it is not known."""
    if interval is None:
        return "not known (no labels)"
    if not metric.share:
        return f"{interval.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"
    return f"{interval.value * 100:+.1f} points [{interval.low * 100:+.1f}, {interval.high * 100:+.1f}]"
