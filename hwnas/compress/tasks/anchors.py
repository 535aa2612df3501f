"""Boxes of EfficientDet: maps of levels with nine anchors a place, read and trained.

Tan et al., EfficientDet (CVPR 2020); anchors and coding as in Lin et al., RetinaNet (ICCV 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

FIRST_LEVEL = 3  # of stride 2³
OCTAVES = 3
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
"""Width and height of an anchor, times its size."""

MATCHES = 0.5
"""IoU with an object from which an anchor answers for it."""

ALPHA, GAMMA = 0.25, 1.5  # of the focal loss
HUBER, BOX_WEIGHT = 0.1, 50.0


def anchors(maps: Sequence[Tensor], size: float) -> Tensor:
    """Boxes (N, 4) of left, top, right, bottom: of each level, row, column and anchor, in this order.

    Args:
        maps: of each level, (B, …, h, w), of stride 8, 16, ….
        size: of the smallest anchor of a level, in strides: 4, of the lite networks 3.
    """
    found = []
    for level, each in enumerate(maps):
        stride = 2 ** (FIRST_LEVEL + level)
        height, width = each.shape[-2:]
        rows, columns = (
            (torch.arange(count, device=each.device) + 0.5) * stride for count in (height, width)
        )
        sides = torch.tensor(
            [
                (size * stride * 2 ** (octave / OCTAVES) * a, size * stride * 2 ** (octave / OCTAVES) * b)
                for octave in range(OCTAVES)
                for a, b in ASPECTS
            ],
            device=each.device,
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack([x, y], -1)[:, :, None]
        found.append(torch.cat([centres - sides / 2, centres + sides / 2], -1).view(-1, 4))
    return torch.cat(found)


def decoded(codes: Tensor, places: Tensor) -> Tensor:
    """Boxes (…, 4) that codes (…, 4) of y, x, log height, log width mean at anchors (…, 4)."""
    sides = places[..., 2:] - places[..., :2]
    centres = (places[..., :2] + places[..., 2:]) / 2 + codes[..., [1, 0]] * sides
    half = codes[..., [3, 2]].exp() * sides / 2
    return torch.cat([centres - half, centres + half], -1)


def encoded(boxes: Tensor, places: Tensor) -> Tensor:
    """Codes (…, 4) of boxes at anchors: the inverse of `decoded`."""
    sides, of_boxes = places[..., 2:] - places[..., :2], boxes[..., 2:] - boxes[..., :2]
    apart = ((boxes[..., :2] + boxes[..., 2:]) - (places[..., :2] + places[..., 2:])) / 2 / sides
    return torch.cat([apart[..., [1, 0]], (of_boxes / sides).log()[..., [1, 0]]], -1)


def anchor_loss(logits: Tensor, codes: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """Focal loss of the classes and Huber loss of the boxes, over the anchors that answer for an object.

    An anchor answers for the object with which it has the highest IoU, where that is 0.5 or more; the best
    anchor of each object does in any case.

    Args:
        logits, codes: (B, N, C) and (B, N, 4).
        places: the anchors (N, 4).
        targets: (B, K, 5), class −1 where an image has fewer.
    """
    from torchvision.ops import box_iou, sigmoid_focal_loss

    wanted = torch.zeros_like(logits)
    answering, boxes = [], []
    for image, objects in enumerate(targets):
        real = objects[objects[:, 4] >= 0]
        if not len(real):
            continue
        overlap = box_iou(places, real[:, :4])
        best, which = overlap.max(1)
        forced = overlap.argmax(0)
        best[forced] = 1.0
        which[forced] = torch.arange(len(real), device=which.device)
        chosen = (best >= MATCHES).nonzero()[:, 0]
        wanted[image, chosen, real[which[chosen], 4].long()] = 1.0
        answering.append(codes[image, chosen])
        boxes.append(encoded(real[which[chosen], :4], places[chosen]))
    count = max(1, sum(map(len, answering)))
    of_classes = sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA, reduction="sum")
    if not answering:
        nothing: Tensor = of_classes / count + codes.sum() * 0
        return nothing
    of_boxes = functional.huber_loss(torch.cat(answering), torch.cat(boxes), reduction="sum", delta=HUBER)
    loss: Tensor = (of_classes + BOX_WEIGHT * of_boxes / 4) / count
    return loss
