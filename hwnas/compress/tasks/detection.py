"""Detection: maps of classes and boxes, judged by mean average precision.

A network gives the logits of classes and what is told of boxes, level by level: two lists of maps,
(B, A·C, h, w) and (B, A·4, h, w) for A boxes a place, or rows, (B, N, C) and (B, N, 4). Targets are boxes
(B, K, 5): left, top, right, bottom in pixels, and the class from 0; −1 where an image has fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.compress.data import Data
from hwnas.compress.tasks.anchors import anchor_loss, anchors, decoded
from hwnas.compress.tasks.average_precision import FILL, MOST_BOXES, average_precision, evaluator, matched
from hwnas.compress.tasks.task import Compared, Measure, Metric, Task, Tree
from hwnas.errors import InputError

SMALLEST_SCORE = 0.001
CANDIDATES = 5000
"""Boxes of an image, the likeliest, among which those that overlap are told apart."""

OVERLAP = 0.5  # of two boxes of a class, from which the less likely one is left out
ANCHOR_SIZES = {"efficientdet": 4.0, "efficientdet-lite": 3.0}
YOLO_BINS = 16  # of each side's distance

Maps = tuple[Sequence[Tensor], Sequence[Tensor]]
Decode = Callable[[Tree], Tensor]
"""Output → boxes (B, M, 6): left, top, right, bottom, score, class; class −1 where an image has fewer."""


def maps_of(output: Tree) -> Maps:
    """The maps of classes and those of boxes of an output: a pair of both, or a dictionary that holds both.

    Raises:
        InputError: it is something else.
    """
    if isinstance(output, dict):
        output = [output.get(key) for key in ("classes", "boxes")]
    if isinstance(output, tuple | list) and len(output) == 2:
        classes, boxes = ([each] if isinstance(each, Tensor) else each for each in output)
        if (
            isinstance(classes, tuple | list)
            and isinstance(boxes, tuple | list)
            and len(classes) == len(boxes)
            and all(isinstance(each, Tensor) and each.ndim in (3, 4) for each in (*classes, *boxes))
        ):
            return classes, boxes
    raise InputError(
        "the network gives no pair of maps: classes and boxes, a list of levels each",
        "wrap it so that it does, or name your own task, with `maps` and `decode`: --task module:NAME "
        "(docs/tasks.md)",
    )


def rows(classes: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """One level as rows (B, N, C) and (B, N, 4), by row, column and anchor."""
    if classes.ndim == 3:
        return classes, boxes
    count = boxes.shape[1] // 4
    wide = [(classes, classes.shape[1] // count), (boxes, 4)]
    first, second = (each.permute(0, 2, 3, 1).reshape(len(each), -1, width) for each, width in wide)
    return first, second


def all_rows(maps: Maps) -> tuple[Tensor, Tensor]:
    """All levels as rows."""
    levels = [rows(*level) for level in zip(*maps, strict=True)]
    return torch.cat([each for each, _ in levels], 1), torch.cat([each for _, each in levels], 1)


def best_boxes(scores: Tensor, boxes: Tensor, size: tuple[float, float]) -> Tensor:
    """The boxes that stay, (B, 100, 6) as `Decode` gives them: of overlapping ones of a class the likeliest.

    Args:
        scores: (B, N, C) in 0 … 1.
        boxes: (B, N, 4) of left, top, right, bottom in pixels.
        size: width and height of the image, beyond which no box goes.
    """
    from torchvision.ops import batched_nms

    kept = torch.full((len(scores), MOST_BOXES, 6), FILL, device=scores.device)
    classes = scores.shape[2]
    limits = torch.tensor([*size, *size], device=boxes.device)
    for image, (of_image, places) in enumerate(zip(scores.flatten(1), boxes, strict=True)):
        likeliest, number = of_image.topk(min(CANDIDATES, len(of_image)))
        is_likely = likeliest > SMALLEST_SCORE
        likeliest, number = likeliest[is_likely], number[is_likely]
        chosen = places[number // classes].clamp_min(0).minimum(limits)
        stay = batched_nms(chosen, likeliest, number % classes, OVERLAP)[:MOST_BOXES]
        found = [chosen[stay], likeliest[stay, None], (number[stay] % classes)[:, None]]
        kept[image, : len(stay)] = torch.cat(found, 1)
    return kept


def imitate(output: Maps, reference: Maps) -> Tensor:
    """Distil maps without labels or anchors, ().

    Cross-entropy of each class with the reference's probability, less the least that it can be, and smooth L1
    of the boxes, each place weighted by the reference's confidence there; over the sum of the confidences.
    """
    (logits, boxes), (of_teacher, wanted) = all_rows(output), all_rows(reference)
    probabilities = of_teacher.sigmoid()
    least = functional.binary_cross_entropy_with_logits(of_teacher, probabilities, reduction="sum")
    classes = functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="sum") - least
    confidence = probabilities.amax(2)
    apart = functional.smooth_l1_loss(boxes, wanted, reduction="none").sum(2)
    return (classes + (apart * confidence).sum()) / confidence.sum().clamp_min(1)


def likeness(output: Maps, reference: Maps) -> Tensor:
    """How far class maps agree, (B,): twice what both say over the sum of what each says (Dice)."""
    first, second = (all_rows(maps)[0].sigmoid().flatten(1) for maps in (output, reference))
    return 2 * first.minimum(second).sum(1) / (first.sum(1) + second.sum(1)).clamp_min(1e-12)


def detection(
    *, decode: Decode | None, loss: Compared | None = None, maps: Callable[[Tree], Maps] = maps_of
) -> Task:
    """Make a detection task for one's own network.

    Args:
        decode: reads boxes out of the output; None judges by the agreement with the reference alone.
        loss: output, boxes (B, K, 5) → the loss of the batch, by which a reference is trained; None leaves
            the targets out of training.
        maps: the logits of classes and what is told of boxes in an output, for distillation.

    >>> from hwnas.compress.tasks.detection import detection
    >>> detection(decode=None).metric.name
    'mAP 50–95'
    """

    def score(output: Tree, targets: Tensor) -> dict[str, Tensor]:
        assert decode is not None
        return matched(decode(output), targets)

    def check(output: Tree, data: Data, model: str) -> None:
        _check(output, data, model, maps, decode)

    return Task(
        name="detection",
        metric=Metric(name="mAP 50–95", share=True, higher_is_better=True),
        total=average_precision,
        further_metrics=(
            Measure(
                metric=Metric(name="mAP 50", share=True, higher_is_better=True),
                total=lambda evidence: average_precision(evidence, 1),
            ),
        ),
        agreement_metric=Metric(name="agreement of class maps", share=True, higher_is_better=True),
        loss=loss,
        distill=lambda output, reference: imitate(maps(output), maps(reference)),
        score=score,
        agreement=lambda output, reference: likeness(maps(output), maps(reference)),
        output="maps of classes and boxes",
        ranks=(),
        check=check,
    )


def _check(output: Tree, data: Data, model: str, maps: Callable[[Tree], Maps], decode: Decode | None) -> None:
    """Make sure that an output can be read and targets are boxes of its classes. Raises InputError."""
    logits, _ = all_rows(maps(output))
    if not data.has_targets:
        return
    if decode is None:
        raise InputError(
            f"{data.name} has boxes, but nothing says how they are read out of what {model} gives",
            f"name it: --task detection:KIND, {', '.join((*ANCHOR_SIZES, 'yolov8'))}; or one's own by "
            "hwnas.compress.tasks.detection.detection(decode=…) (docs/tasks.md)",
        )
    evaluator()
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        boxes = part.labels
        if not isinstance(boxes, Tensor) or boxes.ndim != 3 or boxes.shape[2] != 5:
            raise InputError(
                f"the targets of {name} are no boxes (N, K, 5)",
                "give left, top, right, bottom and class of each, −1 where an image has fewer; or a folder "
                "with images/ and instances.json",
            )
        real = boxes[boxes[..., 4] >= 0]
        if len(real) and int(real[:, 4].max()) >= logits.shape[2]:
            raise InputError(
                f"the boxes of {name} hold the class {int(real[:, 4].max())}, {model} tells "
                f"{logits.shape[2]} apart: 0 … {logits.shape[2] - 1}",
                "let the network tell as many classes as the data have, counted from 0",
            )
        if bool((real[:, 2:4] <= real[:, :2]).any()):
            raise InputError(
                f"boxes of {name} have no area",
                "give left, top, right and bottom, not the width and the height",
            )


def detection_by(argument: str) -> Task:
    """Make `detection:KIND` for networks whose boxes are read as those of `efficientdet` or `yolov8`.

    Without a kind, networks are compressed without labels.

    Raises:
        InputError: there is no such kind.
    """
    if not argument:
        return detection(decode=None)
    if argument in ANCHOR_SIZES:
        made = _anchored(ANCHOR_SIZES[argument])
    elif argument == "yolov8":
        made = detection(decode=lambda output: yolo_boxes(yolo_levels(output)), maps=yolo_maps)
    else:
        raise InputError(
            f"there is no kind {argument!r} of detection",
            f"known are {', '.join((*ANCHOR_SIZES, 'yolov8'))}; for others make a task of your own with "
            "hwnas.compress.tasks.detection.detection(decode=…) (docs/tasks.md)",
        )
    return replace(made, name=f"detection:{argument}")


def _anchored(size: float) -> Task:
    """EfficientDet's, its anchors of `size` strides."""

    def decode(output: Tree) -> Tensor:
        maps = maps_of(output)
        logits, codes = all_rows(maps)
        height, width = (side * 8.0 for side in maps[0][0].shape[-2:])
        return best_boxes(logits.sigmoid(), decoded(codes, anchors(maps[0], size)), (width, height))

    def loss(output: Tree, targets: Tensor) -> Tensor:
        maps = maps_of(output)
        return anchor_loss(*all_rows(maps), anchors(maps[0], size), targets)

    return detection(decode=decode, loss=loss)


def yolo_levels(output: Tree) -> Sequence[Tensor]:
    """The maps of the levels, (B, 64 + C, h, w), of a YOLOv8 network: what it gives in training.

    In eval mode they stand behind the boxes that it has read itself.

    Raises:
        InputError: it gives something else.
    """
    if isinstance(output, tuple | list) and len(output) == 2 and isinstance(output[1], tuple | list):
        output = output[1]
    if isinstance(output, tuple | list) and all(
        isinstance(each, Tensor) and each.ndim == 4 and each.shape[1] > 4 * YOLO_BINS for each in output
    ):
        return output
    raise InputError(
        "the network does not give the maps of YOLOv8: a list of (B, 64 + classes, h, w)",
        "wrap it so that it gives them, or name another kind of detection",
    )


def yolo_maps(output: Tree) -> Maps:
    """The logits of classes, and the logits of the distances' bins, whose mean is what boxes are made of."""
    levels = yolo_levels(output)
    distances = []
    for each in levels:
        bins = each[:, : 4 * YOLO_BINS].view(len(each), 4, YOLO_BINS, *each.shape[2:]).softmax(2)
        steps = torch.arange(YOLO_BINS, device=each.device, dtype=each.dtype).view(1, 1, -1, 1, 1)
        distances.append((bins * steps).sum(2))
    return [each[:, 4 * YOLO_BINS :] for each in levels], distances


def yolo_boxes(levels: Sequence[Tensor]) -> Tensor:
    """Boxes (B, 100, 6): each side's distance from the middle of its place, in strides of 8, 16, ….

    A distance is the mean of 16 bins (Li et al., Generalized Focal Loss, NeurIPS 2020).
    """
    classes, distances = yolo_maps(levels)
    corners = []
    for level, each in enumerate(distances):
        stride = 2.0 ** (3 + level)
        y, x = (
            (torch.arange(count, device=each.device) + 0.5).view(shape)
            for count, shape in ((each.shape[2], (-1, 1)), (each.shape[3], (1, -1)))
        )
        left, top, right, bottom = each.unbind(1)
        corners.append(torch.stack([x - left, y - top, x + right, y + bottom], 1) * stride)
    logits, boxes = all_rows((classes, corners))
    height, width = (side * 8.0 for side in levels[0].shape[-2:])
    return best_boxes(logits.sigmoid(), boxes, (width, height))
