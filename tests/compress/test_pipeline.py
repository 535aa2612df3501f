"""Whole runs, in fresh processes where a kill or another process matters."""

from __future__ import annotations

import fcntl
import importlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from spoilt_runs import LIBRARY, SEARCH
from tiny import compress_arguments, furnish, of_one_device, run_hwnas, run_job, run_python, snapshot, tree
from torch import nn

from hwnas.compress.emit.checkpoint import is_intact
from hwnas.compress.executor import LocalExecutor
from hwnas.compress.library.open_run import open_inputs
from hwnas.compress.library.store import Library
from hwnas.compress.pipeline import compress
from hwnas.compress.report import write_reports
from hwnas.compress.run.cost_log import read_costs
from hwnas.compress.run.directory import RunRecord
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings
from hwnas.errors import DeviceError, HwnasError, InputError, RunDirectoryError
from hwnas.files import read_signed
from hwnas.progress import Progress


class Killed(BaseException):
    pass


class Watch(Progress):
    """Remembers the steps, and ends the run where it is told to."""

    def __init__(self, step: str = "", nth: int = 0) -> None:
        self.step, self.nth = step, nth
        self.steps: list[str] = []
        self.said: list[str] = []

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        assert 0 < done <= total
        self.steps.append(step)
        if self.nth and self.steps.count(step) == self.nth and step.startswith(self.step):
            raise Killed

    def say(self, text: str) -> None:
        self.said.append(text)


def run(out: Path, *, library: LibrarySettings = LIBRARY, watch: Watch | None = None, **changed: Any) -> Any:
    return run_job(library, replace(SEARCH, **changed), out, "hwnas compress …", watch or Watch())


def trained(out: Path) -> dict[str, tuple[int, float, int]]:
    """Images, epochs and FLOPs of each step of a run's account."""
    return {
        spent.step: (spent.images, round(spent.epochs, 9), spent.training_flops)
        for spent in read_costs(out / "account.json")
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    furnish(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> dict[str, Any]:
    """The result of a whole run, `place/whole`, by the command line in a fresh process."""
    done = run_hwnas(place, *compress_arguments("whole", "--json"))
    assert done.returncode == 0, done.stderr
    return of_one_device(json.loads(done.stdout))


@pytest.fixture
def copy(finished: dict[str, Any], place: Path, workplace: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(place / "whole", workplace / "whole"))


def test_a_whole_run_leaves_everything_that_was_promised(finished: dict[str, Any], place: Path) -> None:
    whole = place / "whole"
    assert finished["space"] == {"candidates": 6, "architectures": 16}
    (checkpoint,) = finished["checkpoints"]
    assert Path(checkpoint["path"]) == Path("whole/checkpoints/steady-knee")
    assert sorted(p.name for p in (whole / "checkpoints/steady-knee").iterdir()) == [
        "README.md",
        "architecture.json",
        "measurement.json",
        "model.onnx",
        "model.safetensors",
    ]
    for name in ("run.toml", "reference/model.onnx", "reference/model.safetensors", "library/library.db"):
        assert (whole / name).is_file()
    front = finished["front"]
    assert (
        read_signed(whole / "devices/steady/front.json", front["schema"]) | {"schema": front["schema"]}
        == front
    )
    assert checkpoint["choices"] in [row["choices"] for row in front["front"]]
    assert front["front"][-1]["choices"] == [0, 0, 0, 0]
    assert front["front"][-1]["cost_ratios"] == {"latency": 1}
    assert front["failed"] == []
    assert checkpoint["macs"] < checkpoint["macs_reference"]
    assert checkpoint["latency_ms"]["value"] < checkpoint["latency_reference_ms"]["value"]
    low, high = (checkpoint["accuracy"][key] for key in ("low", "high"))
    assert 0 <= low <= checkpoint["accuracy"]["value"] <= high <= 1
    card = (whole / "checkpoints/steady-knee/README.md").read_text()
    assert "hwnas compress tinynet:make" in card
    assert "steady" in card
    leftovers = [p for p in whole.rglob(".*") if p.name != ".lock"]
    assert leftovers == []


@pytest.mark.slow
def test_the_graphs_are_what_plain_onnx_runtime_runs(finished: dict[str, Any], place: Path) -> None:
    """`hwnas.load` in a fresh process against ONNX Runtime, for the network and for the reference."""
    code = """
import json, sys
import hwnas, numpy, onnxruntime, torch
x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
out = []
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(f"{path}/model.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    module = hwnas.load(path, allow_code=True)
    assert not module.training
    with torch.no_grad():
        expected = module(x).numpy()
    out.append([float(abs(got - expected).max()), float(abs(expected).max()), expected.tolist()])
print(json.dumps(out))
"""
    done = run_python(place, ["-c", code, "whole/checkpoints/steady-knee", "whole/reference"])
    assert done.returncode == 0, done.stderr
    (network, reference) = json.loads(done.stdout)
    for difference, size, _ in (network, reference):
        assert difference <= 1e-4
        assert size > 0.01
    assert network[2] != reference[2]


@pytest.mark.slow
def test_a_second_time_does_nothing_and_says_the_same(finished: dict[str, Any], place: Path) -> None:
    before = tree(place / "whole")
    done = run_hwnas(place, *compress_arguments("whole", "--json"))
    assert of_one_device(json.loads(done.stdout)) == finished
    after = tree(place / "whole")
    # Even looking everything up takes time, which the account and the report tell.
    for files in (before, after):
        for name in ("account.json", "devices/steady/report.html"):
            files.pop(name)
    made_again = {"reference/model.onnx"} | {
        f"devices/steady/{name}.json" for name in ("front", "search", "blocks")
    }
    assert {name: content for name, (content, _) in before.items()} == {
        name: content for name, (content, _) in after.items()
    }
    assert {name for name in before if before[name] != after[name]} <= made_again
    assert "distill: " not in done.stderr
    assert "finetune" not in done.stderr


def test_a_second_device_trains_and_evaluates_nothing_before_its_search(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the library and the reference are known")

    for place in ("training.loop.scores", "training.loop.fit", "library.distill.distill"):
        monkeypatch.setattr(f"hwnas.compress.{place}", never)
    monkeypatch.setattr("hwnas.compress.library.build.teacher_statistics", never)
    library, watch = tree(copy / "library"), Watch()
    front = run(copy, device="picky.toml", picks=(), watch=watch)["front"]
    assert front["device"] == "picky"
    assert tree(copy / "library") == library
    assert any("reference: tinynet:make, accuracy " in text for text in watch.said)


def test_tasks_that_no_machine_can_run_are_refused_before_anything_is_trained(
    copy: Path, workplace: Path
) -> None:
    class Nowhere(LocalExecutor):
        def require(self, needs: Mapping[str, int]) -> None:
            raise InputError(f"no machine has {needs}", "start one")

    def on(out: Path) -> Any:
        inputs = open_inputs(LIBRARY, Progress())
        wanted = [(SEARCH, target_of(SEARCH))]
        return compress(inputs, wanted, out, "hwnas", Progress(), Nowhere()).devices["steady"]

    with pytest.raises(InputError, match=r"no machine has \{'CPU': 1\}"):
        on(workplace / "new")
    assert not list((workplace / "new/reference").iterdir())
    assert on(copy).checkpoints  # its library is complete


@pytest.mark.slow
def test_a_run_that_is_killed_at_every_step_ends_with_the_same(finished: dict[str, Any], place: Path) -> None:
    """SIGKILL in training, in the second slice, in the third, in the search, and twice in the finetuning."""
    places = [("train", 2), ("distill", 6), ("distill", 3), ("search", 2), ("finetune", 1), ("finetune", 1)]
    arguments = compress_arguments("killed", "--json")
    for step, nth in places:
        done = run_python(place, ["killer.py", step, str(nth), *arguments])
        assert done.returncode == -9, (step, done.stderr)
        assert done.stdout == ""
    done = run_hwnas(place, *arguments)
    assert done.returncode == 0, done.stderr
    assert snapshot(place / "killed") == snapshot(place / "whole")
    assert trained(place / "killed") == trained(place / "whole")
    assert len(snapshot(place / "whole")) >= 3 + 12 + 3 + 4 + 2 + 3
    result = of_one_device(json.loads(done.stdout))
    assert result["front"] == finished["front"]
    keys = ("choices", "latency_ms", "accuracy", "accuracy_difference", "accuracy_stitched", "params")
    for key in keys:
        assert result["checkpoints"][0][key] == finished["checkpoints"][0][key]
    assert [p for p in (place / "killed").rglob(".*") if p.name != ".lock"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["train reference", "check exports", "distill", "search", "finetune steady-knee"]
)
def test_a_run_that_ends_at_any_moment_of_a_step_ends_with_the_same(
    step: str, finished: dict[str, Any], place: Path, workplace: Path
) -> None:
    watch = Watch()
    run(workplace / "watched", watch=watch)
    moments = range(1, watch.steps.count(step) + 1)
    assert len(moments) >= 2
    for nth in moments:
        out = workplace / f"killed at {nth}"
        with pytest.raises(Killed):
            run(out, watch=Watch(step, nth))
        run(out)
        assert snapshot(out) == snapshot(place / "whole"), (step, nth)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["library.finish", "checkpoint"])
def test_a_kill_between_files_and_rows(
    batch: str, finished: dict[str, Any], place: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.compress.emit import checkpoint
    from hwnas.database import Database

    target: Any = Database if batch == "library.finish" else checkpoint
    name = "write" if batch == "library.finish" else "model_card"
    real: Callable[..., Any] = getattr(target, name)

    def killing(*arguments: Any) -> Any:
        if name == "model_card" or "state = 'done'" in str(arguments[1]):
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(target, name, killing)
    with pytest.raises(Killed):
        run(workplace / "killed")
    monkeypatch.setattr(target, name, real)
    run(workplace / "killed")
    assert snapshot(workplace / "killed") == snapshot(place / "whole")


def test_without_plotly_a_run_only_says_how_to_get_a_report(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.compress.pipeline.is_available", lambda: False)
    watch = Watch()
    assert run(copy, watch=watch)["report"] is None
    (said,) = [text for text in watch.said if "plotly" in text]
    assert "pip install 'hwnas[report]'" in said
    assert f"hwnas report {copy}" in said


def test_what_a_killed_process_left_half_done_is_removed(copy: Path) -> None:
    half = [copy / "library/blocks/.a.safetensors.x.part", copy / "checkpoints/.steady-knee.y.part"]
    half[0].write_bytes(b"half")
    half[1].mkdir()
    (half[1] / "model.onnx").write_bytes(b"half")
    (half[1] / ".measurement.json.z.part").write_bytes(b"half")
    run(copy)
    assert not any(path.exists() for path in half)


def test_a_run_that_was_killed_before_its_settings_were_written_goes_on(workplace: Path) -> None:
    out = workplace / "early"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".run.toml.abc.part").write_text("half")
    with pytest.raises(Killed):
        run(out, watch=Watch("train", 1))
    assert (out / "run.toml").is_file()
    assert not (out / ".run.toml.abc.part").exists()


def refused(out: Path, match: str, **changed: Any) -> None:
    before = tree(out)
    with pytest.raises(RunDirectoryError, match=match) as error:
        run(out, **changed)
    assert "--out" in error.value.fix
    assert tree(out) == before


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"loss": "mse"}, {"steps": 5}, {"threads": 2}, {"cuts": ("stem", "stages.1")}]
)
def test_other_settings_are_refused(copy: Path, changed: dict[str, Any]) -> None:
    key = next(iter(changed))
    refused(copy, f"was made with {key} = .*, now it is", library=replace(LIBRARY, **changed))


@pytest.mark.parametrize("name", ["hwnas", "torch", "timm", "onnx"])
def test_another_version_is_refused(copy: Path, name: str) -> None:
    record = RunRecord.read(copy)
    replace(record, versions={**record.versions, name: "0.0.1"}).write(copy)
    refused(copy, f"was made with {name} = '0.0.1'")


def test_a_network_that_changed_is_refused(copy: Path, workplace: Path) -> None:
    refused(copy, "was made with model = ", library=replace(LIBRARY, model="tinynet:seeded"))


@pytest.mark.slow
def test_a_space_that_changed_is_refused(workplace: Path) -> None:
    text = (Path(__file__).parents[2] / "hwnas/compress/library/spaces/compression.toml").read_text()
    space = workplace / "mine.toml"
    space.write_text(text)
    library = replace(LIBRARY, space="mine.toml")
    with pytest.raises(Killed):
        run(workplace / "out", library=library, watch=Watch("train", 1))
    space.write_text(text.replace("per_block = 27", "per_block = 26"))
    refused(workplace / "out", "was made with space = ", library=library)


def test_another_schema_and_a_damaged_record_are_told(copy: Path) -> None:
    text = (copy / "run.toml").read_text()
    for damaged, match in (
        (text.replace("hwnas.run/3", "hwnas.run/1"), "schema"),
        (text[:40], "TOML|schema|made"),
    ):
        (copy / "run.toml").write_text(damaged)
        with pytest.raises(HwnasError, match=match):
            run(copy)


def test_a_foreign_directory_is_refused(workplace: Path) -> None:
    foreign = workplace / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    refused(foreign, "not empty and not a run directory")
    (workplace / "file").write_text("a file")
    with pytest.raises(RunDirectoryError, match="cannot write to"):
        run(workplace / "file")


def test_a_second_process_is_refused(copy: Path) -> None:
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(copy, "another hwnas process works in")
    run(copy)


def test_mistakes_are_told_before_anything_is_written(workplace: Path) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("no module", {"library": replace(LIBRARY, cuts=("stem", "nope"))}),
        ("classes apart", {"library": replace(LIBRARY, model="tinynet:seven")}),
        ("there is no space 'dona'", {"library": replace(LIBRARY, space="dona")}),
        ("cannot read mine.toml", {"library": replace(LIBRARY, space="mine.toml")}),
        ("unknown data", {"library": replace(LIBRARY, data="digit")}),
        ("no weights file", {"library": replace(LIBRARY, weights="w.safetensors")}),
        ("unknown pick", {"picks": ("fastest",)}),
        ("needs the objective latency", {"picks": ("latency-ms=3",), "objectives": ("macs",)}),
        ("latency, throughput say the same twice", {"objectives": ("latency", "throughput")}),
        ("macs, macs say the same twice", {"objectives": ("macs", "macs")}),
        ("no device profile", {"device": "cpuu"}),
        ("no protocol", {"protocol": "fast"}),
        ("measured or modelled", {"device": "functional.toml"}),
    ]
    for match, changed in wrong:
        with pytest.raises((InputError, DeviceError), match=match) as error:
            run(workplace / "out", **changed)
        assert error.value.fix
        assert not (workplace / "out").exists(), match


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_a_damaged_candidate_is_distilled_again_to_the_same(copy: Path, place: Path, suffix: str) -> None:
    path = sorted((copy / "library/blocks").glob(f"*.{suffix}"))[2]
    path.write_bytes(path.read_bytes()[:100])
    watch = Watch()
    run(copy, watch=watch)
    assert watch.steps.count("distill") == 4
    assert snapshot(copy) == snapshot(place / "whole")


def test_a_damaged_reference_is_told(copy: Path) -> None:
    path = copy / "reference/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(RunDirectoryError, match="not the file that this run wrote"):
        run(copy)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["measurement.json", "model.onnx"])
def test_a_checkpoint_that_lost_a_file_is_made_again(copy: Path, place: Path, name: str) -> None:
    (copy / "checkpoints/steady-knee" / name).unlink()
    run(copy)
    assert snapshot(copy) == snapshot(place / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["macs", "params"])
def test_a_counted_objective_needs_no_device_and_is_the_same_each_time(copy: Path, objective: str) -> None:
    first = run(copy, objectives=(objective,), generations=8, filter="none")["front"]
    second = run(copy, objectives=(objective,), generations=8, filter="none")["front"]
    assert first == second
    assert first["reference_latency_ms"] is None
    whole = next(row for row in first["front"] if row["choices"] == [0, 0, 0, 0])
    rows = {tuple(row["choices"]): row for row in first["front"]}
    for row in rows.values():
        assert row["cost_ratios"] == {objective: row[objective] / whole[objective]}
    points = json.loads((copy / f"devices/steady/search-{objective}.json").read_text())["points"]
    assert len(points) >= 12
    for choices in product([0], range(4), range(4), [0]):
        found = next((p for p in points if tuple(p["choices"]) == choices), None)
        if found is not None and choices not in rows:
            beaten = [found["costs"][0] >= row["cost_ratios"][objective] for row in rows.values()]
            assert any(
                b and row["loss"] <= found["loss"] for b, row in zip(beaten, rows.values(), strict=True)
            )


def test_energy_is_searched_where_the_device_tells_it(copy: Path) -> None:
    front = run(copy, device="sim-npu", objectives=("energy",), generations=6, picks=())["front"]
    whole = next(row for row in front["front"] if row["choices"] == [0, 0, 0, 0])
    assert whole["cost_ratios"] == {"energy": 1}
    for row in front["front"]:
        assert row["cost_ratios"] == {"energy": row["energy_mj"] / whole["energy_mj"]}
        assert row["latency_ms"] > 0
    assert min(row["cost_ratios"]["energy"] for row in front["front"]) < 1


def test_a_device_without_energy_is_refused_before_anything_is_trained(workplace: Path) -> None:
    watch = Watch()
    with pytest.raises(InputError, match="steady tells no energy"):
        run(workplace / "new", objectives=("latency", "energy"), watch=watch)
    assert set(watch.steps) == {"check exports"}


def test_a_device_that_cannot_run_the_reference_is_told_before_anything_is_trained(workplace: Path) -> None:
    watch = Watch()
    with pytest.raises(InputError, match=r"sim-npu cannot run the reference: operator CumSum.*not known"):
        run(
            workplace / "new", library=replace(LIBRARY, model="tinynet:summed"), device="sim-npu", watch=watch
        )
    assert set(watch.steps) == {"check exports"}


@pytest.mark.slow
def test_a_checkpoint_that_misses_its_bound_is_told(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "hwnas.compress.emit.picking.contenders",
            lambda front, rule, *more: [max(front, key=lambda p: p.costs)],
        )
        watch = Watch()
        run(copy, picks=("speedup=1.5",), finetune_epochs=1, watch=watch)
    (said,) = [text for text in watch.said if "misses" in text]
    assert "steady-speedup-1.5 misses speedup=1.5: ratio 1.0" in said
    assert "not 0.667" in said
    watch = Watch()
    run(copy, picks=("speedup=1.1",), finetune_epochs=1, watch=watch)
    assert not [text for text in watch.said if "misses" in text]


@pytest.mark.slow
def test_three_objectives_at_once(copy: Path) -> None:
    objectives = ("energy", "latency", "params")
    front = run(copy, device="sim-npu", objectives=objectives, generations=6, picks=("speedup=1.05",))[
        "front"
    ]
    assert front["objectives"] == list(objectives)
    whole = next(row for row in front["front"] if row["choices"] == [0, 0, 0, 0])
    for row in front["front"]:
        for name, key in zip(objectives, ("energy_mj", "latency_ms", "params"), strict=True):
            assert row["cost_ratios"][name] == pytest.approx(row[key] / whole[key])
    file = copy / "devices/sim-npu/front-energy-latency-params.json"
    assert read_signed(file, front["schema"]) | {"schema": front["schema"]} == front
    assert (copy / "checkpoints/sim-npu-energy-latency-params-speedup-1.05/model.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["device", "macs"])
def test_the_filter_costs_every_choice_and_bounds_the_search(
    copy: Path, by: Literal["device", "macs"]
) -> None:
    watch = Watch()
    run(copy, device="sim-npu", filter=by, filter_threshold=0.0, generations=6, picks=(), watch=watch)
    blocks = json.loads((copy / "devices/sim-npu/blocks.json").read_text())
    assert [part["name"] for part in blocks["parts"]] == ["stem", "block1", "block2", "head"]
    assert blocks["unit"] == {"device": "ms", "macs": "MACs"}[by]
    with Library(copy / "library") as library:
        entries = {(e.candidate.part, e.candidate.choice): e for e in library.entries()}
    removed = set()
    for part in blocks["parts"]:
        own, *others = part["choices"]
        assert (own["choice"], own["cost_ratio"], own["loss"], own["kept"]) == (0, 1, 0, True)
        for choice in others:
            entry = entries[part["part"], choice["choice"]]
            assert entry.metrics is not None and choice["loss"] == entry.metrics.nsr
            assert choice["cost_ratio"] == pytest.approx(choice["cost"] / own["cost"])
            assert by == "device" or choice["cost"] == entry.candidate.macs
            # Layers one by one take longer than a schedule that fuses them.
            alone_ms = choice["single_layers_ms"]
            assert alone_ms >= choice["cost"] if by == "device" else alone_ms is None
            rivals = [
                c for c in part["choices"] if c["loss"] <= choice["loss"] and c["cost"] < choice["cost"]
            ]
            assert choice["kept"] == (not rivals)
            removed |= set() if choice["kept"] else {(part["part"], choice["choice"])}
    assert removed
    points = json.loads((copy / "devices/sim-npu/search.json").read_text())["points"]
    assert not any((n, choice) in removed for p in points for n, choice in enumerate(p["choices"]))
    (told,) = [text for text in watch.said if text.startswith("filter: ")]
    assert told.startswith(f"filter: {len(removed)} of 6 candidates removed")
    assert told.count("beaten by") == len(removed)
    (report,) = write_reports(copy, "sim-npu")
    assert ("sum of single layers" in report.read_text()) == (by == "device")
    run(copy, device="sim-npu", filter="none", generations=6, picks=())
    assert not (copy / "devices/sim-npu/blocks.json").exists()
    everything = json.loads((copy / "devices/sim-npu/search.json").read_text())["points"]
    assert any((n, choice) in removed for p in everything for n, choice in enumerate(p["choices"]))


def test_networks_that_the_device_refuses_are_left_out_and_reported(copy: Path) -> None:
    result = run(copy, device="picky.toml", generations=6)
    failed = result["front"]["failed"]
    assert failed
    assert all("does not like the size" in point["reason"] for point in failed)
    rows = [row["choices"] for row in result["front"]["front"]]
    assert rows
    assert not [point for point in failed if list(point["choices"]) in rows]


@pytest.mark.slow
def test_a_search_on_a_measured_device_goes_on_to_the_same_front(copy: Path, workplace: Path) -> None:
    (workplace / "real.toml").write_text('name = "real"\ndevice = "steady"\ndescription = "a plugin"\n')
    (workplace / "fast.toml").write_text(
        'name = "fast"\nwarmup_s = 0.0\nmin_runs = 2\nmin_s = 0.0\n'
        "repeats = 2\nmax_repeats = 2\nmax_spread = 1.0\n"
    )
    how: dict[str, Any] = {"device": "real.toml", "protocol": "fast.toml", "picks": ()}
    front = run(copy, **how)["front"]
    assert front["reference_latency_ms"] > 0
    written = (copy / "devices/real/front.json").read_bytes()
    for nth in (1, 2):
        shutil.rmtree(copy / "devices/real")
        with pytest.raises(Killed):
            run(copy, watch=Watch("search", nth), **how)
        assert not (copy / "devices/real/front.json").exists()
        assert run(copy, **how)["front"] == front
        assert (copy / "devices/real/front.json").read_bytes() == written


def test_the_reference_costs_what_the_reference_costs(copy: Path, workplace: Path) -> None:
    (workplace / "fast.toml").write_text(
        'name = "fast"\nwarmup_s = 0.0\nmin_runs = 2\nmin_s = 0.0\n'
        "repeats = 2\nmax_repeats = 2\nmax_spread = 1.0\n"
    )
    run(copy, device="cpu", protocol="fast.toml", picks=())
    searched, front = (
        json.loads((copy / f"devices/cpu/{name}.json").read_text()) for name in ("search", "front")
    )
    first = searched["points"][0]
    assert (first["choices"], first["costs"]) == ([0, 0, 0, 0], [1.0])
    for row in front["front"]:
        assert row["latency_ms"] == pytest.approx(
            row["cost_ratios"]["latency"] * front["reference_latency_ms"]
        )


@pytest.mark.slow
def test_several_picks_and_one_that_is_not_reached(copy: Path) -> None:
    report = copy / "devices/steady/report.html"
    report.unlink()
    watch = Watch()
    with pytest.raises(InputError, match="speedup=1000"):
        run(copy, picks=("speedup=1.2", "speedup=1000", "latency-ms=3.5"), finetune_epochs=1, watch=watch)
    assert "steady-speedup-1.2" in report.read_text()
    names = sorted(path.name for path in (copy / "checkpoints").iterdir())
    assert names == ["steady-knee", "steady-latency-ms-3.5", "steady-speedup-1.2"]
    result = run(copy, picks=("speedup=1.2", "latency-ms=3.5"), finetune_epochs=1)
    fast, bounded = result["checkpoints"]
    # The search saw the library's graph, the report the finetuned one: their sizes differ a little.
    assert fast["latency_ms"]["value"] <= fast["latency_reference_ms"]["value"] / 1.2 * 1.02
    assert bounded["latency_ms"]["value"] <= 3.5 * 1.02
    assert fast["finetune_epochs"] == 1


@pytest.mark.slow
def test_a_candidate_that_diverges_is_left_out_and_the_run_goes_on(
    workplace: Path, place: Path, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    distillation: Any = importlib.import_module("hwnas.compress.library.distill")
    real = distillation.build_block
    names = []

    def poisoned(parts: Any, part: int, spec: Any) -> nn.Module:
        module: nn.Module = real(parts, part, spec)
        names.append(spec.name)
        if spec.name == names[0]:
            with torch.no_grad():
                next(module.parameters()).view(-1)[0] = math.nan
        return module

    monkeypatch.setattr(distillation, "build_block", poisoned)
    watch = Watch()
    result = run(workplace / "out", watch=watch)
    assert any(f"{names[0]} failed and is left out: loss became nan" in text for text in watch.said)
    assert "library: 5 of 6 candidates" in watch.said
    assert not [row for row in result["front"]["front"] if row["choices"][1] == 1]
    others = {key: value for key, value in snapshot(place / "whole").items() if key.startswith("library/")}
    found = {key: value for key, value in snapshot(workplace / "out").items() if key.startswith("library/")}
    assert len(found) == len(others) - 2
    assert found.items() <= others.items()


def test_a_library_in_which_everything_failed_is_told(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distillation: Any = importlib.import_module("hwnas.compress.library.distill")
    real = distillation.build_block

    def poisoned(parts: Any, part: int, spec: Any) -> nn.Module:
        module: nn.Module = real(parts, part, spec)
        with torch.no_grad():
            next(module.parameters()).view(-1)[0] = math.nan
        return module

    monkeypatch.setattr(distillation, "build_block", poisoned)
    for _ in range(2):
        with pytest.raises(HwnasError, match=r"every candidate failed.*loss became nan"):
            run(workplace / "out")


@pytest.mark.slow
def test_a_checkpoint_is_compressed_again(copy: Path, workplace: Path) -> None:
    again = replace(LIBRARY, model=str(copy / "checkpoints/steady-knee"), weights="auto")
    result = run_job(again, SEARCH, workplace / "again", "again", Watch(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    first = json.loads((copy / "checkpoints/steady-knee/measurement.json").read_text())["summary"]
    assert result["reference"]["accuracy"] == first["accuracy"]
    assert checkpoint["macs_reference"] == first["macs"]
    from hwnas import load

    module = load(checkpoint["path"], allow_code=True)
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(InputError, match="tinynet:make"):
        load(checkpoint["path"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "measurement.json"])
def test_a_damaged_checkpoint_is_made_again(copy: Path, workplace: Path, name: str) -> None:
    file = copy / "checkpoints/steady-knee" / name
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    (kept,) = (copy / "architectures").glob("*.safetensors")
    if name == "model.safetensors":
        kept.write_bytes(kept.read_bytes()[:-1])
    done = run_hwnas(workplace, *compress_arguments("whole"))
    assert done.returncode == 0, done.stderr
    assert ("finetune" in done.stderr) == (name == "model.safetensors")  # else the network was kept
    assert is_intact(file.parent)
