"""Runtimes of this machine beside ONNX Runtime: they measure, and what they compute is what it computes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from child_processes import status, wait_for
from command_line import Run, refused
from onnx import TensorProto, helper
from torch import Tensor, nn

from hwnas.devices.base import Device
from hwnas.devices.host import cpu
from hwnas.devices.host.converted import require_same
from hwnas.devices.host.cpu import CpuDevice
from hwnas.devices.registry import device_class
from hwnas.errors import DeadlineError, DeviceError, PreparationError
from hwnas.measurement import DeviceProfile, Measurement
from hwnas.network import Network, Part
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.protocols import QUICK
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import DeviceContract

RUNTIMES = ["openvino", "mnn", "ncnn"]
INT8 = ["openvino-int8"]
every_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


def make(runtime: str, precision: Any = "fp32", **options: Any) -> CpuDevice:
    """A device with one thread; its test is skipped where the runtime is not installed."""
    profile = DeviceProfile(
        name=runtime, device=runtime, description="x", precision=precision, options={"threads": 1, **options}
    )
    device = device_class(runtime)(profile)
    assert isinstance(device, CpuDevice)
    for name in device.distributions:
        try:
            version(name)
        except PackageNotFoundError:
            pytest.skip(f"pip install 'hwnas[{device.extra}]' brings {name}")
    return device


class TestOpenVinoContract(DeviceContract):
    def make_device(self) -> Device:
        return make("openvino")


class TestMnnContract(DeviceContract):
    def make_device(self) -> Device:
        return make("mnn")


class TestNcnnContract(DeviceContract):
    def make_device(self) -> Device:
        return make("ncnn")


class Branches(nn.Module):
    """What networks of images are made of: groups, gates, a concatenation, attention, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, 1, 2, groups=16), nn.ReLU6())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = x + self.gate(x) * self.depthwise(x)
        both = torch.cat([x, torch.nn.functional.gelu(x)], 1)
        tokens = self.norm(both.flatten(2).transpose(1, 2))
        mixed = torch.softmax(tokens @ tokens.transpose(1, 2) / 32, -1) @ tokens
        return self.head(mixed.mean(1)), nn.functional.interpolate(both, scale_factor=2.0)


def of_module(module: nn.Module, size: int = 32) -> Network:
    return Network.from_module("net", module, (1, 3, size, size))


def timm_network(name: str) -> Network:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return of_module(timm.create_model(name), 64)


def convolutions(size: int = 64) -> Network:
    """Eight of them, and a linear layer, which some runtimes compute as a ninth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = [3, *8 * [32]]
        layers = [
            layer
            for entering, leaving in itertools.pairwise(widths)
            for layer in (nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU())
        ]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
        return of_module(nn.Sequential(*layers, *head), size)


def expected(network: Network, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"input": x}))


def image(size: int = 32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal((1, 3, size, size)).astype(np.float32)


@every_runtime
@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_050",
        pytest.param("resnet10t", marks=pytest.mark.slow),
        pytest.param("convnext_atto", marks=pytest.mark.slow),
    ],
)
def test_its_outputs_are_those_of_onnx_runtime(runtime: str, name: str) -> None:
    network, x = timm_network(name), image(64)
    with make(runtime) as device:
        handle = device.prepare(network)
        ((found,),) = device.outputs(handle, [[x]])
        assert device.sample(handle, runs=2, seconds=0)
        ((again,),) = device.outputs(handle, [[x]])  # what is timed does not disturb what is computed
    (wanted,) = expected(network, x)
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert np.array_equal(found, again)


def test_mnn_is_timed_on_its_input_and_not_on_what_it_leaves_there() -> None:
    """MNN lays results over its inputs: runs that follow one another would soon be on NaN or denormals."""
    make("mnn")
    from hwnas.devices.host import mnn

    network = timm_network("mobilenetv3_small_050")
    loaded = mnn.load_network(network.onnx(), {"threads": 1})
    assert isinstance(loaded, mnn._Network)
    (first,) = loaded.last_outputs()
    for _ in range(5):
        loaded.run()
        assert np.array_equal(loaded.last_outputs()[0], first)


@every_runtime
def test_every_output_in_its_place_and_shape(runtime: str) -> None:
    torch.manual_seed(0)
    network = of_module(Branches())
    with make(runtime) as device:
        (found,) = device.outputs(device.prepare(network), [[image()]])
    wanted = expected(network, image())
    assert [output.shape for output in found] == [output.shape for output in wanted]
    for given, right in zip(found, wanted, strict=True):
        assert np.abs(given - right).max() < 1e-3 * np.abs(right).max()


@pytest.mark.parametrize("name", INT8)
def test_int8_computes_in_int8_and_stays_near(name: str) -> None:
    network = convolutions().calibrated(
        np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)
    )
    with make(name.removesuffix("-int8"), "int8") as device:
        ((found,),) = device.outputs(device.prepare(network), [[image(64)]])
        layers = device.layers(network)
    (wanted,) = expected(network, image(64))
    assert 0 < np.sqrt(np.mean((found - wanted) ** 2)) < 0.2 * wanted.std()
    units = [layer.unit for layer in layers if layer.operator.startswith("Conv")]
    assert len(units) == 8
    assert all("I8" in unit for unit in units)


@every_runtime
def test_the_operators_times_add_up_to_a_run(runtime: str) -> None:
    network = convolutions()
    with make(runtime) as device:
        layers = device.layers(network)
        samples_ms = device.sample(device.prepare(network), runs=30, seconds=0)
    assert sum(layer.operator.startswith("Conv") for layer in layers) in (8, 9)
    total_ms = sum(layer.time_ms or 0.0 for layer in layers)
    assert 0.3 * min(samples_ms) < total_ms < 3 * max(samples_ms)


@every_runtime
def test_placement_counts_the_operators(runtime: str) -> None:
    with make(runtime) as device:
        (kinds,) = device.prepare(convolutions()).placement.values()
    assert sum(count for kind, count in kinds.items() if kind.startswith("Conv")) in (8, 9)


@pytest.mark.parametrize("runtime", ["openvino", "mnn"])
def test_a_batch_is_run_as_one(runtime: str) -> None:
    network = DeviceContract().make_network()
    with make(runtime, batch=3) as device:
        handle = device.prepare(network)
        assert handle.metrics["batch_size"] == 3
        x = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
        ((found,),) = device.outputs(handle, [[x]])
    singly = [expected(network, x[n : n + 1])[0] for n in range(3)]
    assert np.abs(found - np.concatenate(singly)).max() < 1e-4


def test_ncnn_runs_one_image_at_a_time() -> None:
    with make("ncnn", batch=2) as device, pytest.raises(PreparationError, match="one image at a time"):
        device.prepare(DeviceContract().make_network())


@pytest.mark.parametrize("runtime", ["mnn", "ncnn"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_precision_that_it_does_not_have_is_refused(runtime: str, precision: str) -> None:
    with pytest.raises(DeviceError, match=f"has no {precision} here"):
        make(runtime, precision)


@pytest.mark.parametrize("runtime", ["mnn", "ncnn"])
def test_a_conversion_that_computes_something_else_is_refused(runtime: str) -> None:
    """Cast to integers and back: it is computed rightly or refused, since what is wrong has no latency."""
    nodes = [
        helper.make_node("Cast", ["input"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["output"], to=TensorProto.FLOAT),
    ]
    shape = [1, 3, 16, 16]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "casts", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = Network("casts", [Part("casts", onnx=model.SerializeToString)])
    x = 3 * image(16)
    with make(runtime) as device:
        try:
            ((found,),) = device.outputs(device.prepare(network), [[x]])
        except PreparationError as refusal:
            assert device.runtime_name in refusal.cause
        else:
            assert np.array_equal(found, np.trunc(x))


def test_a_difference_of_outputs_is_found() -> None:
    network, x = DeviceContract().make_network(), image(16)
    right = expected(network, x)
    require_same(network.onnx(), [x], right)
    for wrong in ([right[0] * 1.02], [right[0][:, :3]], [np.full_like(right[0], np.nan)]):
        with pytest.raises(ValueError, match=r"something else|the shape"):
            require_same(network.onnx(), [x], wrong)


@every_runtime
def test_it_reports_to_nobody_and_installs_nothing(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO reports its import and keeps an identity at home; MNN's tools install and call their cloud.

    What ONNX Runtime keeps there is its own, and not of the runtime that is compared with it.
    """
    called, person = tmp_path / "called", tmp_path / "person"
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f"#!/bin/sh\ntouch {called}\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pip.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(person))
    person.mkdir()
    with make(runtime) as device:
        assert device.sample(device.prepare(DeviceContract().make_network()), runs=1, seconds=0)
    assert not called.exists()
    kept = [str(path.relative_to(person)) for path in person.rglob("*") if path.is_file()]
    assert [path for path in kept if ".onnxruntime" not in path] == []


@every_runtime
def test_the_runtime_and_its_version_are_in_the_fingerprint(runtime: str) -> None:
    device = make(runtime)
    known = device.fingerprint()
    assert f"{device.distributions[0]} {version(device.distributions[0])}" in known.runtime
    assert "1 threads" in known.runtime
    host = open_device(load_profile("cpu-1"))
    assert known.id != host.fingerprint().id
    assert host.lock_name == device.lock_name


@every_runtime
def test_a_runtime_that_is_not_installed_is_told_with_its_cure(
    runtime: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = make(runtime)

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cpu, "version", missing)
    with pytest.raises(DeviceError, match=f"needs the package {device.distributions[0]}") as refusal:
        device.__enter__()
    assert refusal.value.fix == f"pip install 'hwnas[{device.extra}]'"
    refused(Run(capsys, ("profile", "resnet18", "--device", runtime)), "not installed", "pip install 'hwnas[")
    told = Run(capsys, ("devices", "doctor", runtime))
    assert told.code == 2
    assert f"do: pip install 'hwnas[{device.extra}]'" in told.out


@every_runtime
def test_an_operator_that_it_does_not_have_is_named(runtime: str) -> None:
    with make(runtime) as device, pytest.raises(PreparationError, match="NoSuchOperator") as refusal:
        device.prepare(DeviceContract().make_broken_network())
    assert device.runtime_name in refusal.value.cause


@every_runtime
def test_an_open_shape_is_refused(runtime: str) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "open", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = Network("open", [Part("open", onnx=model.SerializeToString)])
    with make(runtime) as device, pytest.raises(PreparationError, match="open shape"):
        device.prepare(network)


@every_runtime
def test_nonsense_is_refused_and_a_process_that_dies_is_told(runtime: str) -> None:
    with make(runtime) as device:
        with pytest.raises(PreparationError, match=f"{device.runtime_name} cannot run bad"):
            device.prepare(Network("bad", [Part("bad", onnx=lambda: b"nonsense")]))
        handle = device.prepare(DeviceContract().make_network())
        os.kill(handle.state._process.pid, signal.SIGKILL)
        handle.state._process.wait()
        with pytest.raises(PreparationError, match="its process ended with exit code -9"):
            device.sample(handle, runs=1, seconds=0)


@every_runtime
@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": -1}, {"threads": "two"}, {"deadline_s": 0.0}])
def test_wrong_options_are_named(runtime: str, options: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match=next(iter(options))):
        device_class(runtime)(DeviceProfile(name="x", device=runtime, description="x", options=options))


@pytest.mark.parametrize("target", ["TPU", "GPU,CPU", "", "AUTO", "GPU.x"])
def test_a_target_that_cannot_be_is_refused(target: str) -> None:
    with pytest.raises(DeviceError, match="target is"):
        make("openvino", target=target)


def test_a_target_that_is_not_there_is_told() -> None:
    device = make("openvino", target="gpu.7")
    with pytest.raises(DeviceError, match=r"finds no GPU\.7 here, only .*CPU"):
        device.__enter__()


@pytest.mark.parametrize("name", [*RUNTIMES, *INT8, *(f"{runtime}-1" for runtime in RUNTIMES)])
def test_the_doctor_walks_to_a_tiny_network(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make(load_profile(name).device)
    told = Run(capsys, ("devices", "doctor", name, "--json"))
    assert told.code == 0
    findings = json.loads(told.out)
    assert [finding["step"] for finding in findings] == [
        "profile and options",
        "runtime and device",
        "a tiny network",
        "its outputs",
    ]
    assert not any(finding["fix"] for finding in findings)


@every_runtime
def test_a_session_measures_it_beside_another_network(runtime: str, tmp_path: Any) -> None:
    small, large = DeviceContract().make_network(), convolutions()
    with (
        MeasurementStore(tmp_path / "m.db") as store,
        Session(make(runtime), QUICK, store, anchor=small) as session,
    ):
        results = dict(session.measure([small, large]))
    first, second = (results[network.hash] for network in (small, large))
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert second.latency_ms > 5 * first.latency_ms


@pytest.mark.slow
def test_a_network_that_never_ends_is_ended_at_the_deadline(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")]
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)],
        "endless",
        values[:1],
        values[1:],
        [yes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with make("openvino", deadline_s=8.0) as device:
        with pytest.raises(DeadlineError, match="took longer than 8 s"):
            device.prepare(Network("endless", [Part("endless", onnx=model.SerializeToString)]))
        assert device.sample(device.prepare(DeviceContract().make_network()), runs=1, seconds=0)


CONVERTING = """
import sys
from pathlib import Path
from hwnas.devices.host.converted import run_converter
run_converter(["/bin/sh", "-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 600"], Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_converter_does_not_outlive_the_process_that_runs_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CONVERTING, str(tmp_path)]) as parent:
        wait_for((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        assert "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
        parent.kill()
    wait_for(lambda: not status(pid) or "State:\tZ" in status(pid))
