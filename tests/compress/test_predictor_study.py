"""The studies of predictor and filter: their figures are right, and they go on where they were."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny import make_data, tree
from torch import Tensor

from hwnas.compress.data import Images
from hwnas.compress.library.open_run import open_inputs, open_run
from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.search.block_costs import BlockCosts, PartCosts
from hwnas.compress.search.filter import ChoiceCost, filter_choices
from hwnas.compress.search.points import Point
from hwnas.compress.settings import LibrarySettings
from hwnas.networks.partition import partition
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.protocols import load_protocol
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.progress import Progress

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SETTINGS = LibrarySettings(
    model="tinynet:make",
    weights="none",
    data="digits",
    cuts=(),
    space="compression",
    per_block=4,
    loss="nsr",
    train_epochs=1,
    epochs=1,
    steps=2,
    batch_size=256,
    slice_size=4,
    seed=0,
    threads=1,
)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("predictor_tables")
    monkeypatch.setattr(module, "RESAMPLES", 20)
    return module


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("predictor_quality")


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("filter_front")


def made_up(tables: ModuleType, seed: int = 0, noise: float = 0.02, **changed: Any) -> Any:
    """Held-out networks whose predictions and second finetuning are off by some noise."""
    generator = np.random.default_rng(seed)
    actual = generator.uniform(0.4, 0.7, 16)
    errors = {"DNA score": 1 - actual + generator.normal(0, 0.1, 16), "MACs": -generator.uniform(1, 8, 16)}
    values = {
        "seed": seed,
        "accuracies": actual,
        "again": actual + generator.normal(0, 0.01, 16),
        "predicted": actual + generator.normal(0.01, noise, 16),
        "extrapolated": 2,
        "errors": errors,
        "fitted_accuracies": np.array([0.4, 0.5, 0.6]),
        "fitted_errors": {"DNA score": np.array([0.6, 0.5, 0.4]), "MACs": np.array([-1.0, -2.0, -4.0])},
    }
    return tables.Found(**(values | changed))


def pairs_agree(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau by its definition, without ties."""
    signs = [np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    return float(np.mean(signs))


def cells(text: str) -> dict[str, list[str]]:
    """A table's rows by their first cell, the head among them."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_the_table_holds_tau_and_error_of_every_ranker(tables: ModuleType) -> None:
    found = [made_up(tables, 0), made_up(tables, 1)]
    rows = cells(tables.table(found))
    assert list(rows) == [
        "networks ranked by",
        "---",
        "accuracy predictor",
        "DNA score",
        "MACs",
        "ceiling: finetuned again",
    ]
    expected = {
        "accuracy predictor": [pairs_agree(f.predicted, f.accuracies) for f in found],
        "DNA score": [-pairs_agree(f.errors["DNA score"], f.accuracies) for f in found],
        "MACs": [-pairs_agree(f.errors["MACs"], f.accuracies) for f in found],
        "ceiling: finetuned again": [pairs_agree(f.again, f.accuracies) for f in found],
    }
    for name, taus in expected.items():
        assert [float(cell) for cell in rows[name][:2]] == pytest.approx(taus, abs=5e-4)
        mean, low, high = (float(word.strip("[],")) for word in rows[name][2].split())
        assert mean == pytest.approx(np.mean(taus), abs=1e-3)
        assert low <= mean + 0.1 and mean - 0.1 <= high
    squares = [np.mean((100 * (f.predicted - f.accuracies)) ** 2) for f in found]
    offsets = [np.mean(100 * (f.predicted - f.accuracies)) ** 2 for f in found]
    assert float(rows["accuracy predictor"][3]) == pytest.approx(np.mean(squares), abs=6e-3)
    assert float(rows["accuracy predictor"][4]) == pytest.approx(np.mean(offsets), abs=6e-3)


def test_an_error_becomes_an_accuracy_by_the_fitted_networks_alone(tables: ModuleType) -> None:
    found = made_up(tables)
    assert found.estimates()["DNA score"] == pytest.approx(1 - found.errors["DNA score"])
    upside_down = replace(found, fitted_accuracies=found.fitted_accuracies[::-1])
    assert tables.tau(upside_down.orders()["DNA score"], found.accuracies) == pytest.approx(
        tables.tau(found.orders()["DNA score"], found.accuracies)
    )


def test_the_ceiling_is_the_tau_between_two_columns(tables: ModuleType) -> None:
    ranks = np.arange(16) / 20
    assert tables.ceiling(made_up(tables, accuracies=ranks, again=ranks**2)) == pytest.approx(1)
    assert tables.ceiling(made_up(tables, accuracies=ranks, again=-ranks)) == pytest.approx(-1)
    swapped = ranks.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert tables.ceiling(made_up(tables, accuracies=ranks, again=swapped)) == pytest.approx(1 - 2 / 120)
    assert tables.ceiling(made_up(tables, accuracies=ranks, again=np.ones(16))) == 0


@pytest.mark.parametrize(
    ("predicted", "again", "met"),
    [
        ("right", "right", (True, True, True, True)),
        ("noisy", "noisy", (False, True, True, True)),
        ("noisy", "right", (False, False, True, False)),
        ("wrong", "right", (False, False, False, False)),
        ("wrong", "wrong", (False, False, False, False)),
    ],
)
def test_the_goals_are_judged_by_the_figures(
    tables: ModuleType, predicted: str, again: str, met: tuple[bool, ...]
) -> None:
    actual = np.arange(16) / 32
    noisy = actual.copy()
    noisy[[0, 8]] = noisy[[8, 0]]
    kinds = {"right": actual, "noisy": noisy, "wrong": -actual}
    found = made_up(tables, accuracies=actual, predicted=kinds[predicted], again=kinds[again])
    text = tables.verdict([found])
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert [": met" in line for line in lines] == list(met)
    assert ["**missed**" in line for line in lines] == [not good for good in met]
    assert "marked as extrapolating: 2 of 16" in text


def blocks_of(threshold: float) -> BlockCosts:
    """Two parts: in each, choice 3 costs more than choice 1 and is no better; choice 2 is on the front."""
    rows = [(0.0, 1.0), (0.4, 0.5), (0.6, 0.2), (0.5, 0.7)]
    choices = [
        ChoiceCost(choice=n, name=str(n), loss=loss, cost=cost, cost_ratio=cost)
        for n, (loss, cost) in enumerate(rows)
    ]
    parts = tuple(
        PartCosts(part=part, name=str(part), choices=tuple(filter_choices(choices, threshold)))
        for part in range(2)
    )
    return BlockCosts(
        cost="latency", protocol=None, reference_latency_ms=1.0, threshold=threshold, parts=parts
    )


def test_what_the_filter_removes_is_counted(front: ModuleType) -> None:
    assert front.removed(blocks_of(0.1)) == (2, 6)
    assert front.removed(blocks_of(0.3)) == (0, 6)
    points = [Point(choices=choices, loss=1.0, costs=(1.0,)) for choices in [(0, 0), (3, 0), (1, 2), (2, 3)]]
    assert [p.choices for p in front.surviving(points, blocks_of(0.1).choices)] == [(0, 0), (1, 2)]
    assert front.surviving(points, blocks_of(front.NO_FILTER).choices) == points


def test_only_what_is_on_the_front_counts_for_the_hypervolume(front: ModuleType) -> None:
    blocks = blocks_of(0.1)
    assert front.share_by_blocks(blocks) == pytest.approx(1)
    without = [
        replace(part, choices=tuple(replace(c, kept=c.choice != 2) for c in part.choices))
        for part in blocks.parts
    ]
    assert 0 < front.share_by_blocks(replace(blocks, parts=tuple(without))) < 0.9
    points = [
        Point(choices=(n,), loss=loss, costs=(cost,)) for n, (loss, cost) in enumerate([(0, 1), (1, 0)])
    ]
    inner = Point(choices=(2,), loss=0.5, costs=(0.5,))
    refused = Point(choices=(3,), loss=0.0, costs=None, reason="refused")
    # Up to the corner (1.05, 1.05): two strips of 0.05 by 1.05, and what the inner point adds to them.
    strips = 2 * 0.05 * 1.05 - 0.05**2
    assert front.share([*points, refused], [*points, inner]) == pytest.approx(strips / (strips + 0.5**2))
    assert front.share([*points, inner], [*points, inner]) == 1


@pytest.mark.parametrize(("kept", "word"), [(0.9991, "is met"), (0.9989, "is **missed**")])
def test_the_filters_goal_is_judged_by_the_figures(front: ModuleType, kept: float, word: str) -> None:
    text = front.verdict(0.1, 0.25, kept)
    assert word in text and "removes 25.0% of the candidates" in text


def pictures(images: Images) -> set[tuple[bytes, int]]:
    """Images with their labels, in no order."""
    assert images.labels is not None
    pairs: Iterable[tuple[Tensor, Tensor]] = zip(images.pixels, images.labels, strict=True)
    return {(pixels.numpy().tobytes(), int(label)) for pixels, label in pairs}


def test_each_seed_has_training_images_of_its_own(
    monkeypatch: pytest.MonkeyPatch, quality: ModuleType
) -> None:
    subset = importlib.import_module("cifar_subset")
    data = make_data(train=60)
    monkeypatch.setattr(subset, "load_data", lambda name: {"cifar10": data}[name])
    monkeypatch.setattr(subset, "IMAGES", 40)
    monkeypatch.setenv("HWNAS_DATA_DIR", "nowhere")
    found = [subset.subset_0(), subset.subset_1(), subset.subset_2()]
    assert len({part.hash for part in found}) == 3
    assert subset.subset_1().hash == found[1].hash
    known = pictures(data.train)
    for part in found:
        assert part.val is data.val and part.test is data.test
        assert len(pictures(part.train)) == 40 and pictures(part.train) <= known
    assert subset.settings_of(2).data == "cifar_subset:subset_2"


def test_the_reference_keeps_its_map(quality: ModuleType) -> None:
    subset = importlib.import_module("cifar_subset")
    parts = partition(subset.mobilenet(), (3, 32, 32), subset.settings_of(0).blocks)
    assert [shape[-1] for shape in parts.shapes[:-1]] == [32, 32, 16, 8, 4, 4, 2]
    assert parts.shapes[-1] == (10,)


@pytest.mark.slow
def test_a_study_holds_networks_out_and_goes_on_where_it_was(
    tables: ModuleType,
    quality: ModuleType,
    front: ModuleType,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, out = quality.Plan(networks=5, held_out=4, epochs=1), workplace / "run"
    told: list[str] = []
    listener = Progress()
    monkeypatch.setattr(listener, "say", told.append)
    found = quality.study(SETTINGS, plan, out, listener)
    assert [text for text in told if "13 trainings of 1 epochs are missing" in text]
    folders = (out, out / "held-out", out / "held-out-again")
    fitted, held, again = ({p.name for p in (f / "architectures").glob("*-e1.safetensors")} for f in folders)
    assert (len(fitted), len(held)) == (5, 4)
    assert held == again
    assert not fitted & held
    for name in held:
        first, second = (
            (f / "architectures" / name).read_bytes() for f in (out / "held-out", out / "held-out-again")
        )
        assert first != second
    assert len(found.accuracies) == len(found.predicted) == len(found.errors["MACs"]) == 4
    assert cells(tables.table([found]))["sum of NSR"]
    assert "the goal, one of the first two and the third" in tables.verdict([found])

    before = {name: file for name, file in tree(out).items() if "architectures/" in name}
    lost = out / "held-out" / "architectures" / sorted(held)[0]
    whole = lost.read_bytes()
    lost.unlink()
    again_found = quality.study(SETTINGS, plan, out, Progress())
    assert lost.read_bytes() == whole
    after = tree(out)
    untouched = [name for name in before if lost.stem not in name and not name.endswith("predictor.json")]
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert again_found.accuracies == pytest.approx(found.accuracies)
    assert again_found.predicted == pytest.approx(found.predicted)

    more = quality.study(SETTINGS, replace(plan, networks=6), out, Progress())
    assert len(more.fitted_accuracies) == 6
    check_filter(front, out, workplace)


def check_filter(front: ModuleType, out: Path, folder: Path) -> None:
    """The filter's table of the same library, on a device that never errs."""
    with open_run(open_inputs(SETTINGS, Progress()), [], out, Progress()) as opened:
        stitcher = Stitcher(opened.reference.parts, opened.library)
        with (
            MeasurementStore(folder / "measured.db") as store,
            Session(
                open_device(load_profile("steady.toml")),
                load_protocol("quick"),
                store,
                anchor=stitcher.reference,
            ) as session,
        ):
            text = front.compare(front.Bench(session, stitcher, 100), [0.0, 0.1, 5.0], 2)
    rows = cells(text)
    count = len(stitcher.entries)
    gone = [int(rows[threshold][0].split()[0]) for threshold in ("0", "0.1", "5")]
    assert count > gone[0] >= gone[1] >= gone[2] == 0
    assert rows["5"][1:3] == ["1.0000", "1.0000"]
    for threshold in ("0", "0.1", "5"):
        assert all(0 < float(cell) <= 1 for cell in rows[threshold][1:])
    assert "At the threshold 0.1 the filter removes" in text
