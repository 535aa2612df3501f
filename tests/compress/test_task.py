"""Tasks: their losses and metrics against independent computations, and whole runs that do not classify."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import pictures
from safetensors.torch import load_file
from shortest_run import LIBRARY, SEARCH
from sklearn.metrics import accuracy_score, jaccard_score
from tiny import make_data, run_hwnas, run_job
from torch import Tensor

import hwnas
from hwnas.compress.data import load_data
from hwnas.compress.emit.summary import CheckpointRecord
from hwnas.compress.tasks import TASKS, load_task
from hwnas.compress.tasks.checks import check_output
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.segmentation import IGNORED, SEGMENTATION, iou_of_images, pixels_by_class
from hwnas.compress.tasks.task import Measure, joined
from hwnas.compress.training.intervals import mean_score, measured, measured_difference
from hwnas.errors import InputError
from hwnas.progress import Progress


def loss_of(task: hwnas.Task, output: Tensor, targets: Tensor) -> Tensor:
    assert task.loss is not None
    return task.loss(output, targets)


def iou(logits: Tensor, masks: Tensor) -> Tensor:
    return iou_of_images(pixels_by_class(logits, masks))


def test_mean_iou_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 4, 6, 6, generator=generator)
    masks = torch.randint(0, 3, (20, 6, 6), generator=generator)
    masks[:, 0] = IGNORED
    masks[7] = 2
    logits[7, 2] += 10  # one class alone, and all right
    found = iou(logits, masks)
    for answer, mask, ratio in zip(logits.argmax(1), masks, found, strict=True):
        counted = mask != IGNORED
        expected = jaccard_score(mask[counted], answer[counted], average="macro")
        assert float(ratio) == pytest.approx(expected)
    assert found[7] == 1


def test_figures_of_a_data_set_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 5, 6, 6, generator=generator)
    logits[:, 3:] -= 100  # two classes that no network says; the last is in no mask either
    masks = torch.randint(0, 4, (20, 6, 6), generator=generator)
    masks[:, 0] = IGNORED
    counted = masks != IGNORED
    answers, wanted = logits.argmax(1)[counted], masks[counted]
    evidence = joined([SEGMENTATION.score(logits[part], masks[part]) for part in (slice(7), slice(7, 20))])
    iou, accuracy = (measured(evidence, measure) for measure in SEGMENTATION.further_metrics)
    assert iou is not None
    assert accuracy is not None
    assert iou.value == pytest.approx(jaccard_score(wanted, answers, average="macro"))
    assert accuracy.value == pytest.approx(accuracy_score(wanted, answers))
    assert iou.low < iou.value < iou.high


def test_a_total_has_the_interval_of_a_mean_where_it_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(400, 2, generator=generator)
    metric = hwnas.Metric(name="mean", share=False, higher_is_better=True)
    total = Measure(metric=metric, total=lambda evidence: evidence[:, 0].mean())
    mean = Measure(metric=metric, total=lambda evidence: evidence[:, 0])
    for found, expected in (
        (measured(scores, total), measured(scores, mean)),
        (measured_difference(scores, scores.flip(1), total), None),
        (measured_difference(scores, scores + 1, total), measured_difference(scores, scores + 1, mean)),
    ):
        assert found is not None
        if expected is not None:
            assert found.value == pytest.approx(expected.value, abs=1e-6)
            assert found.low == pytest.approx(expected.low, abs=0.02)
            assert found.high == pytest.approx(expected.high, abs=0.02)
    apart = measured_difference(scores, scores, total)
    assert apart is not None
    assert (apart.low, apart.value, apart.high) == (0, 0, 0)
    nowhere = Measure(metric=metric, total=lambda evidence: evidence[:0, 0])
    assert measured(scores, nowhere) is measured_difference(scores, scores, nowhere) is None


def test_tasks_with_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    known = TASKS.load
    made = {"scaled": lambda argument: replace(REGRESSION, name=f"scaled:{argument}"), "broken": int}
    monkeypatch.setattr(TASKS, "names", lambda: [*made, "regression"])
    monkeypatch.setattr(TASKS, "load", lambda name: made[name] if name in made else known(name))
    assert load_task("scaled:3").name == "scaled:3"
    assert load_task("scaled").name == "scaled:"
    with pytest.raises(InputError, match="the task regression takes no argument, '3' was given"):
        load_task("regression:3")
    with pytest.raises(InputError, match="broken:7 is a int, not a task"):
        load_task("broken:7")


def test_logits_of_another_size_are_compared_at_the_size_of_the_mask() -> None:
    logits = torch.randn(2, 3, 4, 4)
    masks = torch.randint(0, 3, (2, 8, 8))
    large = torch.nn.functional.interpolate(logits, scale_factor=2, mode="bilinear")
    assert torch.equal(iou(logits, masks), iou(large, masks))
    assert float(loss_of(SEGMENTATION, logits, masks)) == pytest.approx(
        float(torch.nn.functional.cross_entropy(large, masks)), rel=1e-5
    )


def test_regression_takes_one_value_an_image_with_or_without_a_dimension() -> None:
    output, targets = torch.randn(7, 1), torch.randn(7)
    assert torch.equal(REGRESSION.score(output, targets), (output[:, 0] - targets).abs())
    assert torch.equal(loss_of(REGRESSION, output, targets), loss_of(REGRESSION, output, targets[:, None]))
    assert float(REGRESSION.distill(output, output)) == 0


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION, REGRESSION], ids=lambda task: task.name)
def test_a_network_agrees_with_itself(task: Any) -> None:
    output = torch.randn((5, 3, 4, 4)[: task.ranks[0]])
    agreement = task.agreement(output, output).double()
    assert agreement.shape == (5,)
    assert bool((agreement == (1 if task.agreement_metric.higher_is_better else 0)).all())
    assert float(task.distill(output, output)) <= float(task.distill(output.flip(0), output))


def test_an_interval_of_figures_is_the_normal_one() -> None:
    scores = torch.randn(3000, generator=torch.Generator().manual_seed(0)) * 2 + 1
    interval = mean_score(scores)
    half = 1.96 * float(scores.std()) / np.sqrt(len(scores))
    assert interval.value == pytest.approx(float(scores.mean()), abs=1e-6)
    assert interval.low == pytest.approx(interval.value - half, abs=6e-3)
    assert interval.high == pytest.approx(interval.value + half, abs=6e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scores", [[2.5], [1.0, float("inf")], [3.0, 3.0]])
def test_an_interval_without_spread_is_the_mean(scores: list[float]) -> None:
    interval = mean_score(torch.tensor(scores))
    assert interval.low == interval.value == interval.high == torch.tensor(scores).mean()


@pytest.mark.filterwarnings("error")
def test_figures_that_are_none_have_no_interval() -> None:
    interval = mean_score(torch.tensor([float("nan"), 1.0]))
    assert np.isnan([interval.low, interval.value, interval.high]).all()


@pytest.mark.parametrize(
    ("task", "shape", "cause"),
    [
        (
            CLASSIFICATION,
            (2, 10, 4, 4),
            r"does not give logits \(B, classes\), it gives shape \(2, 10, 4, 4\)",
        ),
        (CLASSIFICATION, (2, 7), "tells 7 classes apart, noise has 10"),
        (SEGMENTATION, (2, 10), r"does not give logits \(B, classes, h, w\)"),
    ],
)
def test_outputs_that_do_not_fit_are_told(task: Any, shape: tuple[int, ...], cause: str) -> None:
    data = make_data()
    with pytest.raises(InputError, match=cause) as error:
        check_output(task, torch.zeros(shape), data, "net")
    assert error.value.fix


def test_masks_for_values_are_told(workplace: Path) -> None:
    data = load_data("inkmap:masks")
    with pytest.raises(InputError, match="1024 targets"):
        check_output(REGRESSION, torch.zeros(2, 5), data, "net")
    with pytest.raises(InputError, match="do not fit values"):
        flat = replace(data, train=replace(data.train, labels=torch.zeros(len(data.train), 5, 2)))
        check_output(replace(REGRESSION, outputs=lambda data: None), torch.zeros(2, 5), flat, "net")
    with pytest.raises(InputError, match="do not fit logits"):
        check_output(SEGMENTATION, torch.zeros(2, 5, 8, 8), load_data("inkmap:centres"), "net")


def test_tasks_are_found_by_name(workplace: Path) -> None:
    assert load_task("regression") is REGRESSION
    assert load_task("inkmap:OWN").name == "finding the ink"
    with pytest.raises(InputError, match="there is no task 'segmentatoin'") as error:
        load_task("segmentatoin")
    assert "did you mean segmentation" in error.value.fix
    with pytest.raises(InputError, match="inkmap:CLASSES is a int, not a task"):
        load_task("inkmap:CLASSES")
    with pytest.raises(InputError, match="cannot import inkmap:NONE"):
        load_task("inkmap:NONE")


def test_data_of_ones_own_are_checked(workplace: Path) -> None:
    data = load_data("inkmap:centres")
    assert data.name == "inkmap:centres"
    assert data.hash != load_data("inkmap:masks").hash
    assert load_data("inkmap:centres", 32).hash == data.hash
    with pytest.raises(InputError, match="makes images of 32 × 32 pixels"):
        load_data("inkmap:centres", 64)
    with pytest.raises(InputError, match=r"gave a int, not a hwnas\.Data"):
        load_data("inkmap:no_data")
    with pytest.raises(InputError, match="train has 1258 images and 1257 labels"):
        load_data("inkmap:unequal")
    with pytest.raises(InputError, match="failed: RuntimeError: never called"):
        load_data("inkmap:median_error")


def broken(**changed: Any) -> hwnas.Data:
    data = make_data()
    return replace(data, **{key: value(data) if callable(value) else value for key, value in changed.items()})


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"test": lambda data: replace(data.test, labels=None)}, "some parts have labels, test has none"),
        ({"class_names": ("0", "1")}, "from 0 to 1 as class_names say"),
        ({"class_names": ()}, "do not move with their image"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"val": lambda data: replace(data.val, pixels=data.val.pixels.float())}, "must be one uint8"),
        ({"val": lambda data: replace(data.val, pixels=data.val.pixels[:, :, :8])}, "another size"),
    ],
)
def test_what_is_wrong_with_data_of_ones_own_is_named(
    changed: dict[str, Any], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    from types import ModuleType

    module = ModuleType("brokendata")
    monkeypatch.setattr(module, "make", lambda: broken(**changed), raising=False)
    monkeypatch.setitem(sys.modules, "brokendata", module)
    with pytest.raises(InputError, match=cause) as error:
        load_data("brokendata:make")
    assert "docs/data.md" in error.value.fix


class Heard(Progress):
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)


def run(place: Path, out: str, said: list[str] | None = None, quality: Any = "loss", **changed: Any) -> Any:
    library = replace(
        LIBRARY,
        **({"train_epochs": 2, "steps": 8, "batch_size": 64, "per_block": 2, "image_size": 0} | changed),
    )
    search = replace(SEARCH, finetune_epochs=1, quality=quality)
    heard = Heard([] if said is None else said)
    return run_job(library, search, place / out, "hwnas compress …", heard, allow_code=True)


@pytest.mark.slow
def test_a_dense_prediction_goes_all_the_way_and_on_without_masks(workplace: Path) -> None:
    job: dict[str, Any] = {"model": "inkmap:mapper", "task": "segmentation"}
    result = run(workplace, "run", data="inkmap:masks", **(job | {"train_epochs": 6}))
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["metric"]["name"] == "mean IoU"
    assert result["reference"]["accuracy"]["value"] > 0.25  # without training it is 0.02
    module = hwnas.load(checkpoint["path"], allow_code=True)
    data = load_data("inkmap:masks")
    with torch.no_grad():
        output: Tensor = module(data.normalize(data.test.pixels))
    assert output.shape == (len(data.test), 11, 16, 16)
    scores = iou(output, data.test.labels)
    assert float(scores.mean()) == pytest.approx(checkpoint["accuracy"]["value"], abs=1e-4)
    card = (Path(checkpoint["path"]) / "README.md").read_text()
    assert "| mean IoU | " in card
    data_iou, accuracy = checkpoint["further_metrics"]
    assert (data_iou["metric"]["name"], accuracy["metric"]["name"]) == (
        "mean IoU of the data set",
        "pixel accuracy",
    )
    answers = torch.nn.functional.interpolate(output, size=(32, 32), mode="bilinear").argmax(1)
    right = float(torch.eq(answers, data.test.labels).float().mean())
    assert accuracy["value"]["value"] == pytest.approx(right, abs=1e-4)
    lost = accuracy["value"]["value"] - accuracy["reference"]["value"]
    assert accuracy["difference"]["value"] == pytest.approx(lost)
    assert "| pixel accuracy | " in card
    assert "- Pixel accuracy: difference " in card
    report = Path(result["report"]).read_text()
    assert "mean IoU of the data set" in report
    assert "- Mean IoU on the test part of `inkmap:masks`" in card
    assert "- Agreement of pixels: " in card
    assert "accura" not in card.replace("ixel accuracy", "")

    pictures(workplace / "photos", "2021", "2022", count=15)
    said: list[str] = []
    again: dict[str, Any] = {"model": "run/reference", "weights": "given", "task": "segmentation"}
    unlabelled = run(workplace, "other", said, data="folder:photos", image_size=32, batch_size=16, **again)
    (checkpoint,) = unlabelled["checkpoints"]
    assert "folder:photos has classes, which are no targets of segmentation: it serves without labels" in said
    assert checkpoint["accuracy"] is None
    assert 0 <= checkpoint["agreement"]["value"] <= 1
    assert load_file(workplace / "other/reference/model.safetensors").keys()
    assert "not known (no labels)" in (Path(checkpoint["path"]) / "README.md").read_text()


@pytest.mark.slow
def test_a_regression_goes_all_the_way(workplace: Path) -> None:
    job: dict[str, Any] = {"model": "inkmap:finder", "data": "inkmap:centres", "task": "regression"}
    with pytest.raises(InputError, match="the predictor expects a share of right answers") as error:
        run(workplace, "refused", quality="predictor", **job)
    assert "--quality loss" in error.value.fix
    with pytest.raises(InputError, match="is judged by share of misses"):
        run(workplace, "refused", quality="predictor", **job | {"task": "inkmap:MISSES"})
    assert not (workplace / "refused").exists()
    result = run(workplace, "run", model="inkmap:finder", data="inkmap:centres", task="inkmap:OWN")
    (checkpoint,) = result["checkpoints"]
    summary = CheckpointRecord.read(Path(checkpoint["path"])).summary
    assert summary.task == "finding the ink"
    assert summary.metric == REGRESSION.metric
    data = load_data("inkmap:centres")
    assert data.test.labels is not None
    known = (data.test.labels - data.test.labels.mean(0)).abs().mean()
    assert summary.accuracy_reference is not None
    assert summary.accuracy_reference.value < 5 * float(known)
    card = (Path(checkpoint["path"]) / "README.md").read_text()
    assert "| mean absolute error | " in card
    assert "- Mean absolute difference to the reference: " in card


@pytest.mark.slow
def test_the_command_line_says_what_the_task_is_measured_by(workplace: Path) -> None:
    arguments = [
        "compress", "inkmap:finder", "--task=regression", "--data=inkmap:centres", "--device=steady.toml",
        "--preset=quick", "--weights=none", "--candidates=1", "--train-epochs=1", "--epochs=1", "--steps=2",
        "--population=4", "--generations=1", "--finetune-epochs=1", "--threads=1",
        "--batch-size=256", "--out=out",
    ]  # fmt: skip
    done = run_hwnas(workplace, *arguments)
    assert done.returncode == 0, done.stderr
    assert "reference: inkmap:finder, mean absolute error 0." in done.stderr
    assert "mean absolute error 0." in done.stdout
    assert ", mean absolute difference to the reference" in done.stdout
    done = run_hwnas(workplace, *arguments, "--task=classification", "--out=other")
    assert done.returncode == 2
    assert "inkmap:centres has labels, but no names of classes" in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr
