"""Networks that are trained on small images and measured on larger ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import pictures
from shortest_run import LIBRARY, SEARCH
from tiny import run_hwnas, run_job
from torch import Tensor, nn
from workplace import graph_networks, restorers

import hwnas
from hwnas.compress.library.candidates import dropped_families, find_candidates
from hwnas.compress.library.open_run import open_inputs
from hwnas.compress.library.operators import check_exports
from hwnas.compress.library.space import load_space
from hwnas.compress.library.store import Library
from hwnas.compress.options import parse_size
from hwnas.compress.run.directory import recorded_settings
from hwnas.errors import InputError, NetworkFormError, RunDirectoryError
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.blocks.cut import CutSpec
from hwnas.networks.blocks.variants import VariantSpec
from hwnas.networks.build import build_part
from hwnas.networks.count import count
from hwnas.networks.partition import Partition, partition
from hwnas.networks.sizes import at_size, require_all_places, require_size
from hwnas.progress import Progress

NETWORKS = {
    "chain": (restorers.enlarger, (3, 16, 16)),
    "graph": (graph_networks.unet, (3, 32, 32)),
    "several places": (graph_networks.pyramid, (3, 32, 32)),
}


class Branching(nn.Module):
    """Another network where images are large."""

    def __init__(self, limit: int = 40) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stages(x)
        return y * 2 if x.shape[-1] > self.limit else y


def two_sizes(model: nn.Module, shape: tuple[int, int, int], size: tuple[int, int]) -> tuple[Partition, ...]:
    parts = partition(model.eval(), shape)
    return parts, at_size(model, parts, size)


@pytest.mark.parametrize("name", NETWORKS)
@given(st.integers(2, 5), st.integers(2, 5))
@settings(max_examples=4, deadline=None)
def test_shapes_are_those_of_a_partition_at_that_size(name: str, rows: int, columns: int) -> None:
    make, shape = NETWORKS[name]
    model, size = make(), (16 * rows, 16 * columns)
    parts, measured = two_sizes(model, shape, size)
    again = partition(model, (shape[0], *size))
    assert measured.shapes == again.shapes
    assert measured.regions == parts.regions == again.regions
    assert measured.modules is parts.modules
    assert at_size(model, parts, shape[1:]) is parts


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (timm.create_model("vit_tiny_patch16_224", img_size=32), "Input height"),
        (nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3)), nn.Flatten(), nn.Linear(2028, 2)), "mat1"),
        (Branching(), "compute something else"),
    ],
)
def test_a_network_of_one_size_is_refused(model: nn.Module, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        two_sizes(model, (3, 32, 32), (64, 48))
    assert "cut at 32 × 32 pixels, cannot be measured at 48 × 64 pixels" in error.value.cause
    assert "--measure-size" in error.value.fix


def test_a_size_that_no_memory_holds_is_refused() -> None:
    with pytest.raises(InputError, match="memory are free"):
        two_sizes(restorers.enlarger(), (3, 16, 16), (10**6, 10**6))


@pytest.mark.slow
def test_candidates_are_counted_at_that_size_and_fit_both() -> None:
    parts, measured = two_sizes(timm.create_model("resnet18"), (3, 64, 64), (96, 160))
    found = find_candidates(measured, load_space("mixed"), 8, parts)
    refused = set()
    for candidate in found:
        module = build_part(parts, candidate.part, candidate.spec)
        try:
            content = require_size(candidate, parts, measured)
        except NetworkFormError:
            refused.add(candidate.spec.family)
            continue
        assert candidate.macs == count(module, *measured.in_shapes(candidate.part_name))[0]
        (value,) = ort.InferenceSession(content).get_inputs()
        assert value.shape == [1, *measured.in_shapes(candidate.part_name)[0]]
    assert refused == {"transformer"}  # attention knows how many pixels there are


@pytest.mark.parametrize(
    ("text", "size"), [("", ()), ("256", (256, 256)), ("720x1280", (720, 1280)), ("8X9", (8, 9))]
)
def test_sizes_are_read(text: str, size: tuple[int, ...]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["0", "-1", "x", "64x", "x64", "1x2x3", "6 4", "64.0", "big", "1e3", "1000001", "²"]
)
def test_what_is_no_size_is_refused(text: str, workplace: Path) -> None:
    with pytest.raises(InputError, match="no size in pixels") as error:
        parse_size(text)
    assert "--measure-size 256" in error.value.fix


@pytest.mark.slow
def test_the_command_refuses_before_anything_is_made(workplace: Path) -> None:
    pictures(workplace, "photos", count=12)
    always = ("restorers:enlarger", "--device", "sim-npu", "--data", "folder:photos", "--weights", "auto")
    for options, cause in (
        (("--measure-size", "x"), "no size in pixels"),
        (("--measure-size", "65", "--task", "super-resolution:2"), "cannot be 2 times as large"),
    ):
        done = run_hwnas(workplace, "compress", *always, *options, "--out", "run")
        assert done.returncode == 2
        assert cause in done.stderr
        assert "Traceback" not in done.stderr
        assert not (workplace / "run").exists()


def settings_of(**changed: Any) -> Any:
    options: dict[str, Any] = {
        "model": "restorers:enlarger",
        "data": "folder:photos",
        "task": "super-resolution:2",
        "space": "restoration",
        "per_block": 3,
        "image_size": 32,
        "measure_size": (64, 96),
    }
    return replace(LIBRARY, **(options | changed))


def test_a_scale_divides_the_size(workplace: Path) -> None:
    pictures(workplace, "photos", count=12)
    inputs = open_inputs(settings_of(), Progress())
    assert inputs.data.image_shape == (3, 16, 16)
    assert inputs.parts.image_shape == (3, 16, 16)
    assert inputs.measured.image_shape == (3, 32, 48)
    with pytest.raises(InputError, match="images of 95 × 64 pixels cannot be 2 times as large") as error:
        open_inputs(settings_of(measure_size=(64, 95)), Progress())
    assert "64x94" in error.value.fix


@pytest.mark.slow
def test_a_run_measures_everything_at_that_size(workplace: Path) -> None:
    pictures(workplace, "photos", count=40)
    out, library = workplace / "run", settings_of()
    search = replace(SEARCH, filter="device")
    result = run_job(library, search, out, "hwnas compress …", Progress(), allow_code=True)
    assert recorded_settings(out) == library
    (checkpoint,) = result["checkpoints"]
    path = Path(checkpoint["path"])
    architecture = ArchitectureSpec.read(path / "architecture.json")
    assert architecture.input_shape == (3, 32, 48)
    for file in (path / "model.onnx", out / "reference" / "model.onnx"):
        (value,) = ort.InferenceSession(file).get_inputs()
        assert value.shape == [1, 3, 32, 48]
    module = hwnas.load(path, allow_code=True)
    assert checkpoint["macs"] == count(module, (3, 32, 48))[0]
    assert checkpoint["macs_reference"] == count(restorers.enlarger(), (3, 32, 48))[0]
    with torch.no_grad():
        assert module(torch.rand(1, 3, 16, 16)).shape == (1, 3, 32, 32)
    assert checkpoint["trained_shape"] == [3, 16, 16]
    measured = hwnas.profile(str(path / "model.onnx"), "sim-npu")
    assert measured.latency_ms == pytest.approx(checkpoint["latency_ms"]["value"], rel=0.01)
    whole = hwnas.profile(restorers.enlarger(), "sim-npu", input_shape=(3, 32, 48))
    assert checkpoint["latency_reference_ms"]["value"] == pytest.approx(whole.latency_ms, rel=0.01)
    blocks = json.loads((out / "devices" / "sim-npu" / "blocks.json").read_text())
    assert blocks["reference_latency_ms"] == pytest.approx(whole.latency_ms, rel=0.01)
    assert "- Latency and MACs are of images of 3, 32, 48; PSNR of Y in dB of 3, 16, 16." in (
        path / "README.md"
    ).read_text().replace("\n", " ")
    (report,) = (out / "devices" / "sim-npu").glob("*.html")
    assert "Latencies and MACs are of images of 96 × 64 pixels." in report.read_text()
    again = run_job(library, search, out, "hwnas compress …", Progress(), allow_code=True)
    assert again["checkpoints"] == result["checkpoints"]
    with pytest.raises(RunDirectoryError, match="was made with measure_size"):
        run_job(settings_of(measure_size=()), search, out, "hwnas compress …", Progress(), allow_code=True)


def test_candidates_of_one_size_are_left_out(tmp_path: Path) -> None:
    parts, measured = two_sizes(timm.create_model("resnet18"), (3, 32, 32), (64, 64))
    with Library(tmp_path) as library:
        library.add(find_candidates(measured, load_space("mixed"), 4, parts))
        check_exports(library, parts, measured, Progress())
        states = {(entry.candidate.spec.family, entry.state) for entry in library.entries()}
        reasons = {entry.reason for entry in library.entries() if entry.state == "failed"}
    families = ("convnext", "inverted-bottleneck", "residual")
    assert states == {*((family, "pending") for family in families), ("transformer", "failed")}
    assert all("of one size only" in str(reason) for reason in reasons)


@pytest.mark.slow
def test_candidates_of_one_size_are_none_of_a_block_in_places_of_several() -> None:
    parts = partition(graph_networks.pyramid(), (3, 32, 32))
    (tower,) = (n for n, places in enumerate(parts.regions, 1) if len(places) > 1)
    reason = dropped_families(parts, load_space("transformer"))[tower]["transformer"]
    assert "of one size only" in reason
    found = [c for c in find_candidates(parts, load_space("convolution"), 2) if c.part == tower]
    assert found
    for candidate in found:
        assert not isinstance(candidate.spec, VariantSpec | CutSpec)
        require_all_places(parts, tower, candidate.spec)
        module = build_part(parts, tower, candidate.spec).eval()
        inputs = [torch.rand(3, *shape) for shape in parts.in_shapes(candidate.part_name)]
        with torch.no_grad():
            several, alone = module(*inputs), module(*(x[:1] for x in inputs))
        assert all(torch.allclose(a[:1], b, atol=1e-5) for a, b in zip(several, alone, strict=True))
