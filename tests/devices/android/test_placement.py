"""Proof of placement over the adb daemon, with QNN's HTP simulator in the place of a phone's HTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_phone import FakePhone
from onnx import TensorProto, helper

from hwnas.devices.android.device import AndroidDevice
from hwnas.errors import PreparationError
from hwnas.network import Network, Part
from hwnas.testing.contract import DeviceContract

GALAXY_S23 = {
    "ro.serialno": "R3CW20ABCDE",
    "ro.product.model": "SM-S911B",
    "ro.soc.model": "SM8550",
    "ro.board.platform": "kalama",
    "ro.build.version.sdk": "34",
}


@pytest.fixture
def make_htp(phone: FakePhone, make_device: Callable[..., AndroidDevice]) -> Callable[..., AndroidDevice]:
    qnn = pytest.importorskip("onnxruntime_qnn", reason="pip install 'hwnas[qnn]' brings QNN's simulator")
    phone.set_properties(GALAXY_S23)

    def make(**settings: Any) -> AndroidDevice:
        paths = {"plugin": qnn.get_library_path(), "provider.backend_path": qnn.get_qnn_htp_path()}
        given = {"provider": "qnn", "backend": "htp", "precision": "fp16", **paths, **settings}
        return make_device(**given)

    return make


def mixed() -> Network:
    """A network with an operator that QNN does not have."""
    nodes = [
        helper.make_node("Relu", ["input"], ["hidden"]),
        helper.make_node("Det", ["hidden"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = bytes(model.SerializeToString())
    return Network("mixed", [Part("mixed", onnx=lambda: content)])


def test_every_node_runs_on_htp(make_htp: Callable[..., AndroidDevice]) -> None:
    with make_htp() as device:
        handle = device.prepare(DeviceContract().make_network())
        assert set(handle.placement) == {"QNNExecutionProvider"}
        assert {"Conv", "Relu", "Gemm"} < set(handle.placement["QNNExecutionProvider"])
        assert device.sample(handle, runs=2, seconds=0)
        assert "htp_arch=73" in device.fingerprint().runtime


def test_what_would_fall_back_is_refused(make_htp: Callable[..., AndroidDevice]) -> None:
    with make_htp() as device, pytest.raises(PreparationError, match=r"fallback|CPU"):
        device.prepare(mixed())


def test_an_allowed_fallback_tells_what_ran_where(make_htp: Callable[..., AndroidDevice]) -> None:
    with make_htp(allow_fallback=True) as device:
        handle = device.prepare(mixed())
        assert "Det" in handle.placement["CPUExecutionProvider"]
        assert device.sample(handle, runs=1, seconds=0)
        assert "CPU fallback" in device.fingerprint().runtime
