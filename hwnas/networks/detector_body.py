"""What torchvision's one-stage detectors compute between an image and its boxes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hwnas.errors import InputError


class DetectorBody(nn.Module):
    """Backbone and heads of a RetinaNet, SSD or SSDLite, under their names in it.

    It takes images that are scaled and normalised already, and gives maps of classes (B, A·C, h, w) and of
    boxes (B, A·4, h, w), level by level, in the place of rows that are put together.
    """

    backbone: nn.Module
    head: Any

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps of classes and those of boxes."""
        found = self.backbone(x)
        levels = list(found.values()) if isinstance(found, Mapping) else [found]
        classes, boxes = self.head.classification_head, self.head.regression_head
        if hasattr(classes, "module_list"):
            first, second = (
                [layer(level) for layer, level in zip(head.module_list, levels, strict=True)]
                for head in (classes, boxes)
            )
        else:
            first = [classes.cls_logits(classes.conv(level)) for level in levels]
            second = [boxes.bbox_reg(boxes.conv(level)) for level in levels]
        return first, second


def without_boxes(module: nn.Module) -> nn.Module:
    """The body of a torchvision detector, with its normalisation; any other module as it is.

    Raises:
        InputError: a detector of torchvision that has no such body.
    """
    if "torchvision.models.detection" not in sys.modules:
        return module
    from torchvision.models.detection import retinanet, ssd
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    transform = getattr(module, "transform", None)
    if not isinstance(transform, GeneralizedRCNNTransform):
        return module
    if not isinstance(module, retinanet.RetinaNet | ssd.SSD):
        raise InputError(
            f"{type(module).__name__} gives boxes that it has chosen, and cannot be cut before that",
            "give a RetinaNet, SSD or SSDLite, or a function that returns the backbone and heads alone",
        )
    body = DetectorBody(module)
    body.train(module.training)
    body.pretrained_cfg = {  # type: ignore[assignment]
        "mean": tuple(transform.image_mean),
        "std": tuple(transform.image_std),
    }
    given = getattr(module, "input_shape", None)
    size = given[1:] if given else transform.fixed_size
    if size is not None:
        body.input_shape = (len(transform.image_mean), *size)  # type: ignore[assignment]
    return body
