"""`--max-drop`: the fastest network of a front that keeps its quality once it is finetuned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shortest_run import LIBRARY, SEARCH
from tiny import make_data, run_job

from hwnas.api import plan_compression
from hwnas.compress.emit import picking
from hwnas.compress.library.stitch import Choices
from hwnas.compress.options import CompressOptions
from hwnas.compress.search.pick import allowed_drop, by_first_cost, check_rule
from hwnas.compress.search.points import Point
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.training import loop
from hwnas.errors import InputError
from hwnas.measurement import Interval
from hwnas.progress import Progress


def exactly(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


class Front:
    """A front of networks whose quality after finetuning is known beforehand, and a run that finds it out."""

    def __init__(self, values: list[float], task: Any = CLASSIFICATION) -> None:
        self.points = [Point(choices=(n,), loss=1 / (n + 1), costs=(float(n),)) for n in range(len(values))]
        self.values, self.asked, self.said = values, list[Choices](), list[str]()
        progress = SimpleNamespace(say=self.said.append, advance=lambda *_: None)
        reference = SimpleNamespace(module=lambda: None, data=make_data(), task=task)
        run = SimpleNamespace(reference=reference, progress=progress)
        self.device: Any = SimpleNamespace(run=run, search=SEARCH)

    def finetune(self, _: Any, choices: Choices, *__: Any) -> tuple[None, Any]:
        self.asked.append(choices)
        return None, SimpleNamespace(accuracy=exactly(self.values[choices[0]]))

    def fastest(self, limit: float, reference: float) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(picking, "finetune", self.finetune)
            patch.setattr(picking, "quality_on_val", lambda *_: exactly(reference))
            (found,) = picking.fastest_within(self.device, self.points, limit)
        return found


@given(
    accuracies=st.lists(st.floats(0.1, 0.9), min_size=1, max_size=40),
    limit=st.floats(0.5, 60),
)
def test_it_is_the_fastest_of_all_that_lose_as_little(accuracies: list[float], limit: float) -> None:
    front = Front(sorted(accuracies))
    within = [n for n, value in enumerate(front.values) if 100 * (0.9 - value) <= limit]
    if within:
        assert front.fastest(limit, 0.9) == within[0]
    else:
        with pytest.raises(InputError, match=r"no network of the front loses .* points of accuracy at most"):
            front.fastest(limit, 0.9)
    assert len(front.asked) == len(set(front.asked)) <= math.floor(math.log2(len(accuracies))) + 1


def test_a_drop_is_in_the_metrics_own_unit_and_direction() -> None:
    decibels = Front([28.0, 28.9, 29.1], load_task("denoising:25"))
    assert decibels.fastest(0.15, 29.2) == 2
    assert "loses 0.10 of PSNR in dB on val, 0.15 are allowed" in decibels.said[-1]
    errors = Front([3.0, 2.0, 1.1, 1.0], load_task("regression"))
    assert errors.fastest(0.2, 1.0) == 2


def test_the_rule() -> None:
    assert allowed_drop("max-drop=1.5") == 1.5
    assert allowed_drop("knee") is allowed_drop("speedup=2") is None
    assert check_rule("max-drop=1", ("macs",)) is None
    for rule in ("max-drop", "max-drop=0", "max-drop=-1", "max-drop=nan", "max-drop=x"):
        with pytest.raises(InputError, match="unknown pick"):
            check_rule(rule, ("latency",))
    front = [Point(choices=(n,), loss=0.0, costs=costs) for n, costs in enumerate([(1.0, 3.0), (2.0, 1.0)])]
    assert [p.choices for p in by_first_cost(front, ("params", "latency"))] == [(1,), (0,)]
    assert [p.choices for p in by_first_cost(front, ("params", "macs"))] == [(0,), (1,)]


def test_data_without_targets_are_refused() -> None:
    search = replace(SEARCH, picks=("knee", "max-drop=1"))
    picking.require_targets(search, make_data())
    picking.require_targets(replace(SEARCH, picks=("knee",)), make_data(labels=False))
    with pytest.raises(InputError, match="and noise has no targets"):
        picking.require_targets(search, make_data(labels=False))


@pytest.mark.slow
def test_a_whole_run_picks_by_what_is_lost(workplace: Path) -> None:
    """All is allowed: the fastest of the front; next to nothing is: the pick is told, the other is there."""
    library = replace(LIBRARY, model="tinynet:make", data="digits")
    search = replace(SEARCH, picks=("max-drop=100", "max-drop=1e-9"))
    out = workplace / "run"
    result = run_job(library, search, out, "hwnas compress …", Progress(), allow_code=True)
    checkpoints = {each["pick"]: each for each in result["checkpoints"]}
    front = [row for row in result["front"]["front"] if row["latency_ms"] is not None]
    fastest = min(front, key=lambda row: row["latency_ms"])
    assert checkpoints["max-drop=100"]["choices"] == fastest["choices"]
    assert (out / "checkpoints" / "sim-npu-max-drop-100" / "model.onnx").is_file()


def test_the_nearest_to_the_reference_after_an_epoch_goes_on() -> None:
    """Where finetuning is no longer than the race, or there is one network, the search's order decides."""
    front = Front([0.0] * 4)
    distances = iter([0.4, 0.2, 0.3, 0.5] * 2)
    front.device.search = replace(SEARCH, finetune_epochs=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "finetune", lambda *_: (None, None))
        patch.setattr(loop, "distance_on_val", lambda *_: next(distances))
        assert picking.race(front.device, front.points, "speedup=2") == (1,)
        assert front.said[-1].startswith("race for speedup=2, loss on val after an epoch: 0 0.4, 1 0.2")
        assert picking.race(front.device, front.points[:1], "speedup=2") == (0,)
        front.device.search = replace(SEARCH, finetune_epochs=4)
        assert picking.race(front.device, front.points, "speedup=2") == (0,)
    assert next(distances) == 0.4


def test_what_diverges_loses_and_leaves_the_others() -> None:
    front = Front([0.5, 0.6, 0.8, 0.9])
    front.device.search = replace(SEARCH, finetune_epochs=5)

    def finetune(_: Any, choices: Choices, *__: Any) -> tuple[None, Any]:
        if choices in ((0,), (2,)):
            raise loop.DivergedError("the loss became nan in epoch 1", "another --seed")
        return front.finetune(_, choices)

    distances = iter([float("nan"), 0.3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "finetune", finetune)
        patch.setattr(picking, "quality_on_val", lambda *_: exactly(0.9))
        patch.setattr(loop, "distance_on_val", lambda *_: next(distances))
        assert picking.race(front.device, front.points, "speedup=2") == (3,)
        assert picking.fastest_within(front.device, front.points, 5.0) == (3,)


def test_labels_are_asked_for_before_anything_is_trained(workplace: Path) -> None:
    for number in range(20):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(workplace / f"photo-{number}.png")
    options = CompressOptions(data="folder:.", image_size=32, max_drop=(1.0,))
    with pytest.raises(InputError, match="has no targets"):
        plan_compression(options, "tinynet:make", ["sim-npu"], "runs/a", Progress(), dry_run=True)


@pytest.mark.slow
def test_a_whole_run_races(workplace: Path) -> None:
    """The networks that took part are kept with their one epoch; the same command asks nothing again."""
    library = replace(LIBRARY, model="narrowable:make", data="digits", space="cuts", layers=True, per_block=0)
    search = replace(SEARCH, picks=("speedup=1.05",), finetune_epochs=5)
    heard: list[str] = []

    class Hearing(Progress):
        def say(self, text: str) -> None:
            heard.append(text)

    first = run_job(library, search, workplace / "run", "hwnas compress …", Hearing(), allow_code=True)
    (told,) = (text for text in heard if text.startswith("race for speedup=1.05"))
    (checkpoint,) = first["checkpoints"]
    assert told.endswith("-".join(map(str, checkpoint["choices"])) + " goes on")
    racers = sorted((workplace / "run" / "architectures").glob("*-e1.json"))
    assert 2 <= len(racers) <= 4
    before = [path.stat().st_mtime_ns for path in racers]
    again = run_job(library, search, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    assert again["checkpoints"] == first["checkpoints"]
    assert before == [path.stat().st_mtime_ns for path in racers]
