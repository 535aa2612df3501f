from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from hwnas.errors import NetworkFormError
from hwnas.measurement import Precision
from hwnas.network import Network, Part, export_onnx
from hwnas.precision import to_int8

IMAGES = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Network:
    """Two parts with their calibration images."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    head = nn.Sequential(nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    parts = [
        Part("body", onnx=lambda: export_onnx(body, (1, 3, 16, 16))),
        Part("head", onnx=lambda: export_onnx(head, (1, 8, 12, 12))),
    ]
    return Network("small", parts, IMAGES)


def run(content: bytes) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": image[None]})[0] for image in IMAGES])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.005), ("int8", 0.1)])
def test_a_lower_precision_stays_near(network: Network, precision: Precision, tolerance: float) -> None:
    full, lower = run(network.onnx()), run(network.onnx(precision))
    assert lower.dtype == np.float32
    assert 0 < np.linalg.norm(lower - full) / np.linalg.norm(full) < tolerance
    assert network.onnx(precision) is network.onnx(precision)


def test_the_graph_holds_the_precision(network: Network) -> None:
    half = onnx.load_from_string(network.onnx("fp16"))
    assert {weight.data_type for weight in half.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    operators = [node.op_type for node in onnx.load_from_string(network.onnx("int8")).graph.node]
    assert "QuantizeLinear" in operators
    assert "DequantizeLinear" in operators


def test_symmetric_int8_is_what_tensorrt_takes(network: Network) -> None:
    content = to_int8(network.onnx(), IMAGES, symmetric=True)
    model = onnx.load_from_string(content)
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    points = [weights[node.input[2]] for node in nodes]
    assert len(points) > 4
    assert {str(point.dtype) for point in points} == {"int8"}  # no int32 of a bias
    assert not any(point.any() for point in points)
    full = run(network.onnx())
    assert np.linalg.norm(run(content) - full) / np.linalg.norm(full) < 0.1


def test_a_batch_beyond_the_calibration_images_repeats_them() -> None:
    wide = export_onnx(nn.Sequential(nn.Conv2d(3, 4, 3)), (40, 3, 16, 16))
    operators = [node.op_type for node in onnx.load_from_string(to_int8(wide, IMAGES)).graph.node]
    assert "QuantizeLinear" in operators


def test_int8_without_images_is_refused(network: Network) -> None:
    with pytest.raises(NetworkFormError, match="int8 needs calibration images"):
        Network("small", network.parts).onnx("int8")


def test_a_graph_that_cannot_be_converted_is_explained() -> None:
    broken = Network("broken", [Part("broken", onnx=lambda: b"not a model")], IMAGES)
    with pytest.raises(NetworkFormError, match="could not be converted to fp16"):
        broken.onnx("fp16")
