"""Mean average precision of boxes, as COCO defines it, over any images.

pycocotools matches boxes and objects; which of a network's boxes were right is kept for each image, so that
the figure of other images, drawn for an interval, needs no matching.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwnas.errors import InputError
from hwnas.extras import install

MOST_BOXES = 100  # of an image
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
FILL = -1.0

Matched = dict[str, Tensor]
"""Of each image: `classes` and `scores` of its boxes (N, 100), whether they are `right` at each threshold
(N, 100, 10), and the classes of its `objects` (N, K). Classes are −1 where an image has fewer.
"""


def evaluator() -> Any:
    """Return pycocotools' modules. Raises InputError: it is not installed."""
    try:
        from pycocotools import coco, cocoeval
    except ImportError:
        raise InputError(
            "mean average precision is computed by pycocotools, which is not installed",
            install("detection"),
        ) from None
    return coco, cocoeval


def matched(found: Tensor, targets: Tensor) -> Matched:
    """Match boxes with objects, image by image, greedily by score (COCO's evaluateImg).

    Args:
        found: (B, M, 6) of left, top, right, bottom, score, class; class −1 where an image has fewer.
        targets: (B, K, 5) of left, top, right, bottom, class; as well.

    Raises:
        InputError: pycocotools is not installed.
    """
    coco, cocoeval = evaluator()
    order = (
        found[..., 4].masked_fill(found[..., 5] < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    )
    found = torch.take_along_dim(found, order[..., None], 1)[:, :MOST_BOXES].double().cpu()
    targets = targets.double().cpu()
    kinds = torch.full((len(found), MOST_BOXES), -1, dtype=torch.int32)
    scores = torch.zeros(len(found), MOST_BOXES, dtype=torch.float64)
    kinds[:, : found.shape[1]], scores[:, : found.shape[1]] = found[..., 5].int(), found[..., 4]
    right = torch.zeros(len(found), MOST_BOXES, len(THRESHOLDS), dtype=torch.bool)
    classes = sorted({int(each) for each in set(targets[..., 4].flatten().tolist()) if each >= 0})
    if classes:
        images = list(range(len(found)))
        with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
            evaluation = cocoeval.COCOeval(
                _dataset(coco, images, classes, targets[..., :4], targets[..., 4], None),
                _dataset(coco, images, classes, found[..., :4], found[..., 5], found[..., 4]),
                "bbox",
            )
            evaluation.params.iouThrs = THRESHOLDS
            evaluation.params.maxDets = [MOST_BOXES]
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.evaluate()
        for of_image in evaluation.evalImgs:
            if of_image is None or not of_image["dtIds"]:
                continue
            rows = (torch.tensor(of_image["dtIds"]) - 1) % MOST_BOXES
            right[of_image["image_id"], rows] = torch.from_numpy(np.asarray(of_image["dtMatches"]) > 0).T
    return {"classes": kinds, "scores": scores, "right": right, "objects": targets[..., 4].int()}


def _dataset(
    coco: Any, images: list[int], classes: list[int], boxes: Tensor, of_classes: Tensor, scores: Tensor | None
) -> Any:
    """COCO's form of boxes (B, M, 4); ids count images and rows from 1, since 0 means no match."""
    annotations = []
    stride = max(MOST_BOXES, boxes.shape[1])
    for image, row in (of_classes >= 0).nonzero().tolist():
        left, top, right, bottom = boxes[image, row].tolist()
        box = [left, top, right - left, bottom - top]
        annotation = {
            "id": image * stride + row + 1,
            "image_id": image,
            "category_id": int(of_classes[image, row]),
            "bbox": box,
            "area": max(box[2], 0.0) * max(box[3], 0.0),
            "iscrowd": 0,
        }
        annotations.append(
            annotation if scores is None else annotation | {"score": float(scores[image, row])}
        )
    dataset = coco.COCO()
    dataset.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": each} for each in classes],
        "annotations": annotations,
    }
    dataset.createIndex()
    return dataset


def average_precision(evidence: Matched, thresholds: int = len(THRESHOLDS)) -> Tensor:
    """The mean over classes that are in the images and over the first thresholds, (): COCO's AP.

    Precision is taken at 101 recalls, each the highest at that recall or beyond; 0 without any object.
    """
    classes, scores = (evidence[key].numpy().ravel() for key in ("classes", "scores"))
    right = evidence["right"].numpy().reshape(len(classes), -1)[:, :thresholds]
    order = np.lexsort((-scores, classes))
    classes, right = classes[order], right[order]
    kinds, counts = np.unique(evidence["objects"].numpy(), return_counts=True)
    found = [
        _of_class(right[np.searchsorted(classes, kind) : np.searchsorted(classes, kind, "right")], count)
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)
        if kind >= 0
    ]
    return torch.tensor(float(np.mean(found)) if found else 0.0, dtype=torch.float64)


def _of_class(right: np.ndarray, objects: int) -> float:
    """Mean over the thresholds of the precision at 101 recalls. right: (D, T) by falling score."""
    total = 0.0
    for column in right.T:
        places = column.nonzero()[0]  # between right boxes, precision only falls
        hits = np.arange(1, len(places) + 1)
        highest = np.maximum.accumulate((hits / (places + 1))[::-1])[::-1]
        first = np.searchsorted(hits / objects, RECALLS, side="left")
        total += float(highest[first[first < len(places)]].sum())
    return total / (len(RECALLS) * int(right.shape[1]))
