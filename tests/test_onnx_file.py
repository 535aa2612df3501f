"""ONNX files that users give: what is no model is told by what it is, and no open size is guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas import onnx_sizes
from hwnas.errors import HwnasError, InputError, NetworkFormError
from hwnas.network import Network
from hwnas.onnx_file import has_external_data, operators_of
from hwnas.processes import usable_memory_bytes

FLOAT = TensorProto.FLOAT
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 13964571\n"


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def relu(*inputs: onnx.ValueInfoProto, **settings: Any) -> onnx.ModelProto:
    """The sum of inputs, or of one its positive part."""
    names = [info.name for info in inputs]
    node = helper.make_node("Relu" if len(names) == 1 else "Sum", names, ["y"])
    graph = helper.make_graph([node], "g", list(inputs), [value("y", None)], **settings)
    graph.output[0].CopyFrom(inputs[0] if inputs else value("y", [1]))
    graph.output[0].name = "y"
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def shapes(network: Network) -> list[list[int]]:
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    return [info.shape for info in session.get_inputs()]


@pytest.mark.parametrize(
    ("content", "cause", "fix"),
    [
        (b"", "it is empty", "export"),
        (POINTER, "Git LFS pointer", "git lfs pull --include 'net.onnx'"),
        (b"\n <!DOCTYPE html><html><body>Not Found</body></html>", "a page of HTML", "download"),
        (b"PK\x03\x04" + b"x" * 40, "a zip archive", "export"),
        (b"\x1f\x8b" + b"x" * 40, "a gzip archive", "export"),
        (b"nonsense", "is no ONNX file", "export"),
        (b"\x08\x08", "no graph", "export"),
    ],
)
def test_what_is_no_model_is_told_by_what_it_is(tmp_path: Path, content: bytes, cause: str, fix: str) -> None:
    with pytest.raises(InputError, match=r"net\.onnx is not a usable ONNX model") as refusal:
        Network.from_onnx(saved(tmp_path, content))
    assert cause in refusal.value.cause
    assert fix in refusal.value.fix


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "endless.onnx").symlink_to("/dev/zero")
    for name in ("folder.onnx", "endless.onnx"):
        with pytest.raises(InputError, match="it is no file"):
            Network.from_onnx(tmp_path / name)


def test_files_over_two_gigabytes_are_told_with_the_limit_and_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path, b"")
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(InputError, match=r"3\.2 GB.*protobuf.*at most 2 GB") as refusal:
        Network.from_onnx(path)
    assert "save_as_external_data" in refusal.value.fix


def test_strings_that_are_no_text_are_refused(tmp_path: Path) -> None:
    model = relu(value("x", [1, 3]))
    model.graph.node[0].name = "SPOILT"
    with pytest.raises(InputError, match=r"the name b'\\xff\\xfeOILT' in it is no text"):
        Network.from_onnx(saved(tmp_path, model.SerializeToString().replace(b"SP", b"\xff\xfe")))


def external(**entries: str) -> onnx.ModelProto:
    tensor = helper.make_tensor("w", FLOAT, [1, 4], np.ones(4, np.float32).tobytes(), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    model = relu(value("x", [1, 4]), value("w", [1, 4]))
    del model.graph.input[1]
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ({}, "no name of a file"),
        ({"location": "a\0b"}, "no name of a file"),
        ({"location": "absent.bin"}, "'absent.bin', which is not there"),
        ({"location": "folder"}, "'folder', which is not there"),
        ({"location": "a" * 300}, "a name of 300 bytes, which no file has"),
        ({"location": "/".join(["a" * 200] * 25)}, "bytes, which no file has"),
        ({"location": "../w.bin"}, "outside of its folder"),
        ({"location": "/w.bin"}, "outside of its folder"),
        ({"location": "w.bin", "offset": "-4"}, "no numbers"),
        ({"location": "w.bin", "length": "x"}, "no numbers"),
        (
            {"location": "w.bin", "offset": str(10**30), "length": "16"},
            "ends before they do: it has 16 bytes",
        ),
        ({"location": "w.bin", "length": "17"}, "ends before they do: it has 16 bytes"),
        ({"location": "pointer.bin", "length": "16"}, "a Git LFS pointer"),
        ({"location": "large.bin", "length": str(3 * 2**30)}, "with its weights it has 3.2 GB"),
    ],
)
def test_weights_in_other_files_that_cannot_be_had(
    tmp_path: Path, entries: dict[str, str], cause: str
) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "pointer.bin").write_bytes(POINTER)
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(InputError, match=r"net\.onnx is not a usable ONNX model") as refusal:
        Network.from_onnx(saved(tmp_path, external(**entries)))
    assert cause in refusal.value.cause
    assert refusal.value.fix
    assert shapes(Network.from_onnx(saved(tmp_path, external(location="w.bin"))))


def test_open_sizes_are_those_that_the_user_says(tmp_path: Path) -> None:
    path = saved(tmp_path, relu(value("x", ["N", 3, "H", "W"])))
    network = Network.from_onnx(path, (3, 48, 64))
    assert (network.input_shape, network.batch_size) == ((1, 3, 48, 64), 1)
    assert shapes(network.batched(5)) == [[5, 3, 48, 64]]
    assert network.batched(5).batch_size == 5
    assert network.batched(1) is network
    whole = Network.from_onnx(path, (2, 3, 48, 64))
    assert shapes(whole) == [[2, 3, 48, 64]]
    with pytest.raises(
        NetworkFormError, match=r"cannot take a batch of 4: its file fixes .*\(2, 3, 48, 64\)"
    ):
        whole.batched(4)


@pytest.mark.parametrize(
    ("shape", "asked", "cause", "fix"),
    [
        (
            [1, 3, 32, 32],
            (3, 64, 64),
            "axis 2 of input 'x' is fixed to 32, and --input-shape says 64",
            "32x32",
        ),
        ([1, 3, 32, 32], (32, 32), "has 2 sizes", "all sizes"),
        (["N", 3, "H", "W"], (1, 32, 32), "axis 1 of input 'x' is fixed to 3", "Nx3xHxW"),
        (["N", 3, "H", "W"], None, "axis 0 (N), axis 2 (H), axis 3 (W) of input 'x' are open", "3xNxN"),
        (["seq", 1, 64], None, "axis 0 (seq) of input 'x' is open", "--batch 1"),
        (["seq", 1, 64], (1, 64), "axis 0 (seq) of input 'x' is open", "Nx1x64"),
        (["sequence", 8, 4, 64], None, "axis 0 (sequence) of input 'x' is open", "Nx8x4x64"),
        (["T", 8, 4, 64], None, "axis 0 (T) of input 'x' is open", "Nx8x4x64"),
        ([None, 128], None, "axis 0 of input 'x' is open", "Nx128"),
        ([1, None, 64], None, "axis 1 of input 'x' is open", "1xNx64"),
        ([None], None, "axis 0 of input 'x' is open", "--input-shape N"),
        ([1, 0, 64], None, "axis 1 of input 'x' has the size 0", "1 or more"),
        ([1, -7, 64], None, "axis 1 of input 'x' has the size -7", "1 or more"),
        (None, None, "input 'x' has no shape", "--input-shape"),
    ],
)
def test_sizes_that_are_open_or_others_are_told(
    tmp_path: Path, shape: list[int | str | None] | None, asked: tuple[int, ...] | None, cause: str, fix: str
) -> None:
    with pytest.raises(InputError) as refusal:
        Network.from_onnx(saved(tmp_path, relu(value("x", shape))), asked)
    assert cause in refusal.value.cause
    assert fix in refusal.value.fix


@pytest.mark.parametrize("first", ["N", "batch", -1, None])
def test_the_open_first_axis_of_images_alone_becomes_one(tmp_path: Path, first: str | int | None) -> None:
    network = Network.from_onnx(saved(tmp_path, relu(value("x", [first, 3, 8, 8]))))
    assert (shapes(network), network.batch_size) == ([[1, 3, 8, 8]], 1)
    assert shapes(network.batched(3)) == [[3, 3, 8, 8]]


def test_who_gives_a_batch_says_that_the_first_axis_is_one(tmp_path: Path) -> None:
    path = saved(tmp_path, relu(value("x", ["seq", 1, 64])))
    network = Network.from_onnx(path, has_batch=True).batched(128)
    assert (shapes(network), network.batch_size) == ([[128, 1, 64]], 128)
    whole = Network.from_onnx(path, (128, 1, 64))
    assert (shapes(whole), whole.batch_size) == ([[128, 1, 64]], 1)


def test_an_input_without_a_shape_gets_the_whole_one(tmp_path: Path) -> None:
    assert shapes(Network.from_onnx(saved(tmp_path, relu(value("x", None))), (2, 5))) == [[2, 5]]


def test_axes_of_one_name_have_one_size(tmp_path: Path) -> None:
    inputs = value("ids", ["B", "S"]), value("mask", ["B", "S"]), value("bias", [1, 1])
    path = saved(tmp_path, relu(*inputs))
    assert shapes(Network.from_onnx(path, (1, 16))) == [[1, 16], [1, 16], [1, 1]]
    assert shapes(Network.from_onnx(path, (16,), has_batch=True).batched(4)) == [[4, 16], [4, 16], [1, 1]]
    with pytest.raises(InputError, match=r"axis 0 \(B\) of input 'ids' is open"):
        Network.from_onnx(path, (16,))
    inputs = value("image", ["N", 3, 8, 8]), value("scale", ["N", 1, 1, 1]), value("other", [1])
    images = Network.from_onnx(saved(tmp_path, relu(*inputs)))
    assert shapes(images.batched(2)) == [[2, 3, 8, 8], [2, 1, 1, 1], [1]]
    with pytest.raises(InputError, match="no input is 7x7"):
        Network.from_onnx(saved(tmp_path, relu(value("a", [1, 3]), value("b", [1, 3]))), (7, 7))


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = relu(value("w", [1, 3, 8, 8]), value("x", ["N", 3, 8, 8]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "w"))
    network = Network.from_onnx(saved(tmp_path, model))
    assert network.input_shape == (1, 3, 8, 8)
    assert shapes(network.batched(2)) == [[2, 3, 8, 8]]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_network_without_an_input_is_refused(tmp_path: Path, kept: int) -> None:
    model = relu(value("x", [1, 3]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3), np.float32), "x"))
    del model.graph.input[kept:]
    with pytest.raises(InputError, match="has no input") as refusal:
        Network.from_onnx(saved(tmp_path, model))
    assert refusal.value.fix


def odd_inputs() -> dict[str, onnx.ValueInfoProto]:
    tensor = helper.make_tensor_type_proto(FLOAT, [1])
    return {
        "the type sequence": helper.make_tensor_sequence_value_info("x", FLOAT, [1]),
        "the type optional": helper.make_value_info("x", helper.make_optional_type_proto(tensor)),
        "the type map": helper.make_value_info("x", helper.make_map_type_proto(TensorProto.INT64, tensor)),
        "the type sparse_tensor": helper.make_sparse_tensor_value_info("x", FLOAT, [1]),
        "elements of type STRING": value("x", [1], TensorProto.STRING),
        "elements of type UNDEFINED": value("x", [1], 0),
        "elements of type 77": value("x", [1], 77),
        "no type": onnx.ValueInfoProto(name="x"),
    }


@pytest.mark.parametrize("cause", odd_inputs())
def test_inputs_that_are_no_tensors_of_numbers_are_refused(tmp_path: Path, cause: str) -> None:
    with pytest.raises(InputError, match=f"input 'x' has {cause}"):
        Network.from_onnx(saved(tmp_path, relu(odd_inputs()[cause])))


@pytest.mark.parametrize("sizes", [[1, 3, 2**63 - 1, 2**63 - 1], [2**63 - 1, 3, 8, 8], [1, 3, 10**6, 10**6]])
def test_inputs_beyond_memory_are_refused_before_anything_is_allocated(
    tmp_path: Path, sizes: list[int]
) -> None:
    with pytest.raises(NetworkFormError, match=r"the inputs of .* take .* of this machine's memory are free"):
        Network.from_onnx(saved(tmp_path, relu(value("x", sizes))))
    network = Network.from_onnx(saved(tmp_path, relu(value("x", ["N", 3, 8, 8]))))
    with pytest.raises(NetworkFormError, match="take"):
        network.batched(10**12)
    assert shapes(network.batched(2)) == [[2, 3, 8, 8]]


def test_a_torch_networks_batch_has_the_same_bound() -> None:
    import torch

    network = Network.from_module("relu", torch.nn.ReLU(), (1, 3, 8, 8))
    with pytest.raises(NetworkFormError, match="1000000000000 images of relu take"):
        network.batched(10**12)


def test_memory_is_that_of_the_machine_or_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    there = usable_memory_bytes()
    assert 2**26 < there < 2**50
    monkeypatch.setattr(onnx_sizes, "usable_memory_bytes", lambda: 1000)
    onnx_sizes.require_bytes("x", 250)
    with pytest.raises(HwnasError, match=r"x take 0\.0 GiB"):
        onnx_sizes.require_bytes("x", 251)


def nested(change: Callable[[onnx.NodeProto], None] = lambda node: None) -> onnx.ModelProto:
    """A function and a branch within a branch, whose innermost nodes are Sin and Cos."""
    out = value("z", [1])
    inner = helper.make_node("Sin", ["x"], ["z"])
    change(inner)
    branch = helper.make_graph([inner], "b", [], [out])
    middle = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)], "m", [], [out]
    )
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("Cos", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("If", ["c"], ["q"], then_branch=middle, else_branch=middle),
        helper.make_node("F", ["q"], ["y"], domain="own"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", [1]), value("c", [], TensorProto.BOOL)], [value("y", [1])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)


def test_operators_and_files_are_found_in_branches_and_functions() -> None:
    assert operators_of(nested().SerializeToString()) == ("Cos", "F", "If", "Sin")
    assert not has_external_data(nested().SerializeToString())

    def outside(node: onnx.NodeProto) -> None:
        node.attribute.append(helper.make_attribute("v", external(location="w.bin").graph.initializer[0]))

    assert has_external_data(nested(outside).SerializeToString())
    model = nested()
    outside(model.functions[0].node[0])
    assert has_external_data(model.SerializeToString())
