"""torchvision's detectors: their body, and boxes and losses that are their own."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import squares
from shortest_run import LIBRARY, SEARCH
from tiny import run_job
from torchvision.models import detection as detectors

import hwnas
from hwnas.compress.tasks.detection import OVERLAP, SMALLEST_SCORE, all_rows
from hwnas.compress.tasks.torchvision_detectors import detection_of
from hwnas.errors import InputError
from hwnas.networks.checks import plain_module
from hwnas.progress import Progress

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

KINDS = {
    "ssdlite320_mobilenet_v3_large": 320,
    "ssd300_vgg16": 300,
    "retinanet_resnet50_fpn": 128,
    "retinanet_resnet50_fpn_v2": 128,
}


def detector(name: str, classes: int = 4) -> Any:
    """A detector that hears what hwnas gives it: images of one size, as they are, and all of its boxes."""
    torch.manual_seed(0)
    made: Any = getattr(detectors, name)(weights=None, weights_backbone=None, num_classes=classes).eval()
    size = KINDS[name]
    made.transform.image_mean, made.transform.image_std = [0.0] * 3, [1.0] * 3
    made.transform.fixed_size = (size, size)
    made.nms_thresh, made.score_thresh, made.detections_per_img = OVERLAP, SMALLEST_SCORE, 100
    made.topk_candidates = 10_000
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_boxes_are_those_of_the_whole_detector(name: str) -> None:
    whole, size = detector(name), KINDS[name]
    body, x = plain_module(deepcopy(whole), name), torch.rand(2, 3, size, size)
    task = detection_of(whole, (size, size))
    with torch.no_grad():
        classes, boxes = body(x)
        output = (
            [2 * torch.randn_like(each) for each in classes],
            [torch.randn_like(each) / 20 for each in boxes],
        )
        logits, codes = all_rows(output)
        whole.head.forward = lambda _: {"cls_logits": logits, "bbox_regression": codes}
        expected = whole(list(x))
    objects = torch.full((2, 100, 5), -1.0)
    for image, found in enumerate(expected):
        count = len(found["scores"])
        assert count > 20
        labels = found["labels"] - int(name.startswith("ssd"))  # its class 0 is the background
        objects[image, :count] = torch.cat([found["boxes"], labels[:, None]], 1)
    evidence = task.score(output, objects)
    for image, found in enumerate(expected):
        scores = evidence["scores"][image, : len(found["scores"])]
        torch.testing.assert_close(scores.float(), found["scores"], rtol=1e-3, atol=1e-6)
        is_box = evidence["classes"][image] >= 0
        assert is_box.sum() == len(found["scores"])
        assert evidence["right"][image][is_box].all()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_that_of_the_whole_detector(name: str) -> None:
    whole, size = detector(name), KINDS[name]
    body, x = plain_module(deepcopy(whole), name).train(), torch.rand(3, 3, size, size)
    shift = int(name.startswith("ssd"))
    objects = torch.full((3, 2, 5), -1.0)
    objects[0, 0], objects[0, 1] = torch.tensor([10.0, 20, 60, 90, 2]), torch.tensor([30.0, 5, 99, 60, 1])
    objects[2, 1] = torch.tensor([0.0, 0, size, size / 2, 0])
    targets = [
        {"boxes": each[each[:, 4] >= 0, :4], "labels": each[each[:, 4] >= 0, 4].long() + shift}
        for each in objects
    ]
    expected = sum(whole.train()(list(x), targets).values())
    task = detection_of(whole, (size, size))
    assert task.loss is not None
    torch.testing.assert_close(task.loss(body(x), objects), expected, rtol=1e-4, atol=1e-5)


def test_a_body_has_the_weights_of_its_detector_under_their_names() -> None:
    whole = detector("ssdlite320_mobilenet_v3_large")
    body = plain_module(whole, "detector")
    assert body.state_dict().keys() == whole.state_dict().keys()
    assert body.input_shape == (3, 320, 320)
    assert body.pretrained_cfg == {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def test_what_has_no_body_or_no_task_is_refused() -> None:
    whole = detectors.fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=3)
    with pytest.raises(InputError, match="FasterRCNN gives boxes that it has chosen"):
        plain_module(whole, "detector")
    with pytest.raises(InputError, match="FasterRCNN is no RetinaNet, SSD or SSDLite"):
        detection_of(whole, (320, 320))


MODULE = """
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from hwnas.compress.tasks.torchvision_detectors import detection_of

def detector():
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)

def small():
    made = detector()
    made.transform.fixed_size = (64, 64)
    return made

BOXES = detection_of(detector(), (64, 64))
"""


@pytest.mark.slow
def test_a_detector_of_torchvision_goes_all_the_way(workplace: Path) -> None:
    squares(workplace / "squares", 80)
    (workplace / "mine.py").write_text(MODULE)
    library = replace(
        LIBRARY, model="mine:small", task="mine:BOXES", data="folder:squares", image_size=0, train_epochs=2,
        per_block=1, space="compression",
    )  # fmt: skip
    result = run_job(library, SEARCH, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["metric"]["name"] == "mAP 50–95"
    assert 0 <= checkpoint["accuracy"]["value"] <= 1
    loaded = hwnas.load(checkpoint["path"], allow_code=True)
    classes, boxes = loaded(torch.rand(1, 3, 64, 64))
    assert [each.shape[1] for each in classes] == [18] * 6
    assert [each.shape[1] for each in boxes] == [24] * 6
