"""Variants of stem and head, and devices that forbid operators."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spoilt_runs
import timm
import torch
from tiny import furnish, run_job, run_python
from torch import Tensor, nn

from hwnas.composed import Composed
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.operators import check_exports
from hwnas.compress.library.space import load_space
from hwnas.compress.library.store import Library
from hwnas.compress.report.sections import sections
from hwnas.compress.report.stored import read_run
from hwnas.errors import InputError
from hwnas.network import export_onnx
from hwnas.networks.blocks.layers import SqueezeExcite
from hwnas.networks.blocks.variants import VariantSpec, build_variant, find_gates, find_variants
from hwnas.networks.build import build_part
from hwnas.networks.partition import Partition, partition
from hwnas.onnx_file import operators_of
from hwnas.page import Plot, Table
from hwnas.progress import Progress

SWISHNET = '''
"""Two small stages with Swish and squeeze-and-excitation everywhere, under names of its own."""

from torch import nn


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 4, 1),
            nn.SiLU(),
            nn.Conv2d(4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.gates(x)


def convolution(c_in, c_out, stride=1):
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.SiLU()
    )


class Swish(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem = nn.Sequential(nn.AvgPool2d(2), convolution(3, 8, 2), Attention(8))
        self.stages = nn.Sequential(
            nn.Sequential(convolution(8, 16, 2), convolution(16, 16)),
            nn.Sequential(convolution(16, 16), Attention(16), convolution(16, 16)),
        )
        self.head = nn.Sequential(
            nn.Conv2d(16, 24, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)
        )

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


def make():
    return Swish()
'''
LIBRARY = replace(spoilt_runs.LIBRARY, model="swishnet:make", slice_size=4)
SEARCH = replace(spoilt_runs.SEARCH, device="nosigmoid.toml", generations=4, finetune_epochs=1)


def gated() -> Partition:
    model = timm.create_model("efficientnet_b0", num_classes=10).eval()
    return partition(model, (3, 32, 32))


def kinds(module: nn.Module) -> Counter[str]:
    return Counter(type(child).__name__ for child in module.modules())


def test_attention_is_known_by_what_it_does() -> None:
    b0 = gated()
    assert find_gates(b0.modules[0], b0.shapes[0]) == ("blocks.0.0.se",)
    assert find_gates(b0.modules[6], b0.shapes[6]) == ()
    for block, layers in zip(range(1, 6), (2, 2, 3, 3, 5), strict=True):
        gates = find_gates(b0.modules[block], b0.shapes[block])
        assert len(gates) == layers
        assert all(gate.endswith(".se") for gate in gates)


@pytest.mark.parametrize("name", ["regnety_002", "mobilenetv3_large_100", "seresnext26d_32x4d"])
def test_attention_of_other_families_is_found_and_nothing_else(name: str) -> None:
    model = timm.create_model(name).eval()
    parts = partition(model, (3, 64, 64))
    for module, shape in zip(parts.modules, parts.shapes[:-1], strict=True):
        expected = [n for n, m in module.named_modules() if type(m).__name__ in ("SqueezeExcite", "SEModule")]
        assert list(find_gates(module, shape)) == expected


def test_what_only_looks_like_attention_is_left_alone() -> None:
    scale = nn.Sequential(nn.Conv2d(8, 8, 1, groups=8, bias=False))  # the same factor for every image
    with torch.no_grad():
        scale[0].weight.fill_(0.5)  # type: ignore[operator]
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU()),
        scale,
        nn.Sequential(nn.Identity(), nn.Conv2d(8, 8, 1)),
        nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()),
        SqueezeExcite(8, 4, "relu"),
    ).eval()
    assert find_gates(module, (3, 8, 8)) == ("4",)


def test_a_part_without_such_things_has_no_variants() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()).eval()
    assert find_variants(plain, (3, 8, 8)) == []


def test_the_variants_of_b0_hold_what_their_names_say() -> None:
    b0 = gated()
    specs = {spec.name: spec for spec in find_variants(b0.modules[0], b0.shapes[0])}
    assert list(specs) == ["relu", "no-se", "relu-no-se"]
    own = kinds(b0.modules[0])
    for name, spec in specs.items():
        variant = build_variant(spec, b0.modules[0])
        found = kinds(variant)
        assert found["SiLU"] == (0 if "relu" in name else own["SiLU"] - (name == "no-se"))
        assert found["SqueezeExcite"] == (0 if "no-se" in name else 1)
        operators = operators_of(export_onnx(variant, (1, 3, 32, 32)))
        assert ("Sigmoid" in operators) == (name != "relu-no-se")
        assert ("ReduceMean" in operators) == ("no-se" not in name)
        state = b0.modules[0].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in variant.state_dict().items())
    assert kinds(b0.modules[0]) == own


def test_a_shared_activation_is_replaced_wherever_it_stands() -> None:
    shared = nn.SiLU()
    module = nn.Sequential(nn.Conv2d(3, 8, 3), shared, nn.Conv2d(8, 8, 1), shared).eval()
    (spec,) = find_variants(module, (3, 8, 8))
    assert "Sigmoid" not in operators_of(export_onnx(build_variant(spec, module), (1, 3, 8, 8)))


@pytest.mark.parametrize("name", ["", "absent", "0.absent"])
def test_a_variant_of_a_module_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(InputError, match="no module"):
        build_variant(VariantSpec(relu=(name,)), nn.Sequential(nn.SiLU()))


def test_a_variant_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one module"):
        VariantSpec()


def test_the_operators_of_every_candidate_are_those_of_its_graph(parts: Partition, tmp_path: Path) -> None:
    library = Library(tmp_path)
    candidates = find_candidates(parts, load_space("compression"), 3)
    library.add(candidates)
    check_exports(library, parts, parts, Progress())
    for entry in library.entries():
        module = build_part(parts, entry.candidate.part, entry.candidate.spec)
        expected = operators_of(export_onnx(module, (1, *parts.shapes[entry.candidate.part])))
        assert entry.operators == expected
        assert ("Sigmoid" in expected) == entry.candidate.name.count("-se-")
    library.close()


def run(out: Path, watch: Progress, **changed: Any) -> dict[str, Any]:
    return run_job(LIBRARY, replace(SEARCH, **changed), out, "hwnas compress …", watch)


class Watch(Progress):
    def __init__(self) -> None:
        self.events: list[str] = []

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        self.events.append(step)

    def say(self, text: str) -> None:
        self.events.append(text)


def write_profile(folder: Path, name: str, *operators: str) -> None:
    (folder / f"{name}.toml").write_text(
        f'name = "{name}"\ndevice = "modelled"\ndescription = "a plugin"\n'
        f"forbidden_operators = {json.dumps(list(operators))}\n"
    )


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    furnish(folder)
    (folder / "swishnet.py").write_text(SWISHNET)
    write_profile(folder, "nosigmoid", "Sigmoid")
    write_profile(folder, "noconv", "Conv", "Sigmoid")
    write_profile(folder, "nopad", "Pad")
    write_profile(folder, "typo", "Sigmoyd")
    return folder


@pytest.fixture(scope="module")
def refusing(place: Path) -> Iterator[tuple[dict[str, Any], Watch]]:
    """A whole run for a device without Sigmoid, and what was said."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        watch = Watch()
        yield run(Path("run"), watch), watch
    torch.set_num_threads(threads)


@pytest.fixture
def inside(place: Path, refusing: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place as the current one; a copy of its finished run."""
    enter(place, monkeypatch)
    return Path(shutil.copytree(place / "run", tmp_path / "run"))


@pytest.mark.slow
def test_what_is_refused_is_said_before_anything_is_trained(refusing: tuple[Any, Watch]) -> None:
    _, watch = refusing
    said = next(i for i, event in enumerate(watch.events) if event.startswith("nosigmoid forbids Sigmoid"))
    assert set(watch.events[:said]) == {"check exports"}
    assert "train reference" in watch.events[said:]
    lines = watch.events[said].splitlines()
    assert "  stem: the reference's own, 2 of 3 candidates (no-se, relu), for Sigmoid" in lines
    assert "  head: the reference's own, for Sigmoid" in lines
    assert any(line.startswith("  block1: the reference's own, ") for line in lines)


@pytest.mark.slow
def test_the_network_for_a_device_without_sigmoid_holds_none(
    refusing: tuple[dict[str, Any], Watch], place: Path
) -> None:
    result, _ = refusing
    (checkpoint,) = result["checkpoints"]
    content = (place / checkpoint["path"] / "model.onnx").read_bytes()
    assert "Conv" in operators_of(content)
    assert not {"Sigmoid", "HardSwish", "Swish"} & set(operators_of(content))
    reference = (place / "run/reference/model.onnx").read_bytes()
    assert "Sigmoid" in operators_of(reference)
    specs = json.loads((place / checkpoint["path"] / "architecture.json").read_text())["parts"]
    assert [specs[0]["family"], specs[-1]["family"]] == ["variant", "variant"]
    refused = {(row["part"], row["choice"]): row["operators"] for row in result["front"]["refused"]}
    assert refused[0, 0] == ["Sigmoid"]
    for row in result["front"]["front"]:
        assert not [key for key in enumerate(row["choices"]) if key in refused]


@pytest.mark.slow
def test_nothing_pretends_that_the_reference_was_measured(
    refusing: tuple[dict[str, Any], Watch], place: Path
) -> None:
    result, watch = refusing
    front, (checkpoint,) = result["front"], result["checkpoints"]
    assert front["reference_latency_ms"] is None
    assert checkpoint["latency_reference_ms"] is None
    assert front["anchor"] == list(checkpoint["anchor"])
    anchor = next(row for row in front["front"] if row["choices"] == front["anchor"])
    assert anchor["cost_ratios"] == {"latency": 1.0}
    assert anchor["latency_ms"] == front["anchor_latency_ms"]
    assert anchor["loss"] == min(row["loss"] for row in front["front"])
    assert any("refuses the reference" in text for text in watch.events)
    card = (place / checkpoint["path"] / "README.md").read_text()
    assert "The device refuses the reference, whose latency there is not known." in card
    assert f"architecture {'-'.join(map(str, front['anchor']))}" in card


@pytest.mark.slow
def test_the_report_of_a_refused_reference_is_about_the_anchor(inside: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run/devices/nosigmoid"
    front = json.loads((folder / "front.json").read_text())
    stored = read_run(tmp_path / "run", folder)
    found = sections(stored)
    section = next(section for section in found if section.heading == "Front")
    text, plot, table, against_exact = section.content
    assert isinstance(text, str) and isinstance(plot, Plot) and isinstance(table, Table)
    assert isinstance(against_exact, str) and "exact" in against_exact
    assert f"ratios to the anchor {'-'.join(map(str, front['anchor']))}" in text
    assert "latency / anchor" in table.columns
    shown = {trace["name"]: trace for trace in plot.data}
    assert shown["front"]["x"] == pytest.approx([row["latency_ms"] for row in front["front"]])
    assert shown["anchor"]["x"] == pytest.approx([front["anchor_latency_ms"]])
    assert "latency / anchor 1.000" in shown["anchor"]["text"][0]
    assert "Sums of block costs against whole networks" in [section.heading for section in found]


@pytest.mark.slow
def test_the_anchor_is_the_accepted_architecture_with_the_lowest_loss(
    refusing: tuple[dict[str, Any], Watch], place: Path
) -> None:
    library = Library(place / "run/library")
    entries = library.entries()
    library.close()
    for part, choice in enumerate(refusing[0]["front"]["anchor"]):
        accepted = {
            entry.candidate.choice: entry.metrics.nsr
            for entry in entries
            if entry.candidate.part == part and entry.metrics and "Sigmoid" not in (entry.operators or ())
        }
        assert choice == min(accepted, key=accepted.__getitem__)


@pytest.mark.slow
def test_the_checkpoint_is_loaded_in_a_fresh_process_and_runs_in_every_precision(
    refusing: tuple[dict[str, Any], Watch], place: Path
) -> None:
    code = """
import sys, hwnas, numpy, onnxruntime, torch
from hwnas.network import Network
x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
module = hwnas.load(sys.argv[1], allow_code=True)
session = onnxruntime.InferenceSession(f"{sys.argv[1]}/model.onnx", providers=["CPUExecutionProvider"])
with torch.no_grad():
    expected = module(x).numpy()
got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
assert abs(got - expected).max() <= 1e-4 and abs(expected).max() > 0.01
network = Network.from_module("net", module, (1, 3, 32, 32))
network = network.calibrated(x.numpy())
for precision in ("fp16", "int8"):
    session = onnxruntime.InferenceSession(network.onnx(precision), providers=["CPUExecutionProvider"])
    assert session.run(None, {session.get_inputs()[0].name: x.numpy()})[0].shape == (1, 10)
"""
    done = run_python(place, ["-c", code, refusing[0]["checkpoints"][0]["path"]])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_one_library_serves_devices_that_refuse_and_devices_that_do_not(
    inside: Path, refusing: tuple[dict[str, Any], Watch]
) -> None:
    watch = Watch()
    front = run(inside, watch, device="steady.toml", picks=())["front"]
    assert "distill" not in watch.events
    assert front["anchor"] == [0, 0, 0, 0]
    assert front["reference_latency_ms"] == front["anchor_latency_ms"] > 0
    assert front["refused"] == []
    watch = Watch()
    again = run(inside, watch, device="nopad.toml", picks=())["front"]
    assert again["refused"] == []
    assert any("nopad forbids Pad; no part holds them" in text for text in watch.events)


@pytest.mark.slow
def test_a_profile_that_starts_to_forbid_does_not_mix_ratios(
    inside: Path, refusing: tuple[dict[str, Any], Watch], tmp_path: Path
) -> None:
    """The same name, first without and then with a refused reference: ratios are to different anchors."""
    profile = tmp_path / "nosigmoid.toml"
    profile.write_text('name = "nosigmoid"\ndevice = "modelled"\ndescription = "a plugin"\n')
    before = run(inside, Watch(), device=str(profile))
    assert before["front"]["anchor"] == [0, 0, 0, 0]
    after = run(inside, Watch())
    assert after["front"] == refusing[0]["front"]
    keys = ("choices", "anchor", "latency_anchor_ms", "latency_ratio", "accuracy")
    for key in keys:
        assert after["checkpoints"][0][key] == refusing[0]["checkpoints"][0][key]


@pytest.mark.slow
def test_a_device_that_refuses_everything_of_a_part_is_told(inside: Path, tmp_path: Path) -> None:
    watch = Watch()
    out = tmp_path / "new"
    with pytest.raises(InputError, match="noconv refuses every choice of stem: it forbids Conv") as error:
        run(out, watch, device="noconv.toml")
    assert "forbidden_operators" in error.value.fix
    assert "--space" in error.value.fix
    assert "train reference" not in watch.events


@pytest.mark.slow
def test_an_operator_that_does_not_exist_is_told(inside: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="forbidden_operators: ONNX has no operator 'Sigmoyd'") as error:
        run(tmp_path / "new", Watch(), device="typo.toml")
    assert "Sigmoid" in error.value.fix
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("value", ['"Sigmoid"', "[1]", "true"])
def test_forbidden_operators_are_a_list_of_names(inside: Path, tmp_path: Path, value: str) -> None:
    profile = tmp_path / "bad.toml"
    profile.write_text(
        f'name = "bad"\ndevice = "modelled"\ndescription = "x"\nforbidden_operators = {value}\n'
    )
    with pytest.raises(InputError, match="forbidden_operators"):
        run(tmp_path / "new", Watch(), device=str(profile))


@pytest.mark.slow
def test_a_head_is_distilled_against_the_logits(refusing: tuple[Any, Watch], place: Path) -> None:
    """Its stored metrics against an independent computation from the stored graph."""
    import numpy as np
    import onnxruntime as ort

    from hwnas.compress.data import load_data

    data = load_data("digits")
    library = Library(place / "run/library")
    (entry,) = (e for e in library.entries() if e.candidate.part_name == "head")
    graph = library.onnx(entry)
    library.close()
    assert entry.metrics is not None

    def run(content: bytes, x: np.ndarray) -> np.ndarray:
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        rows = [session.run(None, {session.get_inputs()[0].name: row[None]})[0] for row in x]
        return np.concatenate(rows)

    from hwnas import load

    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        reference = load("run/reference", allow_code=True)
    assert isinstance(reference, Composed)
    with torch.inference_mode():

        def logits_and_input(pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
            *before, head = reference.children()
            x = nn.Sequential(*before)(data.normalize(pixels))
            return head(x).double().numpy(), x.contiguous().numpy()

        y, x = logits_and_input(data.val.pixels)
        train, _ = logits_and_input(data.train.pixels)
    y_hat = run(graph, x).astype(np.float64)
    expected = (((y - y_hat) ** 2).mean(0) / train.var(0)).mean()
    assert entry.metrics.nsr == pytest.approx(expected, rel=1e-3)
