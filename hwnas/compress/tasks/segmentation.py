"""Segmentation: logits of each pixel, and a mask of classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.compress.data import Data
from hwnas.compress.tasks.classification import same_class, soft_cross_entropy
from hwnas.compress.tasks.task import Measure, Metric, Task
from hwnas.errors import InputError

IGNORED = 255  # the class of pixels that no loss and no metric counts


def _at_size_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (B, K, h, w) at the size of masks (B, H, W)."""
    size = tuple(masks.shape[1:])
    if tuple(logits.shape[2:]) == size:
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def pixels_by_class(logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Pixels of each class in each image, (B, K): where network and mask agree, and where either says so.

    logits: (B, K, h, w); masks: (B, H, W), 255 where nothing is asked.
    """
    classes = logits.shape[1]
    counted = masks != IGNORED
    found = _at_size_of(logits, masks).argmax(1).where(counted, classes)
    wanted = masks.where(counted, classes)
    found, wanted = (functional.one_hot(x.long(), classes + 1)[..., :classes] for x in (found, wanted))
    both, either = (found * wanted).sum((1, 2)), (found + wanted).clamp_max(1).sum((1, 2))
    return {"both": both, "either": either, "wanted": wanted.sum((1, 2))}


def _mean_of_classes(both: Tensor, either: Tensor) -> Tensor:
    """Intersections over unions (…, K) → their mean over the classes that are there, (…)."""
    present = either > 0
    ratios = torch.where(present, both.double() / either.clamp_min(1), 0.0)
    return ratios.sum(-1) / present.sum(-1).clamp_min(1)


def iou_of_images(evidence: dict[str, Tensor]) -> Tensor:
    """Intersection over union of each image, (N,): the mean over the classes that it or its mask holds."""
    return _mean_of_classes(evidence["both"], evidence["either"])


def iou_of_data(evidence: dict[str, Tensor]) -> Tensor:
    """Intersection over union of all pixels of a class in all images, (): the mean over the classes."""
    return _mean_of_classes(evidence["both"].sum(0), evidence["either"].sum(0))


def _pixel_accuracy(evidence: dict[str, Tensor]) -> Tensor:
    return evidence["both"].sum() / evidence["wanted"].sum().clamp_min(1)


def _check_masks(logits: Tensor, data: Data, model: str) -> None:
    """Make sure that masks hold classes of a network, at the images' proportions. Raises InputError."""
    classes = logits.shape[1]
    height, width = data.image_shape[1:]
    known = f"0 … {classes - 1}, and {IGNORED} where nothing is asked"
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        masks = part.labels
        if masks is None or masks.ndim != 3:
            return
        rows, columns = masks.shape[1:]
        if abs(rows * width - columns * height) > max(height, width):  # a pixel more is rounding
            raise InputError(
                f"the masks of {name} are {columns} × {rows} pixels, the images {width} × {height}",
                "give masks that lie over their images: of the same size, or of the same proportions",
            )
        if masks.is_floating_point() or masks.dtype == torch.bool:
            raise InputError(
                f"the masks of {name} are {masks.dtype}, segmentation wants a class for each pixel",
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


SEGMENTATION = Task(
    name="segmentation",
    metric=Metric(name="mean IoU", share=True, higher_is_better=True),
    agreement_metric=Metric(name="agreement of pixels", share=True, higher_is_better=True),
    loss=lambda logits, masks: functional.cross_entropy(
        _at_size_of(logits, masks), masks.long(), ignore_index=IGNORED
    ),
    distill=soft_cross_entropy,
    score=pixels_by_class,
    total=iou_of_images,
    further_metrics=(
        Measure(
            metric=Metric(name="mean IoU of the data set", share=True, higher_is_better=True),
            total=iou_of_data,
        ),
        Measure(
            metric=Metric(name="pixel accuracy", share=True, higher_is_better=True), total=_pixel_accuracy
        ),
    ),
    agreement=lambda logits, other: same_class(logits, other).double().flatten(1).mean(1),
    output="logits (B, classes, h, w)",
    ranks=(4,),
    check=_check_masks,
)
