"""QNN's HTP simulator: right outputs, everything on HTP, and times that nobody may use."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, refused

from hwnas.compress.search.target import target_of
from hwnas.compress.settings import SearchSettings
from hwnas.devices.base import Device
from hwnas.devices.qnn_simulator import QnnSimulatorDevice
from hwnas.errors import DeviceError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.testing.contract import DeviceContract

SETTINGS: dict[str, Any] = {
    "objectives": ("latency",),
    "protocol": "quick",
    "population": 2,
    "generations": 1,
    "finetune_epochs": 1,
    "picks": ("knee",),
    "filter": "macs",
    "filter_threshold": 0.0,
}


def simulator(precision: Any) -> QnnSimulatorDevice:
    pytest.importorskip("onnxruntime_qnn", reason="pip install 'hwnas[qnn]' brings QNN's simulator")
    name = "qnn-htp-simulator" + ("-int8" if precision == "int8" else "")
    device = open_device(load_profile(name))
    assert isinstance(device, QnnSimulatorDevice)
    return device


class TestQnnSimulatorContract(DeviceContract):
    def make_device(self) -> Device:
        return simulator("fp16")


def b0_block(index: int) -> tuple[Network, np.ndarray]:
    """A stage of EfficientNet-B0 with random weights, calibrated, and an input for it."""
    import timm
    import torch

    torch.manual_seed(index)
    model = timm.create_model("efficientnet_b0").eval()
    stem = torch.nn.Sequential(model.conv_stem, model.bn1, *model.blocks[:index])
    with torch.inference_mode():
        images = torch.randn(9, 3, 64, 64)
        inputs = stem(images).numpy()
    network = Network.from_module(f"stage {index}", model.blocks[index], (1, *inputs.shape[1:]))
    network = network.calibrated(inputs[1:])
    return network, inputs[:1]


def outputs(network: Network, x: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": x})[0])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.01), ("int8", 0.1)])
@pytest.mark.parametrize("index", [0, 1, 2, 4])
def test_stages_of_efficientnet_run_on_htp_and_match(index: int, precision: str, tolerance: float) -> None:
    network, x = b0_block(index)
    with simulator(precision) as device:
        handle = device.prepare(network)
        assert set(handle.placement) == {"QNNExecutionProvider"}
        assert sum(handle.placement["QNNExecutionProvider"].values()) > 3
        got = handle.state.session.run(None, {"input": x})[0]
    expected = outputs(network, x)
    error = float(np.sqrt(np.mean((got - expected) ** 2)) / np.std(expected))
    assert error < tolerance, error


@pytest.mark.parametrize("name", ["qnn-htp-simulator", "qnn-htp-simulator-int8"])
def test_search_and_gate_refuse_its_latencies(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeviceError, match=r"a search needs .* are functional"):
        target_of(SearchSettings(device=name, **SETTINGS))
    model = tmp_path / "a.onnx"
    model.write_bytes(DeviceContract().make_network().onnx())
    baseline = tmp_path / "baseline.json"
    record = ("check", "record", str(model), "--device", name, "--out", str(baseline))
    run = ("check", "run", str(model), "--baseline", str(model), "--device", name)
    for command in (record, run):
        refused(Run(capsys, command), f"those of {name} are functional", "hwnas devices")
    assert not baseline.exists()


def test_precisions_that_htp_does_not_have_are_refused() -> None:
    profile = DeviceProfile(name="mine", device="qnn-simulator", description="mine", precision="fp32")
    with pytest.raises(DeviceError, match="HTP has no fp32"):
        QnnSimulatorDevice(profile)


def test_it_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with simulator("fp16") as device:
        samples_ms = device.sample(device.prepare(DeviceContract().make_network()), runs=3, seconds=0)
    assert statistics.median(samples_ms) > 0
    assert capfd.readouterr().out == ""
