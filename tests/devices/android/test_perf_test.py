"""ONNX Runtime's own program as the runner: the script that drives it, on the adb daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_phone import FakePhone
from onnx import TensorProto, helper

from hwnas.devices.android.device import AndroidDevice
from hwnas.errors import DeviceError, PreparationError
from hwnas.network import Network, Part
from hwnas.testing.contract import DeviceContract


@pytest.fixture
def perf_test(tmp_path: Path) -> str:
    """A program with its name: see there what of it is real."""
    path = tmp_path / "onnxruntime_perf_test"
    stand_in = Path(__file__).with_name("perf_test_stand_in.py").read_text()
    path.write_text(f"#!{sys.executable}\n{stand_in}")
    return str(path)


def unknown_operator() -> bytes:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    nodes = [helper.make_node("NoSuchOperator", ["input"], ["output"], "\\quoted\\", domain="com.microsoft")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "output")]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", ends[:1], ends[1:]), ir_version=8, opset_imports=opsets
    )
    return bytes(model.SerializeToString())


def test_it_gives_samples(perf_test: str, make_device: Callable[..., AndroidDevice]) -> None:
    with make_device(runner=perf_test) as device:
        handle = device.prepare(DeviceContract().make_network())
        assert not handle.placement
        assert handle.metrics["load_ms"] > 0
        assert handle.metrics["peak_memory_bytes"] > 1e6
        assert len(device.sample(handle, runs=7, seconds=0)) == 7
        samples_ms = device.sample(handle, runs=3, seconds=0.02)
        assert len(samples_ms) > 3
        assert sum(samples_ms) >= 20
        assert "(onnxruntime_perf_test)" in device.fingerprint().runtime


def test_it_gives_no_outputs(perf_test: str, make_device: Callable[..., AndroidDevice]) -> None:
    with make_device(runner=perf_test) as device:
        handle = device.prepare(DeviceContract().make_network())
        with pytest.raises(DeviceError, match="hwnas has no outputs of fake-phone"):
            device.outputs(handle, [[np.zeros((1, 3, 16, 16), np.float32)]])


def test_its_reasons_come_back(
    perf_test: str, phone: FakePhone, make_device: Callable[..., AndroidDevice]
) -> None:
    with make_device(runner=perf_test) as device:
        with pytest.raises(PreparationError, match=r'cannot run a "network" .*NoSuchOperator'):
            device.prepare(Network('a "network"', [Part("one", onnx=unknown_operator)]))
        handle = device.prepare(DeviceContract().make_network())
        (phone.storage / "hwnas/work/crash").touch()
        with pytest.raises(PreparationError, match=r"ends the runner .*2 times.*SIGSEGV"):
            device.sample(handle, runs=1, seconds=0)
        (phone.storage / "hwnas/work/crash").unlink()
        assert device.sample(handle, runs=1, seconds=0)


def test_what_it_cannot_be_told_is_refused(perf_test: str, make_device: Callable[..., AndroidDevice]) -> None:
    with pytest.raises(DeviceError, match="takes no plugin"):
        make_device(runner=perf_test, plugin="libep.so")
    with pytest.raises(DeviceError, match="no option with a space"):
        make_device(runner=perf_test, **{"session.a": "b c"})
