from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn

from hwnas.errors import InputError, NetworkFormError
from hwnas.network import Network, Part, export_onnx

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 2, 1)
        self.expand = nn.Conv2d(2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.expand(nn.functional.silu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x.mul(torch.sigmoid(gate))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            SqueezeExcite(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add(self.body(x))


def make_part(name: str, module: nn.Module, input_shape: Sequence[int]) -> Part:
    module.eval()
    return Part(name, onnx=lambda: export_onnx(module, input_shape), module=lambda: module)


def make_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return Network(
        "small",
        [
            make_part("stem", nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Hardswish()), (1, 3, 16, 16)),
            make_part("block1", Residual(8), (1, 8, 7, 7)),
            make_part("block2", Residual(8), (1, 8, 7, 7)),
            make_part("block3", nn.Identity(), (1, 8, 7, 7)),
            make_part("head", head, (1, 8, 7, 7)),
        ],
    )


def run(content: bytes) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": IMAGE})[0])


def save(folder: Path, input_shape: Sequence[int | str], **settings: object) -> Path:
    weights = helper.make_tensor(
        "w", TensorProto.FLOAT, [4, 3, 1, 1], np.ones(12, np.float32).tobytes(), raw=True
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [input_shape[0], 4, *input_shape[2:]])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, folder / "conv.onnx", **settings)
    return folder / "conv.onnx"


def test_the_stitched_graph_is_the_torch_network() -> None:
    network = make_network()
    onnx.checker.check_model(onnx.load_from_string(network.onnx()), full_check=True)
    with torch.no_grad():
        whole = network.module()(torch.from_numpy(IMAGE)).numpy()
        step = torch.from_numpy(IMAGE)
        for part in network.parts:
            step = part.module()(step)
    assert np.abs(step.numpy() - whole).max() < 1e-6
    assert np.abs(run(network.onnx()) - whole).max() < 1e-4


def test_the_stitched_graph_is_a_fresh_export() -> None:
    network = make_network()
    assert np.abs(run(network.onnx()) - run(export_onnx(network.module(), IMAGE.shape))).max() < 1e-5


@settings(max_examples=10)
@given(st.permutations(range(1, 4)))
def test_parts_join_in_any_order_and_one_part_twice(order: list[int]) -> None:
    parts = make_network().parts
    network = Network("mixed", [parts[0], *(parts[index] for index in order), parts[1], parts[-1]])
    with torch.no_grad():
        expected = nn.Sequential(*(part.module() for part in network.parts))(torch.from_numpy(IMAGE))
    assert np.abs(run(network.onnx()) - expected.numpy()).max() < 1e-4


def test_names_in_subgraphs_are_kept_apart() -> None:
    branches = [
        helper.make_graph(
            [helper.make_node(operator, ["x", "k"], ["z"])],
            operator,
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 16, 16])],
        )
        for operator in ("Add", "Sub")
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])],
        "branching",
        [value("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [value("y", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True]), helper.make_tensor("k", 1, [1], [2.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    part = Part("branching", onnx=model.SerializeToString)
    network = Network("twice", [part, part])
    onnx.checker.check_model(onnx.load_from_string(network.onnx()), full_check=True)
    assert np.abs(run(network.onnx()) - (IMAGE + 4)).max() < 1e-6


def test_a_part_with_two_inputs_cannot_be_stitched() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "add", values[:2], values[2:])
    part = Part("add", onnx=helper.make_model(graph).SerializeToString)
    with pytest.raises(NetworkFormError, match="2 inputs and 1 outputs"):
        Network("two", [part, part]).onnx()


def test_the_hash_is_that_of_structure_and_weights() -> None:
    assert make_network().hash == make_network().hash
    assert make_network(seed=1).hash != make_network().hash
    parts = make_network().parts
    assert Network("other name", parts).hash == make_network().hash
    assert Network("small", [parts[0], parts[2], parts[1], *parts[3:]]).hash != make_network().hash


@pytest.mark.slow
def test_the_hash_is_the_same_in_another_process() -> None:
    code = "import test_network; print(test_network.make_network().hash)"
    folder = Path(__file__).parent
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == [make_network().hash]


def test_a_network_of_one_module() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3)
    network = Network.from_module("conv", module, (1, 3, 16, 16))
    with torch.no_grad():
        expected = network.module()(torch.from_numpy(IMAGE)).numpy()
    assert np.abs(run(network.onnx()) - expected).max() < 1e-4
    assert network.parts[0].module() is not module


def test_a_module_that_cannot_be_exported_is_explained() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.real(torch.linalg.eigvals(x))

    with pytest.raises(NetworkFormError, match="Strange cannot be exported to ONNX"):
        Network.from_module("strange", Strange(), (1, 3, 16, 16)).onnx()


def test_an_onnx_file_is_a_network_without_torch(tmp_path: Path) -> None:
    network = Network.from_onnx(save(tmp_path, [1, 3, 8, 8]))
    assert network.name == "conv"
    assert len(network.hash) == 64
    with pytest.raises(NetworkFormError, match="no torch module"):
        network.module()


def test_an_open_batch_becomes_one(tmp_path: Path) -> None:
    model = onnx.load_from_string(Network.from_onnx(save(tmp_path, ["N", 3, 8, 8])).onnx())
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_an_open_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"axis 0 \(N\), axis 2 \(H\) of input 'x' are open"):
        Network.from_onnx(save(tmp_path, ["N", 3, "H", 8]))


def test_external_data_is_read_into_the_network(tmp_path: Path) -> None:
    external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    path = save(tmp_path, [1, 3, 8, 8], **external)
    network = Network.from_onnx(path)
    (tmp_path / "weights.bin").unlink()
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
    assert (output == 3).all()
    with pytest.raises(InputError, match=r"not a usable ONNX model: .*weights\.bin"):
        Network.from_onnx(path)


def test_external_data_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    path = save(tmp_path, [1, 3, 8, 8], **external)
    folder = tmp_path / "inner"
    folder.mkdir()
    model = onnx.load_model(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    (folder / "conv.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"not a usable ONNX model: .*\.\./weights\.bin"):
        Network.from_onnx(folder / "conv.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"corrupt\.onnx is not a usable ONNX model"):
        Network.from_onnx(path)


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, [1, 3, 8, 8])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"conv\.onnx is not a usable ONNX model"):
        Network.from_onnx(path)
    with pytest.raises(InputError, match="cannot read"):
        Network.from_onnx(tmp_path / "absent.onnx")


def test_bf16_has_no_onnx_form() -> None:
    network = Network.from_module("small", nn.Conv2d(3, 4, 3), (1, 3, 8, 8))
    with pytest.raises(NetworkFormError, match="no ONNX form in bf16") as refusal:
        network.onnx("bf16")
    assert "torch runtime" in refusal.value.fix


def test_another_batch_is_another_export() -> None:
    network = Network.from_module("small", nn.Conv2d(3, 4, 3), (1, 3, 8, 8))
    batched = network.batched(5)
    assert (network.input_shape, batched.input_shape) == ((1, 3, 8, 8), (5, 3, 8, 8))
    assert batched.hash != network.hash
    assert network.batched(1) is network
    with pytest.raises(NetworkFormError, match="no torch module"):
        Network("file", [Part("file", onnx=network.onnx)]).batched(5)


def test_the_same_part_twice_is_two_parts() -> None:
    """As on another machine, which knows parts by their content."""
    part = Part("twin", onnx=lambda: b"", module=lambda: torch.nn.Linear(3, 3))
    module = Network("twins", [part, part]).module()
    assert len(list(module.children())) == 2
    assert module(torch.ones(1, 3)).shape == (1, 3)
