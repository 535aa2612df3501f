"""Several tasks on one network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shortest_run import LIBRARY, SEARCH
from tiny import make_data, run_job
from torch import Tensor

import hwnas
from hwnas.compress.data import Data, Images
from hwnas.compress.quality.finetuned import FinetunedNetworks
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.checks import check_output
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.detection import detection
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.segmentation import SEGMENTATION
from hwnas.compress.tasks.several import several
from hwnas.compress.tasks.task import joined
from hwnas.compress.training.intervals import measured, measured_difference
from hwnas.errors import InputError
from hwnas.progress import Progress
from hwnas.testing.parts import TaskContract

TASKS = {"road": SEGMENTATION, "kind": CLASSIFICATION, "depth": REGRESSION}


def outputs(seed: int, count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "road": torch.randn(count, 3, 8, 8, generator=generator),
        "kind": torch.randn(count, 5, generator=generator),
        "depth": torch.randn(count, 2, generator=generator),
    }


def targets(count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {
        "road": torch.randint(0, 3, (count, 8, 8), generator=generator),
        "kind": torch.randint(0, 5, (count,), generator=generator),
        "depth": torch.randn(count, 2, generator=generator),
    }


def loss_of(task: hwnas.Task, output: Any, wanted: Any) -> Tensor:
    assert task.loss is not None
    return task.loss(output, wanted)


def test_losses_are_added_with_their_weights() -> None:
    task = several(TASKS, weights={"road": 2.0, "depth": 0.0})
    output, reference = outputs(0), outputs(1)
    road, kind = (loss_of(TASKS[name], output[name], targets()[name]) for name in ("road", "kind"))
    assert torch.isclose(loss_of(task, output, targets()), 2 * road + kind)
    both = [TASKS[name].distill(output[name], reference[name]) for name in ("road", "kind")]
    assert torch.isclose(task.distill(output, reference), 2 * both[0] + both[1])
    ordered = tuple(output[name] for name in TASKS)
    assert torch.equal(loss_of(task, ordered, targets()), loss_of(task, output, targets()))
    more = output | {"features": torch.zeros(4, 7)}
    assert torch.equal(loss_of(task, more, targets()), loss_of(task, output, targets()))


def test_each_metric_is_that_of_its_task() -> None:
    task = several(TASKS)
    parts = [(outputs(seed), targets()) for seed in (0, 1)]
    evidence = joined([task.score(*part) for part in parts])
    names = []
    for measure in (task.measure, *task.further_metrics):
        name, _, own = measure.metric.name.partition(": ")
        names.append(measure.metric.name)
        of_task = TASKS[name]
        alone = joined([of_task.score(output[name], wanted[name]) for output, wanted in parts])
        single = next(m for m in (of_task.measure, *of_task.further_metrics) if m.metric.name == own)
        assert measured(evidence, measure) == measured(alone, single)
        apart = measured_difference(evidence, evidence, measure)
        assert apart is not None
        assert apart.low == apart.high == 0
    assert names == [
        "road: mean IoU",
        "road: mean IoU of the data set",
        "road: pixel accuracy",
        "kind: accuracy",
        "depth: mean absolute error",
    ]


@pytest.mark.parametrize("quality", ["mean", "worst"])
def test_the_quality_is_what_is_kept_of_the_reference(quality: Any) -> None:
    task = several(TASKS, quality=quality)
    assert task.kept is not None
    output, reference = (task.score(outputs(seed, 40), targets(40)) for seed in (0, 1))
    assert float(task.kept(output, output)) == 1
    shares = []
    for name, of_task in TASKS.items():
        value, before = (float(of_task.total(each[name]).double().mean()) for each in (output, reference))
        ratio = value / before if of_task.metric.higher_is_better else before / value
        shares.append(min(ratio, 1.0))
    expected = sum(shares) / 3 if quality == "mean" else min(shares)
    assert float(task.kept(output, reference)) == pytest.approx(expected)
    none = {**reference, "kind": torch.zeros(40, dtype=torch.bool)}  # a reference that is never right
    assert 0 < float(task.kept(output, none)) <= 1
    name = task.agreement_metric.name
    assert name == f"agreement ({'mean of' if quality == 'mean' else 'the worst of'} road, kind, depth)"
    assert torch.equal(task.agreement(outputs(0), outputs(0)), torch.ones(4, dtype=torch.float64))
    other = task.agreement(outputs(0), outputs(1))
    assert bool(((other >= 0) & (other < 1)).all())


class TestSeveral(TaskContract):
    task = several(TASKS)

    def make_batch(self) -> tuple[Any, Any]:
        return outputs(0), targets()


@pytest.mark.parametrize(
    ("tasks", "options", "cause"),
    [
        ({}, {}, "given no task"),
        ({"road": 3}, {}, "road is a int, not a task"),
        ({0: SEGMENTATION}, {}, "0 is no name of an output"),
        ({"the road": SEGMENTATION}, {}, "'the road' is no name of an output"),
        (
            {"road": SEGMENTATION},
            {"weights": {"raod": 1.0}},
            "weights are given for raod, the tasks are road",
        ),
        ({"road": SEGMENTATION}, {"weights": {"road": -1.0}}, "the weight of road is -1"),
        ({"road": SEGMENTATION}, {"weights": {"road": float("nan")}}, "the weight of road is nan"),
        ({"road": SEGMENTATION}, {"quality": "best"}, "quality is 'best'"),
        ({"clean": load_task("denoising:25")}, {}, "denoising:25 makes its own input"),
    ],
)
def test_nonsense_is_refused(tasks: Any, options: Any, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        several(tasks, **options)
    assert error.value.fix


def own_data(labels: bool = True) -> Data:
    data = make_data(train=4, val=4, test=4, labels=False)
    parts: dict[str, Any] = {
        name: Images(pixels=getattr(data, name).pixels, labels=targets() if labels else None)
        for name in ("train", "val", "test")
    }
    return replace(data, **parts, flip=False, shift_px=0)


def test_what_does_not_fit_is_told_by_the_tasks_name() -> None:
    task, output = several(TASKS), {name: each[:2] for name, each in outputs(0).items()}
    check_output(task, output, own_data(), "net")
    check_output(task, output, own_data(labels=False), "net")
    with pytest.raises(InputError, match="named road, kind, depth are wanted, there is a Tensor"):
        check_output(task, output["road"], own_data(), "net")
    with pytest.raises(InputError, match="wanted, there is 2 of them"):
        check_output(task, (output["road"], output["kind"]), own_data(), "net")
    with pytest.raises(InputError, match="wanted, there is a dictionary of road"):
        check_output(task, {"road": output["road"]}, own_data(), "net")
    with pytest.raises(InputError, match=r"net \(kind\) does not give logits"):
        check_output(task, output | {"kind": output["road"]}, own_data(), "net")
    data = own_data()
    wrong = replace(data.test, labels=targets() | {"road": torch.full((4, 8, 8), 3)})
    with pytest.raises(InputError, match=r"masks of test hold the class 3, net \(road\) tells 3 apart"):
        check_output(task, output, replace(data, test=wrong), "net")
    plain = replace(data.train, labels=torch.zeros(4))
    with pytest.raises(InputError, match="wanted, there is a Tensor"):
        check_output(task, output, replace(data, train=plain), "net")


def test_without_any_loss_there_is_none() -> None:
    assert several({"boxes": detection(decode=None)}).loss is None
    mixed = several({"boxes": detection(decode=None), "kind": CLASSIFICATION})
    output = {"boxes": ([torch.zeros(4, 6, 2)], [torch.zeros(4, 6, 4)]), "kind": outputs(0)["kind"]}
    wanted = {"boxes": torch.zeros(4, 1, 5), "kind": targets()["kind"]}
    assert torch.isclose(
        loss_of(mixed, output, wanted), loss_of(CLASSIFICATION, output["kind"], wanted["kind"])
    )


@pytest.mark.slow
def test_two_tasks_go_all_the_way(workplace: Path) -> None:
    library = replace(
        LIBRARY, model="twofold:make", task="twofold:TASK", data="twofold:digits", image_size=0,
        train_epochs=4, steps=20, epochs=2, batch_size=64, per_block=2, space="compression",
    )  # fmt: skip
    search = replace(SEARCH, quality="predictor", predictor_networks=5, predictor_epochs=1, finetune_epochs=1)
    result = run_job(library, search, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["metric"]["name"] == "digit: accuracy"
    (centre,) = checkpoint["further_metrics"]
    assert centre["metric"]["name"] == "centre: mean absolute error"
    assert result["reference"]["accuracy"]["value"] > 0.3
    card = (Path(checkpoint["path"]) / "README.md").read_text()
    assert "| digit: accuracy | " in card
    assert "| centre: mean absolute error | " in card
    assert "agreement (mean of digit, centre)" in card.casefold()
    tuned = FinetunedNetworks(workplace / "run" / "architectures").networks(1)
    assert len(tuned) >= 5
    for network in tuned:
        assert network.accuracy is not None
        assert 0 < network.accuracy.value <= 1
