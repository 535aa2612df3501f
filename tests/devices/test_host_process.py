"""A network in a process of its own: the same results, and faults that are told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from hwnas.devices.base import Handle
from hwnas.devices.host.device import HostDevice
from hwnas.devices.host.process import HostProcess
from hwnas.errors import NetworkFormError, PreparationError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network, Part
from hwnas.testing.contract import DeviceContract


class FreshHost(HostDevice):
    """Every handle is prepared in a process of its own."""

    def prepare_impl(self, network: Network) -> Handle:
        return self.prepare_fresh_impl(network)


def host(kind: type[HostDevice] = HostDevice, **options: int) -> HostDevice:
    return kind(DeviceProfile(name="cpu", device="host", description="x", options={"threads": 1, **options}))


class TestFreshHostContract(DeviceContract):
    def make_device(self) -> HostDevice:
        return host(FreshHost)


def network() -> Network:
    return DeviceContract().make_network()


def test_it_is_another_process_that_is_gone_after_the_release() -> None:
    with host() as device:
        handle = device.prepare(network(), fresh=True)
        process = handle.state._process
        assert process.pid != os.getpid()
        assert device.prepare(network()).placement == handle.placement
        assert len(device.sample(handle, runs=3, seconds=0)) == 3
        assert 10 * 2**20 < handle.metrics["peak_memory_bytes"] < 2**30
        device.release(handle)
        assert process.returncode == 0


def test_a_network_that_does_not_load_is_refused_and_leaves_no_process() -> None:
    with host() as device, pytest.raises(PreparationError, match="cannot run bad on this CPU"):
        device.prepare(Network("bad", [Part("bad", onnx=lambda: b"nonsense")]), fresh=True)


def test_a_process_that_dies_is_told() -> None:
    with host() as device:
        handle = device.prepare(network(), fresh=True)
        os.kill(handle.state._process.pid, signal.SIGKILL)
        handle.state._process.wait()
        with pytest.raises(PreparationError, match="its process ended with exit code -9") as caught:
            device.sample(handle, runs=1, seconds=0)
    assert "memory" in caught.value.fix


def test_what_a_folder_holds_does_not_get_into_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    process = HostProcess()
    try:
        process.load(network().onnx(), 1)
    finally:
        process.end()


def test_a_batch_is_exported_and_counted() -> None:
    with host(batch=3) as device:
        handle = device.prepare(network())
        assert handle.state.session.get_inputs()[0].shape[0] == 3
        assert handle.metrics["batch_size"] == 3
        assert device.fingerprint().runtime.endswith("1 threads, batch 3")
        graph_only = Network("g", [Part("g", onnx=network().onnx)])
        with pytest.raises(NetworkFormError, match="no torch module"):
            device.prepare(graph_only)
        assert device.prepare(network(), fresh=True).metrics["batch_size"] == 3


def test_layers_are_the_operators_with_their_times() -> None:
    with host() as device:
        layers = device.layers(network())
    assert [layer.operator for layer in layers][:1] == ["Conv"]
    assert all(layer.time_ms is not None and layer.time_ms >= 0 for layer in layers)
    assert {layer.unit for layer in layers} == {"CPUExecutionProvider"}


def test_a_network_without_layers_that_runs_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "open",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert isinstance(content, onnx.ModelProto)
    with host() as device, pytest.raises(PreparationError, match="open shape"):
        device.layers(Network("open", [Part("open", onnx=content.SerializeToString)]))
