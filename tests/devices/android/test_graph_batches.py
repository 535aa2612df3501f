"""A search-sized batch on a phone: shared weights are copied once, and the overhead is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from fake_phone import FakePhone
from torch import nn
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.devices.android.adb import Link
from hwnas.devices.android.device import AndroidDevice
from hwnas.devices.android.weight_files import graph_files
from hwnas.files import write_toml
from hwnas.measurement import DeviceProfile, Measurement
from hwnas.network import Network, Part, export_onnx
from hwnas.profiles.session import Session
from hwnas.profiles.statistics import overhead_of
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import SHORT, DeviceContract

SHAPE = (1, 64, 8, 8)


def part(name: str, kernel: int, seed: int) -> Part:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(64, 64, kernel, padding=kernel // 2), nn.ReLU()).eval()
    return Part(name, onnx=lambda: export_onnx(module, SHAPE))


def networks() -> list[Network]:
    """Every combination of two choices in four places: sixteen networks of 64 KB to 400 KB parts."""
    choices = [[part(f"block{n}", kernel, 10 * n + kernel) for kernel in (3, 5)] for n in range(4)]
    return [
        Network(f"net {index:04b}", [place[index >> n & 1] for n, place in enumerate(choices)])
        for index in range(16)
    ]


def run_files(folder: Path, content: bytes, x: np.ndarray) -> np.ndarray:
    files = graph_files(content)
    for name, data in files.contents.items():
        (folder / name).write_bytes(data)
    session = ort.InferenceSession(folder / files.graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_split_graphs_compute_the_same_and_share_files(tmp_path: Path, precision: Any) -> None:
    first, second = networks()[0], networks()[1]
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    for network in (each.calibrated(np.repeat(x, 2, axis=0)) for each in (first, second)):
        content = network.onnx(precision)
        whole = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        expected = whole.run(None, {"input": x})[0]
        assert np.array_equal(run_files(tmp_path, content, x), expected)
    if precision != "int8":  # a part of 64 × 64 × 9 weights is too small in int8 to be worth a file
        names = [set(graph_files(network.onnx(precision)).contents) for network in (first, second)]
        assert len(names[0] & names[1]) == 3


def test_small_graphs_stay_whole() -> None:
    content = DeviceContract().make_network().onnx()
    files = graph_files(content)
    assert files.contents == {files.graph: content}


@pytest.mark.slow
def test_shared_weights_are_copied_once(
    phone: FakePhone,
    make_device: Callable[..., AndroidDevice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pushed: list[str] = []
    push = Link.push

    def counting(link: Link, content: Any, path: str, mode: int = 0o600, limit_s: float = 300.0) -> None:
        push(link, content, path, mode, limit_s)
        pushed.append(Path(path).name)

    monkeypatch.setattr(Link, "push", counting)
    batch = networks()
    with (
        MeasurementStore(tmp_path / "measurements.db") as store,
        Session(make_device(), SHORT, store, anchor=batch[0]) as session,
    ):
        results = [result for _, result in session.measure(batch)]
    assert all(isinstance(result, Measurement) for result in results), results
    weights = [name for name in pushed if name.endswith(".bin.part")]
    assert len(weights) == len(set(weights)) == 8  # two choices in four places
    assert len([name for name in pushed if name.endswith(".onnx.part")]) == 16
    assert "s a network" in overhead_of(results)


def test_outputs_on_the_phone_are_those_of_onnxruntime(
    phone: FakePhone, make_device: Callable[..., AndroidDevice]
) -> None:
    network = DeviceContract().make_network()
    x = np.array(list(_congruential(int(np.prod(network.input_shape)))), np.float32)
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": x.reshape(network.input_shape)})[0].ravel()
    with make_device() as device:
        device.prepare(network)
        found = device._runner.load(9, graph_files(network.onnx()).graph, 30)
    assert np.allclose(found["outputs"], expected, rtol=1e-5, atol=1e-6)
    assert found["peak_memory_bytes"] > 0


def _congruential(count: int) -> Any:
    """The runner's input."""
    state = 1
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        yield (state >> 8) / 2**23 - 1


def test_profile_prints_the_overhead_and_keeps_it(
    phone: FakePhone,
    make_profile: Callable[..., DeviceProfile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    profile, model = Path("mine.toml"), Path("small.onnx")
    options = dict(make_profile().options)
    write_toml(profile, {"name": "mine", "device": "android", "description": "mine", "options": options})
    onnx.save(onnx.load_model_from_string(DeviceContract().make_network().onnx()), model)
    told = CliRunner().invoke(app, ["profile", str(model), "--device", str(profile), "--protocol", "quick"])
    assert told.exit_code == 0, told.output
    assert "CPUExecutionProvider" in told.stdout
    assert "overhead beyond measuring" in told.stderr
