"""Detection with torchvision's one-stage detectors, whose own anchors, coding and losses are taken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.compress.tasks.detection import Maps, all_rows, best_boxes, detection, maps_of
from hwnas.compress.tasks.task import Task, Tree
from hwnas.errors import InputError

LEAST = 1e-6  # a probability, of which log-odds are told


def detection_of(detector: nn.Module, image_size: tuple[int, int]) -> Task:
    """Make the task of a torchvision RetinaNet, SSD or SSDLite, for `--task module:NAME`.

    Classes are counted as their outputs; SSD's first one, the background, is none of them.

    Args:
        detector: whose weights do not matter.
        image_size: height and width of what the network is given, in pixels.

    Raises:
        InputError: it is another network.

    >>> from torchvision.models.detection import ssdlite320_mobilenet_v3_large as ssdlite
    >>> from hwnas.compress.tasks.torchvision_detectors import detection_of
    >>> detector = ssdlite(weights=None, weights_backbone=None, num_classes=4)
    >>> detection_of(detector, (320, 320)).metric.name
    'mAP 50–95'
    """
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    if not isinstance(detector, RetinaNet | SSD):
        raise InputError(
            f"{type(detector).__name__} is no RetinaNet, SSD or SSDLite of torchvision",
            "say how its boxes are read: hwnas.compress.tasks.detection.detection(decode=…) (docs/tasks.md)",
        )
    height, width = image_size
    is_softmax = isinstance(detector, SSD)

    def places(levels: Tree, images: int) -> list[Tensor]:
        from torchvision.models.detection.image_list import ImageList

        blank = torch.empty(images, 3, height, width, device="meta")
        found: list[Tensor] = detector.anchor_generator(ImageList(blank, [image_size] * images), levels)
        return found

    def decode(output: Tree) -> Tensor:
        levels = maps_of(output)[0]
        logits, codes = all_rows(log_odds(output))
        anchors = places(levels, 1)[0]
        boxes = torch.stack([detector.box_coder.decode_single(each, anchors) for each in codes])
        return best_boxes(logits.sigmoid(), boxes, (float(width), float(height)))

    def loss(output: Tree, targets: Tensor) -> Tensor:
        from torchvision.ops import box_iou

        maps = maps_of(output)
        logits, codes = all_rows(maps)
        anchors, wanted, matched = places(maps[0], len(targets)), [], []
        for objects, of_image in zip(targets, anchors, strict=True):
            real = objects[objects[:, 4] >= 0]
            wanted.append({"boxes": real[:, :4], "labels": real[:, 4].long() + is_softmax})
            none = torch.full((len(of_image),), -1, device=real.device)
            matched.append(detector.proposal_matcher(box_iou(real[:, :4], of_image)) if len(real) else none)
        outputs = {"cls_logits": logits, "bbox_regression": codes}
        losses = (
            detector.compute_loss(wanted, outputs, anchors, matched)
            if is_softmax
            else detector.head.compute_loss(wanted, outputs, anchors, matched)
        )
        total: Tensor = losses["classification"] + losses["bbox_regression"]
        return total

    def log_odds(output: Tree) -> Maps:
        maps = maps_of(output)
        if not is_softmax:
            return maps
        logits, codes = all_rows(maps)
        return [logits.softmax(2)[..., 1:].logit(LEAST)], [codes]

    return detection(decode=decode, loss=loss, maps=log_odds)
