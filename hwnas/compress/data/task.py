"""What a network is for: the losses that it is trained with, and the metric that it is judged by.

Blocks are distilled alike for every task. The training of whole networks depends on it, and what is said of
their quality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.compress.data import Data
from hwnas.errors import InputError
from hwnas.measurement import STRICT, Interval
from hwnas.networks.user_code import import_object
from hwnas.plugins import Registry

IGNORED = 255  # the class of pixels that no loss and no metric counts

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

    >>> from dataclasses import replace
    >>> from torch.nn import functional
    >>> from hwnas.compress.data.task import CLASSIFICATION
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


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, label_smoothing=0.1)


def _soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """With the teacher's probabilities; of pixels, the mean over them."""
    return functional.cross_entropy(logits, teacher.softmax(1))


def _same_class(logits: Tensor, other: Tensor) -> Tensor:
    return logits.argmax(1) == other.argmax(1)


CLASSIFICATION = Task(
    name="classification",
    metric=ACCURACY,
    agreement_metric=Metric(name="agreement", share=True, higher_is_better=True),
    loss=_cross_entropy,
    distill=_soft_cross_entropy,
    score=lambda logits, labels: logits.argmax(1) == labels,
    agreement=_same_class,
    output="logits (B, classes)",
    ranks=(2,),
    takes_classes=True,
    outputs=lambda data: len(data.class_names) or None,
)


def _as_targets(output: Tensor, targets: Tensor) -> Tensor:
    """Targets (B,) beside an output (B, 1) are (B, 1)."""
    return targets.to(output.dtype).reshape(output.shape)


def _absolute_error(output: Tensor, targets: Tensor) -> Tensor:
    return (output - _as_targets(output, targets)).abs().flatten(1).mean(1)


REGRESSION = Task(
    name="regression",
    metric=Metric(name="mean absolute error", share=False, higher_is_better=False),
    agreement_metric=Metric(
        name="mean absolute difference to the reference", share=False, higher_is_better=False
    ),
    loss=lambda output, targets: functional.mse_loss(output, _as_targets(output, targets)),
    distill=functional.mse_loss,
    score=_absolute_error,
    agreement=_absolute_error,
    output="values (B, D)",
    ranks=(2,),
    outputs=lambda data: (
        None
        if data.train.labels is None
        else data.train.labels.flatten(1).shape[1]
        if data.train.labels.ndim > 1
        else 1
    ),
)


def _at_size_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (B, K, h, w) at the size of masks (B, H, W)."""
    size = tuple(masks.shape[1:])
    if tuple(logits.shape[2:]) == size:
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def mean_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of each image, (B,): the mean over the classes that it or its mask holds.

    logits: (B, K, h, w); masks: (B, H, W), 255 where nothing is asked.
    """
    classes = logits.shape[1]
    counted = masks != IGNORED
    found = _at_size_of(logits, masks).argmax(1).where(counted, classes)
    wanted = masks.where(counted, classes)
    found, wanted = (functional.one_hot(x.long(), classes + 1)[..., :classes] for x in (found, wanted))
    both = (found * wanted).sum((1, 2)).double()
    either = (found + wanted).clamp_max(1).sum((1, 2)).double()
    present = either > 0
    ratios = torch.where(present, both / either.clamp_min(1), 0.0)
    return ratios.sum(1) / present.sum(1).clamp_min(1)


SEGMENTATION = Task(
    name="segmentation",
    metric=Metric(name="mean IoU", share=True, higher_is_better=True),
    agreement_metric=Metric(name="agreement of pixels", share=True, higher_is_better=True),
    loss=lambda logits, masks: functional.cross_entropy(
        _at_size_of(logits, masks), masks.long(), ignore_index=IGNORED
    ),
    distill=_soft_cross_entropy,
    score=mean_iou,
    agreement=lambda logits, other: _same_class(logits, other).double().flatten(1).mean(1),
    output="logits (B, classes, h, w)",
    ranks=(4,),
)

TASKS = Registry("hwnas.tasks", "task", "give one of them, or one's own: --task module:NAME (docs/tasks.md)")


def load_task(text: str) -> Task:
    """Return a task by its name, or one's own by `module:NAME`.

    Raises:
        InputError: there is none.
    """
    found = import_object(text) if ":" in text else TASKS.load(text)
    if not isinstance(found, Task):
        raise InputError(
            f"{text} is a {type(found).__name__}, not a task", "let the name be a hwnas.Task (docs/tasks.md)"
        )
    return found


def data_for(task: Task, data: Data) -> Data:
    """The data without their labels where those are classes and the task takes none."""
    if task.takes_classes or not data.class_names:
        return data
    train, val, test = (replace(part, labels=None) for part in (data.train, data.val, data.test))
    return replace(data, train=train, val=val, test=test, class_names=(), imagenet=())


def check_output(task: Task, output: object, data: Data, model: str) -> None:
    """Make sure that a network gives what a task and its data ask for. output: for two images.

    Raises:
        InputError: it does not.
    """
    if not isinstance(output, Tensor) or output.ndim not in task.ranks:
        what = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"{model} does not give {task.output}, it gives {what}",
            f"wrap it in a function that returns {task.output}, or name its task: --task",
        )
    wanted = task.outputs(data)
    if wanted is not None and output.shape[1] != wanted:
        if task.takes_classes:
            raise InputError(
                f"{model} tells {output.shape[1]} classes apart, {data.name} has {wanted}",
                "give weights that were trained on these classes, or --weights none to train it",
            )
        raise InputError(
            f"{model} gives {output.shape[1]} values an image, {data.name} has {wanted} targets",
            "let the network give as many values as the data have targets",
        )
    targets = data.train.labels
    if targets is None:
        return
    if task.takes_classes and not data.class_names:
        raise InputError(
            f"{data.name} has labels, but no names of classes",
            "let it say class_names, or name the task that its targets are for: --task",
        )
    if task is SEGMENTATION and targets.ndim == 3:
        _check_masks(output.shape[1], data, model)
    try:
        score, loss = task.score(output, targets[:2]), task.loss(output, targets[:2])
        fits = score.shape == (2,) and loss.ndim == 0
    except Exception:  # whatever a task's functions raise for targets of another kind
        fits = False
    if not fits:
        raise InputError(
            f"the targets of {data.name}, {targets.dtype} {tuple(targets.shape[1:])} an image, do not fit "
            f"{task.output} of {model}",
            "correct the targets, or name the task that they are for: --task",
        )


def _check_masks(classes: int, data: Data, model: str) -> None:
    """Make sure that masks hold classes of a network, at the images' proportions. Raises InputError."""
    height, width = data.image_shape[1:]
    known = f"0 … {classes - 1}, and {IGNORED} where nothing is asked"
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        masks = part.labels
        assert masks is not None
        rows, columns = masks.shape[1:]
        if abs(rows * width - columns * height) > max(height, width):  # a pixel more is rounding
            raise InputError(
                f"the masks of {name} are {columns} × {rows} pixels, the images {width} × {height}",
                "give masks that lie over their images: of the same size, or of the same proportions",
            )
        if masks.is_floating_point() or masks.dtype == torch.bool:
            raise InputError(
                f"the masks of {name} are {masks.dtype}, {SEGMENTATION.name} wants a class for each pixel",
                f"convert them to integers: {known}",
            )
        counted = masks[masks != IGNORED]
        low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
        if low < 0 or high >= classes:
            raise InputError(
                f"the masks of {name} hold the class {low if low < 0 else high}, {model} tells {classes} "
                f"apart: {known}",
                f"count classes from 0, mark what is not counted by {IGNORED}, or let the network tell more",
            )


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
