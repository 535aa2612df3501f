"""The benchmarks that compare hwnas with others: arithmetic, tables, and a tiny whole run of each."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hwnas.compress.data import Data
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.run.cost_log import Cost, Step
from hwnas.errors import InputError
from hwnas.files import read_json
from hwnas.measurement import Interval
from hwnas.networks.architecture import ReferenceSpec
from hwnas.networks.partition import Partition
from hwnas.progress import Progress

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Benchmark = Callable[[str], ModuleType]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Modules of benchmarks/ by name."""
    pytest.importorskip("torch_pruning")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def reference(parts: Partition, data: Data) -> Reference:
    """With scales of its own in each channel, as training would leave them."""
    for layer in (layer for part in parts.modules for layer in part.modules()):
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return Reference(spec=ReferenceSpec(source="function", name="tinynet:seeded"), parts=parts, data=data)


def test_the_lowest_ratio_within_a_limit_is_found(benchmark: Benchmark) -> None:
    asked: list[float] = []

    def cost(ratio: float) -> float:
        asked.append(ratio)
        return 1 - ratio**2

    found = benchmark("pruning_peer").least_within(cost, 0.5, 0.95, 10)
    assert found[0] == pytest.approx(0.5**0.5, abs=0.95 / 2**10)
    assert found[1] == cost(found[0]) <= 0.5
    assert len(asked) == 1 + 10 + 1


def test_no_ratio_is_found_where_none_reaches_the_limit(benchmark: Benchmark) -> None:
    assert benchmark("pruning_peer").least_within(lambda ratio: 1 - ratio, 0.04, 0.95, 5) is None


def test_a_bisection_that_one_figure_misled_is_done_again(benchmark: Benchmark) -> None:
    asked: list[float] = []

    def cost(ratio: float) -> float:
        asked.append(ratio)
        return 0.9 if len(asked) == 2 else 1 - ratio

    peer = benchmark("pruning_peer")
    assert peer.least_within(cost, 0.8, 0.95, 8)[0] > 0.47
    asked.clear()
    assert peer.closely_within(cost, 0.8, 0.95, 8)[0] == pytest.approx(0.2, abs=0.01)
    assert len(asked) == 2 * (1 + 8)
    assert peer.closely_within(lambda ratio: 1.0, 0.8, 0.95, 8) is None


@given(noise=st.lists(st.floats(-0.2, 0.2), min_size=9, max_size=9), limit=st.floats(0.1, 0.9))
def test_under_noise_what_is_found_was_within_the_limit(noise: list[float], limit: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        peer = pytest.importorskip("pruning_peer")
    seen: list[tuple[float, float]] = []

    def cost(ratio: float) -> float:
        seen.append((ratio, 1 - ratio + noise[len(seen)]))
        return seen[-1][1]

    found = peer.least_within(cost, limit, 0.95, 8)
    within = [(ratio, value) for ratio, value in seen if value <= limit]
    if seen[0][1] > limit:
        assert found is None
    else:
        assert found == min(within)


@pytest.mark.parametrize("way", ["magnitude", "BN scale, global", "FPGM", "LAMP, global", "Taylor, global"])
def test_a_pruned_network_is_narrower_and_can_be_built_again(
    benchmark: Benchmark, reference: Reference, way: str
) -> None:
    peer, x = benchmark("pruning_peer"), torch.randn(2, 3, 32, 32)
    before = reference.module()(x)
    graded = peer.with_gradients(reference)
    narrow = peer.pruned(graded, way, 0.5, reference)
    again = peer.shaped(reference.module(), narrow.state_dict()).eval()
    assert _size(narrow) < 0.9 * _size(reference.module())
    assert narrow(x).shape == (2, 10)
    assert torch.equal(narrow(x), again(x))
    assert torch.equal(reference.module()(x), before)


@pytest.mark.parametrize("head", [nn.Conv2d(8, 5, 1), nn.ConvTranspose2d(8, 5, 2), nn.Linear(8, 5)])
def test_the_last_layers_are_those_whose_outputs_leave(benchmark: Benchmark, head: nn.Module) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.act = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True)
            self.head, self.other = head, nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.act(self.body(x))
            seen = self.head(x.mean((2, 3)) if isinstance(self.head, nn.Linear) else x)
            return seen.sigmoid(), self.other(x)

    module = Forked()
    found = set(benchmark("pruning_peer").last_layers(module, torch.randn(1, 3, 8, 8)))
    assert found == {module.head, module.other}


def test_depthwise_layers_are_built_again(benchmark: Benchmark) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1))
    narrow = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    again = benchmark("pruning_peer").shaped(module, narrow.state_dict())
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(again(x), narrow(x))
    assert str(again) == str(narrow)


def test_what_was_spent_since_is_told_by_step_and_device(benchmark: Benchmark) -> None:
    def spent(step: Step, device: str | None, times: int) -> Cost:
        return Cost(
            step=step,
            device=device,
            seconds=2.0 * times,
            images=times,
            epochs=0.5 * times,
            training_flops=times,
        )

    now = [spent("distillation", None, 4), spent("search", "cpu", 5), spent("search", "npu", 2)]
    first, second = [spent("distillation", None, 4)], [spent("search", "cpu", 3)]
    tables = benchmark("result_tables")
    found = tables.spent_since(now, first, second)
    assert found == [spent("search", "cpu", 2), spent("search", "npu", 2)]
    text = tables.cost_table({"library": first, "hwnas": found})
    assert text.splitlines()[2:] == [
        "| library | distillation | 2.0 | 8 | 0.0 |",
        "| hwnas | search | 1.0 | 4 | 0.0 |",
        "| hwnas | search | 1.0 | 4 | 0.0 |",
        "| hwnas | **sum** | 2.0 | 8 | 0.0 |",
    ]


def _answers(right: int) -> Tensor:
    return torch.arange(1000) < right


def _row(benchmark: Benchmark, method: str, bound: float, right: int, ratio: float | None = None) -> Any:
    middle = bound if ratio is None else ratio
    return benchmark("result_tables").Row(
        method=method,
        bound=bound,
        latency_ratio=Interval(value=middle, low=middle - 0.01, high=middle + 0.01),
        latency_ms=Interval(value=1.0, low=0.9, high=1.1),
        reference_ms=Interval(value=2.0, low=1.9, high=2.1),
        scores=_answers(right),
    )


@pytest.mark.parametrize(
    ("at_half", "at_third", "best", "by_a_point"),
    [
        (910, 801, "met", "met"),
        (909, 801, "met", "missed"),
        (910, 800, "missed", "met"),
        (899, 801, "missed", "missed"),
    ],
)
def test_the_verdicts_follow_from_the_figures(
    benchmark: Benchmark, at_half: int, at_third: int, best: str, by_a_point: str
) -> None:
    rows = [
        _row(benchmark, "hwnas", 0.5, at_half),
        _row(benchmark, "torch-pruning", 0.5, 900),
        _row(benchmark, "random search", 0.5, 700),
        _row(benchmark, "hwnas", 0.35, at_third),
        _row(benchmark, "torch-pruning", 0.35, 800),
    ]
    lines = benchmark("result_tables").verdicts(rows)
    assert lines[-2:] == [
        f"- Goal, best at every bound: {best}.",
        f"- Goal, a point or more at 0.5: {by_a_point}.",
    ]
    assert "to torch-pruning" in lines[0]


def test_a_goal_is_missed_without_a_network_or_over_the_bound(benchmark: Benchmark) -> None:
    tables = benchmark("result_tables")
    over = [_row(benchmark, "hwnas", 0.5, 990, ratio=0.52), _row(benchmark, "torch-pruning", 0.5, 900)]
    none = [tables.Row(method="hwnas", bound=0.5, reason="too slow"), over[1]]
    for rows in (over, none):
        assert all("missed" in line for line in tables.verdicts(rows))
    text = tables.accuracy_table([*over, none[0]], _answers(970))
    assert "0.520 [0.510, 0.530] **over**" in text
    assert "| 0.5 | hwnas | too slow |" in text
    assert "97.0 %" in text.splitlines()[-1]
    assert "2.000 [1.900, 2.100]" in text.splitlines()[-1]
    assert len({line.count("|") for line in text.splitlines()}) == 1


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ({1: 600, 5: 700}, "after 5: 9 times shorter. Goal, 9 times: met"),
        ({1: 700, 5: 800}, "after 1: 45 times shorter. Goal, 9 times: met"),
        ({1: 600, 5: 699}, "does not reach in 5. Goal, 9 times shorter: missed"),
    ],
)
def test_how_much_shorter_finetuning_is(benchmark: Benchmark, library: dict[int, int], said: str) -> None:
    scores = {("library", epochs): _answers(right) for epochs, right in library.items()}
    scores |= {("scratch", 9): _answers(500), ("scratch", 45): _answers(700)}
    assert said in benchmark("curve_tables").budget_table(scores)


def test_curves_are_listed_and_drawn(benchmark: Benchmark, tmp_path: Path) -> None:
    tables = benchmark("curve_tables")
    point = Interval(value=0.5, low=0.4, high=0.6)
    curves = {"library": {1: point, 3: point}, "scratch": {1: point, 2: point, 9: point}}
    assert tables.curve_table(curves).splitlines()[3] == "| 2 | – | 50.0 % [40.0, 60.0] |"
    tables.plot(curves, 0.7, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def _options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    return parser.parse_args(["run", *arguments])


@pytest.mark.slow
def test_a_tiny_comparison_goes_all_the_way_and_is_not_done_again(
    benchmark: Benchmark, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    equal, peer = benchmark("equal_latency"), benchmark("pruning_peer")
    monkeypatch.setattr(peer, "WAYS", {way: peer.WAYS[way] for way in ("magnitude", "Taylor, global")})
    monkeypatch.setattr(peer, "STEPS", 4)
    arguments = "--model tinynet:make --weights none --data tiny:make_data --space compression --candidates 3"
    arguments += " --device steady.toml --second-device modelled.toml --train-epochs 1 --epochs 1 --steps 4"
    arguments += (
        " --population 6 --generations 2 --finetune-epochs 1 --choose-epochs 1 --report quick --out runs"
    )
    options = _options(equal.make_parser(), arguments.split())
    text = equal.run(options, Progress())
    assert text.count("| hwnas |") == 3 + len(read_json(Path("runs/1-hwnas.json"))["spent"]) + 1
    for method in ("uniform scaling", "random search", "torch-pruning"):
        assert text.count(f"| {method} |") >= 3
    assert "no distillation for a second device: 0 epochs, met" in text
    second = read_json(Path("runs/4-hwnas__second_device_modelled.toml.json"))
    assert "distillation" not in {spent["step"] for spent in second["spent"]}
    before = {path: path.stat().st_mtime_ns for path in Path("runs/pruning").glob("*.safetensors")}
    assert before
    assert equal.run(options, Progress()) == text
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs/pruning").glob("*.safetensors")}
    options.finetune_epochs = 2
    with pytest.raises(InputError, match="other options"):
        equal.run(options, Progress())


class Stopping(Progress):
    """Stops a run after an epoch of a training, as Ctrl-C does, and knows which epochs it has seen."""

    def __init__(self, step: str = "", after: int = 0) -> None:
        self.stop = step, after
        self.seen: list[tuple[str, int]] = []

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        self.seen.append((step, done))
        if (step, done) == self.stop:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_tiny_curves_go_on_where_they_were_stopped(benchmark: Benchmark, workplace: Path) -> None:
    curves = benchmark("finetune_curves")
    options = argparse.Namespace(
        out=Path("curves"),
        model="tinynet:make",
        data="tiny:make_data",
        epochs=[1],
        distil_epochs=1,
        batch_size=64,
        train_on="cpu",
    )
    with pytest.raises(KeyboardInterrupt):
        curves.run(options, Stopping("scratch-9", 4))
    going_on = Stopping()
    text = curves.run(options, going_on)
    assert [done for step, done in going_on.seen if step == "scratch-9"] == [5, 6, 7, 8, 9]
    assert "library-1" not in {step for step, _ in going_on.seen}
    assert "| 9 | – |" in text
    assert list(read_json(Path("curves/scratch-9.json"))) == [str(epoch) for epoch in range(1, 10)]
    assert Path("curves/curves.png").is_file()
    options.out = Path("at once")
    told = "What came before"
    assert curves.run(options, Progress()).partition(told)[0] == text.partition(told)[0]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
