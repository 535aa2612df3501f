"""Detection: average precision against other evaluators, maps against effdet's, and a whole run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import squares
from shortest_run import LIBRARY, SEARCH
from tiny import make_data, run_job
from torch import Tensor

import hwnas
from hwnas.compress.data import Images
from hwnas.compress.reference.prepare import open_data
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.anchors import anchor_loss, anchors, decoded, encoded
from hwnas.compress.tasks.average_precision import MOST_BOXES, Matched, average_precision, matched
from hwnas.compress.tasks.checks import check_output
from hwnas.compress.tasks.detection import (
    all_rows,
    best_boxes,
    detection,
    imitate,
    likeness,
    yolo_boxes,
    yolo_levels,
)
from hwnas.compress.tasks.task import Measure, joined
from hwnas.compress.training.intervals import measured
from hwnas.errors import InputError
from hwnas.progress import Progress
from hwnas.testing.parts import TaskContract

pytest.importorskip("pycocotools", reason="pycocotools is not installed")


def objects_and_boxes(seed: int, images: int, classes: int, boxes: int = 12) -> tuple[Tensor, Tensor]:
    """Objects (N, 6, 5), and boxes (N, M, 6) that are near some of them, wrong, or missing."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.full((images, 6, 5), -1.0)
    found = torch.full((images, boxes, 6), -1.0)
    for image in range(images):
        count = int(torch.randint(0, 7, (1,), generator=generator))
        corner = torch.rand(count, 2, generator=generator) * 60
        side = torch.rand(count, 2, generator=generator) * 30 + 4
        kinds = torch.randint(0, classes, (count, 1), generator=generator)
        targets[image, :count] = torch.cat([corner, corner + side, kinds], 1)
        said = int(torch.randint(0, boxes + 1, (1,), generator=generator))
        which = torch.randint(0, max(count, 1), (said,), generator=generator)
        near = targets[image, which, :4] if count else torch.rand(said, 4, generator=generator) * 50
        near = near + torch.randn(said, 4, generator=generator) * 2
        ordered = torch.cat([near[:, :2].minimum(near[:, 2:]), near[:, :2].maximum(near[:, 2:]) + 0.1], 1)
        right = targets[image, which, 4] if count else torch.zeros(said)
        other = torch.randint(0, classes, (said,), generator=generator).float()
        kind = torch.where(torch.rand(said, generator=generator) < 0.7, right, other)
        score = torch.rand(said, generator=generator).mul(20).round().div(20)  # some are equal
        found[image, :said] = torch.cat([ordered, score[:, None], kind[:, None]], 1)
    return found, targets


def by_library(found: Tensor, targets: Tensor, which: Tensor) -> tuple[float, float]:
    """mAP 50–95 and mAP 50 of some images, with repetition, by faster-coco-eval."""
    library = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    truth: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for image, source in enumerate(which.tolist()):
        for row in targets[source][targets[source, :, 4] >= 0].double().tolist():
            box = [row[0], row[1], row[2] - row[0], row[3] - row[1]]
            common = {"image_id": image, "category_id": int(row[4]), "bbox": box, "area": box[2] * box[3]}
            truth.append(common | {"id": len(truth) + 1, "iscrowd": 0})
        for row in found[source][found[source, :, 5] >= 0].double().tolist():
            box = [row[0], row[1], row[2] - row[0], row[3] - row[1]]
            said.append({"image_id": image, "category_id": int(row[5]), "bbox": box, "score": row[4]})
    classes = sorted({int(each) for each in targets[..., 4].flatten().tolist() if each >= 0})
    ground = library.COCO(
        {
            "images": [{"id": image, "width": 99, "height": 99} for image in range(len(which))],
            "annotations": truth,
            "categories": [{"id": each, "name": str(each)} for each in classes],
        }
    )
    evaluation = library.COCOeval_faster(ground, ground.loadRes(said), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize(("seed", "images", "classes"), [(0, 30, 1), (1, 40, 3), (2, 60, 8), (3, 5, 2)])
def test_average_precision_is_coco_evals(seed: int, images: int, classes: int) -> None:
    found, targets = objects_and_boxes(seed, images, classes)
    parts = [slice(0, 3), slice(3, images)]  # however the batches are
    evidence = joined([matched(found[part], targets[part]) for part in parts])
    whole = torch.arange(images)
    drawn = torch.randint(images, (images,), generator=torch.Generator().manual_seed(seed))
    for which in (whole, drawn):
        ours: Matched = {key: value[which] for key, value in evidence.items()}
        expected = by_library(found, targets, which)
        assert float(average_precision(ours)) == pytest.approx(expected[0], abs=1e-9)
        assert float(average_precision(ours, 1)) == pytest.approx(expected[1], abs=1e-9)


def test_average_precision_at_its_ends() -> None:
    _, targets = objects_and_boxes(0, 20, 3)
    right = torch.cat([targets[..., :4], torch.full((20, 6, 1), 0.5), targets[..., 4:]], 2)
    assert float(average_precision(matched(right, targets))) == 1
    none = torch.full((20, 1, 6), -1.0)
    assert float(average_precision(matched(none, targets))) == 0
    nothing = torch.full((20, 6, 5), -1.0)
    assert float(average_precision(matched(right, nothing))) == 0
    many = torch.cat([right[:, :1].expand(-1, MOST_BOXES, -1) * torch.tensor([1, 1, 1, 1, 1.8, 1]), right], 1)
    assert float(average_precision(matched(many, targets))) < 1


def test_the_interval_of_average_precision_draws_images() -> None:
    found, targets = objects_and_boxes(4, 60, 3)
    evidence = matched(found, targets)
    task = load_task("detection:efficientdet")
    first = measured(evidence, task.measure)
    half = {key: value[:30] for key, value in evidence.items()}
    fewer = measured(half, task.measure)
    assert first is not None
    assert fewer is not None
    assert first.low < first.value < first.high
    assert fewer.high - fewer.low > 1.1 * (first.high - first.low)
    names = [measure.metric.name for measure in (task.measure, *task.further_metrics)]
    assert names == ["mAP 50–95", "mAP 50"]


def levels(channels: int, seed: int = 0, side: int = 16, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, side >> n, side >> n, generator=generator) for n in range(count)]


def some_objects() -> Tensor:
    targets = torch.full((2, 4, 5), -1.0)
    targets[0, 0] = torch.tensor([10.0, 20, 60, 90, 2])
    targets[0, 1] = torch.tensor([70.0, 5, 100, 30, 0])
    targets[1, 2] = torch.tensor([0.0, 0, 5, 4, 1])  # smaller than every anchor
    return targets


@pytest.fixture
def effdet() -> Any:
    package = pytest.importorskip("effdet", reason="effdet is not installed")
    config = package.get_efficientdet_config("tf_efficientdet_lite0")
    config.update({"num_classes": 3, "image_size": (128, 128), "max_level": 5, "num_levels": 3})
    return package, config


def test_anchors_and_boxes_are_effdets(effdet: Any) -> None:
    package, config = effdet
    expected = package.anchors.Anchors.from_config(config).boxes
    maps = levels(27), levels(36, 1)
    places = anchors(maps[0], 3.0)
    assert torch.allclose(places, expected[:, [1, 0, 3, 2]], atol=1e-4)
    logits, codes = all_rows(maps)
    found = load_task("detection:efficientdet-lite")
    evidence = best_boxes(logits.sigmoid(), decoded(codes, places), (128.0, 128.0))
    for image in range(2):
        top, number = logits[image].flatten().topk(5000)
        classes = number % 3
        theirs = package.anchors.generate_detections(
            top[:, None], codes[image, number // 3], expected, number // 3, classes, torch.tensor(1.0),
            torch.tensor([128.0, 128.0]), max_det_per_image=MOST_BOXES,
        )  # fmt: skip
        assert torch.allclose(evidence[image, :, :5], theirs[:, :5], atol=1e-4)
        assert torch.equal(evidence[image, :, 5], theirs[:, 5] - 1)
    assert found.name == "detection:efficientdet-lite"


def test_the_loss_is_effdets(effdet: Any) -> None:
    package, config = effdet
    config.update({"legacy_focal": False})
    labeler = package.anchors.AnchorLabeler(package.anchors.Anchors.from_config(config), 3)
    maps, targets = (levels(27), levels(36, 1)), some_objects()
    boxes, classes = targets[..., [1, 0, 3, 2]], targets[..., 4] + 1
    classes[targets[..., 4] < 0] = -1
    wanted = labeler.batch_label_anchors(boxes, classes)
    whole, *_ = package.loss.DetectionLoss(config)(*maps, *wanted)
    # effdet divides by the anchors of all images and one more.
    answering = float(wanted[2].sum())
    own = anchor_loss(*all_rows(maps), anchors(maps[0], 3.0), targets)
    assert float(own) * answering == pytest.approx(float(whole) * (answering + 1), rel=1e-4)


def test_the_loss_without_objects_can_be_trained() -> None:
    maps = levels(27), levels(36, 1)
    for each in (*maps[0], *maps[1]):
        each.requires_grad_()
    places = anchors(maps[0], 3.0)
    loss = anchor_loss(*all_rows(maps), places, torch.full((2, 4, 5), -1.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in (*maps[0], *maps[1]))


@given(st.lists(st.floats(0, 90), min_size=4, max_size=4), st.integers(0, 2))
def test_codes_of_boxes_are_undone(numbers: list[float], level: int) -> None:
    left, top, width, height = numbers
    box = torch.tensor([left, top, left + width + 1, top + height + 1])
    places = anchors(levels(1), 4.0)[level::40]
    codes = encoded(box.expand(len(places), 4), places)
    assert torch.allclose(decoded(codes, places), box.expand(len(places), 4), atol=1e-3)


def test_boxes_of_yolov8_are_those_that_were_written_into_its_maps() -> None:
    maps = [torch.zeros(1, 64 + 3, 16 >> n, 16 >> n) for n in range(3)]
    for each in maps:
        each[:, 64:] = -20.0
    wanted = {(0, 3, 4): (2.0, 3.25, 4.5, 1.0, 2), (2, 1, 2): (1.0, 0.5, 1.0, 1.5, 0)}
    for (level, row, column), (*sides, kind) in wanted.items():
        for side, distance in enumerate(sides):
            low = int(distance)
            bins = torch.full((16,), -40.0)
            bins[low] = np.log(1 - (distance - low)) if distance - low < 1 else -40.0
            if distance > low:
                bins[low + 1] = np.log(distance - low)
            maps[level][0, side * 16 : side * 16 + 16, row, column] = bins
        maps[level][0, 64 + kind, row, column] = 3.0
    (found,) = yolo_boxes(yolo_levels((torch.zeros(1, 7, 336), maps)))
    real = found[found[:, 5] >= 0]
    expected = {
        (kind, (column + 0.5 - left) * 8 * 2**level, (row + 0.5 - top) * 8 * 2**level,
         (column + 0.5 + right) * 8 * 2**level, (row + 0.5 + bottom) * 8 * 2**level)
        for (level, row, column), (left, top, right, bottom, kind) in wanted.items()
    }  # fmt: skip
    assert {(int(row[5]), *(round(float(x), 2) for x in row[:4])) for row in real} == expected
    assert float(real[0, 4]) == pytest.approx(1 / (1 + np.exp(-3.0)))
    task = load_task("detection:yolov8")
    assert float(task.distill(maps, maps)) == pytest.approx(0, abs=1e-3)
    with pytest.raises(InputError, match="does not give the maps of YOLOv8"):
        task.distill(torch.zeros(2, 3), maps)


def test_imitation_is_least_for_the_same_maps() -> None:
    reference = levels(27), levels(36, 1)
    assert float(imitate(reference, reference)) == pytest.approx(0, abs=1e-4)
    assert torch.allclose(likeness(reference, reference), torch.ones(2))
    other = levels(27, 2), levels(36, 3)
    worse = float(imitate(other, reference))
    assert worse > 0.1
    assert bool((likeness(other, reference) < 0.95).all())
    half = [[(a + b) / 2 for a, b in zip(x, y, strict=True)] for x, y in zip(other, reference, strict=True)]
    assert float(imitate((half[0], half[1]), reference)) < worse
    named = {"classes": reference[0], "boxes": reference[1]}
    task = load_task("detection")
    assert torch.equal(task.distill(named, reference), imitate(reference, reference))


class TestDetection(TaskContract):
    task = load_task("detection:efficientdet-lite")

    def make_batch(self) -> tuple[Any, Tensor]:
        return (levels(27), levels(36, 1)), some_objects()


class TestYolo(TaskContract):
    task = load_task("detection:yolov8")

    def make_batch(self) -> tuple[Any, Tensor]:
        return levels(67), some_objects()


def boxed(**changed: Any) -> hwnas.Data:
    data = make_data(train=4, val=2, test=2, labels=False)
    parts: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        part = getattr(data, name)
        labels = torch.full((len(part), 3, 5), -1.0)
        labels[:, 0] = torch.tensor([1.0, 2, 9, 12, 2])
        parts[name] = Images(pixels=part.pixels, labels=labels)
    return replace(data, **parts, flip=False, shift_px=0, **changed)


def test_targets_and_outputs_that_do_not_fit_are_refused() -> None:
    task, output = load_task("detection:efficientdet-lite"), (levels(27), levels(36, 1))
    check_output(task, output, boxed(), "net")
    check_output(load_task("detection"), output, make_data(labels=False), "net")
    with pytest.raises(InputError, match="noise has boxes, but nothing says how they are read") as error:
        check_output(load_task("detection"), output, boxed(), "net")
    assert "detection:KIND" in error.value.fix
    with pytest.raises(InputError, match="hold the class 2, net tells 2 apart"):
        check_output(task, (levels(18), levels(36, 1)), boxed(), "net")
    with pytest.raises(InputError, match="gives no pair of maps"):
        check_output(task, torch.zeros(2, 27, 16, 16), boxed(), "net")
    with pytest.raises(InputError, match="gives no pair of maps"):
        check_output(task, (levels(27), levels(36)[:2]), boxed(), "net")
    masks = replace(boxed(), val=Images(pixels=boxed().val.pixels, labels=torch.zeros(2, 8, 8)))
    with pytest.raises(InputError, match="the targets of val are no boxes"):
        check_output(task, output, masks, "net")
    wide = boxed().test.labels.clone()
    wide[:, 0, 2:4] = 1.0
    flat = replace(boxed(), test=Images(pixels=boxed().test.pixels, labels=wide))
    with pytest.raises(InputError, match="boxes of test have no area"):
        check_output(task, output, flat, "net")
    with pytest.raises(InputError, match=r"there is no kind 'yolov9' of detection"):
        load_task("detection:yolov9")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match="pycocotools, which is not installed") as error:
        check_output(load_task("detection:efficientdet"), (levels(27), levels(36, 1)), boxed(), "net")
    assert "pip install 'hwnas[detection]'" in error.value.fix


@pytest.mark.slow
def test_a_detector_goes_all_the_way_with_boxes_and_without(workplace: Path) -> None:
    squares(workplace / "squares", 300)
    library = replace(
        LIBRARY, model="spotter:make", task="spotter:DETECTION", data="folder:squares", image_size=0,
        train_epochs=30, steps=60, epochs=10, batch_size=16, per_block=2, space="compression",
    )  # fmt: skip
    search = replace(SEARCH, finetune_epochs=3)
    result = run_job(library, search, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["metric"]["name"] == "mAP 50–95"
    assert result["reference"]["accuracy"]["value"] > 0.1
    (fifty,) = checkpoint["further_metrics"]
    assert fifty["value"]["value"] > checkpoint["accuracy"]["value"]
    module = hwnas.load(checkpoint["path"], allow_code=True)
    data = open_data(library, Progress())
    task = load_task("spotter:DETECTION")
    with torch.no_grad():
        evidence = joined([task.score(module(x), boxes) for x, boxes in data.batches(data.test, 32)])
    assert float(average_precision(evidence)) == pytest.approx(checkpoint["accuracy"]["value"], abs=1e-3)

    blind = replace(
        library, model="run/reference", weights="given", task="spotter:BLIND", data="folder:squares/images"
    )
    result = run_job(blind, search, workplace / "blind", "hwnas compress …", Progress(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["accuracy"] is None
    assert 0.3 < checkpoint["agreement"]["value"] <= 1


def test_a_detector_without_a_loss_is_not_trained(workplace: Path) -> None:
    squares(workplace / "squares", 20)
    library = replace(LIBRARY, model="spotter:make", data="folder:squares", image_size=0, task="mine:TASK")
    (workplace / "mine.py").write_text(
        "from dataclasses import replace\nimport spotter\nTASK = replace(spotter.DETECTION, loss=None)\n"
    )
    with pytest.raises(InputError, match="and detection has no loss to train it with"):
        run_job(library, SEARCH, workplace / "run", "hwnas compress …", Progress(), allow_code=True)


def test_a_measure_of_ones_own_stands_beside() -> None:
    found, targets = objects_and_boxes(0, 10, 2)
    metric = hwnas.Metric(name="mAP 75", share=True, higher_is_better=True)
    at_75 = Measure(
        metric=metric,
        total=lambda e: average_precision(e | {"right": e["right"][..., 5:]}, 1),
    )
    task = replace(detection(decode=lambda output: output), further_metrics=(at_75,))
    value = measured(task.score(found, targets), at_75)
    fifty = measured(task.score(found, targets), replace(at_75, total=lambda e: average_precision(e, 1)))
    assert value is not None
    assert fifty is not None
    assert 0 < value.value <= fifty.value
