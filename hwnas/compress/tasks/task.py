"""What a task is: the losses that its networks are trained with, and the metric that they are judged by.

Blocks are distilled alike for every task. The training of whole networks depends on it, and what is said of
their quality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hwnas.compress.data import Data
from hwnas.measurement import STRICT, Interval

Compared = Callable[[Tensor, Tensor], Tensor]


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


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task. One's own is such an object in a module: `--task module:NAME`.

    Each function takes the output of a network (B, …) first.

    Attributes:
        loss: output, targets (B, …) → the loss of the batch; trains a reference, and joins in finetuning
            where there are targets.
        distill: output, the reference's output → the loss of the batch; finetunes, and needs no targets.
        score: output, targets → `metric` of each image, (B,), bool or float.
        agreement: output, the reference's output → `agreement_metric` of each image, (B,).
        output: what a network has to give, for messages.
        ranks: numbers of dimensions that an output may have, the batch among them.
        takes_classes: the targets are the classes of images; other targets are tensors (B, …).
        outputs: the size of dimension 1 of the output that the data ask for; None where they do not say.
        check: output for two images, data, the model's name → raises InputError for targets that do not fit.

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
    loss: Compared
    distill: Compared
    score: Compared
    agreement: Compared
    output: str
    ranks: tuple[int, ...]
    takes_classes: bool = False
    outputs: Callable[[Data], int | None] = lambda data: None
    check: Callable[[Tensor, Data, str], None] = lambda output, data, model: None


def quantity(interval: Interval | None, metric: Metric) -> str:
    """`97.2 % [95.0, 98.5]`, `0.123 [0.101, 0.150]`, or that it is not known."""
    if interval is None:
        return "not known (no labels)"
    if not metric.share:
        return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
    return f"{interval.value * 100:.1f} % [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def difference(interval: Interval | None, metric: Metric) -> str:
    """`-0.3 points [-1.1, +0.6]`, `+0.01 [-0.02, +0.03]`, or that it is not known."""
    if interval is None:
        return "not known (no labels)"
    if not metric.share:
        return f"{interval.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"
    return f"{interval.value * 100:+.1f} points [{interval.low * 100:+.1f}, {interval.high * 100:+.1f}]"
