"""Accuracy in the precision that a device measures in: counted on its graph, told in the model card."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import compress_arguments, furnish, make_data, run_hwnas
from torch import nn
from workplace import tinynet

from hwnas.compress.emit.emit import _scores_as_measured, _scores_in_precision
from hwnas.compress.library.target import calibration_images
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.training.loop import scores
from hwnas.errors import DeviceError
from hwnas.measurement import Precision
from hwnas.network import Network
from hwnas.networks.architecture import ReferenceSpec
from hwnas.networks.exported import own_network
from hwnas.networks.partition import partition
from hwnas.profiles.catalogue import load_profile


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_is_counted_on_the_graph(classifier: nn.Module, precision: Precision) -> None:
    data = make_data(test=40)
    images = data.normalize(data.train.pixels[:16]).contiguous().numpy()
    network = Network.from_module("classifier", classifier, (1, 3, 32, 32)).calibrated(images)
    with torch.inference_mode():
        expected = scores(classifier, data)
    found = _scores_in_precision(network, data, precision)
    assert found is not None and expected is not None
    assert found.shape == expected.shape
    assert (found == expected).float().mean() > 0.8  # a rounded graph may answer otherwise where it is close


def test_nothing_is_counted_where_there_is_nothing_to_count(classifier: nn.Module) -> None:
    network = Network.from_module("classifier", classifier, (1, 3, 32, 32))
    assert _scores_in_precision(network, make_data(), "fp32") is None
    assert _scores_in_precision(network, make_data(labels=False), "fp16") is None
    assert _scores_in_precision(network, make_data(), "bf16") is None
    assert _scores_in_precision(network, make_data(), "int8") is None  # no images to calibrate it with


@pytest.mark.parametrize("name", ["openvino-1", "mnn-1", "cpu-int8", "cpu-1", "sim-npu", "android-cpu-int8"])
def test_a_runtime_of_this_machine_judges_itself(name: str) -> None:
    """Others are judged by ONNX Runtime; in fp32 that answers as torch does, which is confirmed elsewhere."""
    profile, model = load_profile(name), tinynet.seeded()
    parts = partition(model, (3, 32, 32))
    reference = Reference(
        spec=ReferenceSpec(source="function", name="tinynet:seeded"), parts=parts, data=make_data(test=70)
    )
    module = reference.module()
    network = own_network(parts, "net", calibration_images(reference.data, (3, 32, 32)))
    finished: Any = SimpleNamespace(module=module, network=network, name="net")
    target = SimpleNamespace(profile=profile, cluster="")
    device: Any = SimpleNamespace(run=SimpleNamespace(reference=reference), target=target)
    try:
        runtime, found = _scores_as_measured(device, finished)
    except DeviceError as error:
        assert "pip install" in error.fix
        pytest.skip(error.cause)
    expected = scores(module, reference.data)
    assert expected is not None
    if name == "cpu-1":
        assert (runtime, found) == ("ONNX Runtime on a CPU", None)
        return
    assert found is not None
    assert runtime == {
        "openvino-1": "OpenVINO as measured",
        "mnn-1": "MNN as measured",
        "cpu-int8": "ONNX Runtime as measured",
    }.get(name, "ONNX Runtime on a CPU")
    assert (found == expected).float().mean() > (0.8 if profile.precision == "int8" else 0.99)


@pytest.mark.slow
def test_it_stands_in_the_model_card(tmp_path: Path) -> None:
    furnish(tmp_path)
    steady = tmp_path / "steady.toml"
    steady.write_text(f'{steady.read_text()}precision = "int8"\n')
    told = run_hwnas(tmp_path, *compress_arguments("out"))
    assert told.returncode == 0, told.stderr
    checkpoint = tmp_path / "out/checkpoints/steady-knee"
    summary = json.loads((checkpoint / "measurement.json").read_text())["summary"]
    assert 0 <= summary["accuracy_in_precision"]["value"] <= 1
    card = (checkpoint / "README.md").read_text()
    assert "- Accuracy in int8, by ONNX Runtime on a CPU: " in card
    assert "- Measured in int8; `model.onnx` and each accuracy above are in fp32." in card
