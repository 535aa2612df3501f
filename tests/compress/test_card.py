"""Accuracy in the precision that a device measures in: counted on its graph, told in the model card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import compress_arguments, furnish, make_data, run_hwnas
from torch import nn

from hwnas.compress.emit.emit import _scores_in_precision
from hwnas.compress.training.loop import scores
from hwnas.measurement import Precision
from hwnas.network import Network


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
