"""The ONNX front-end on hand-made graphs: every kind of operator becomes what it should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwnas.devices.simulator import Layer, Network, Scheduler, evaluate, load_accelerator, read_onnx
from hwnas.errors import InputError
from hwnas.network import export_onnx


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    weights: Mapping[str, tuple[int, ...]] | None = None,
    constants: dict[str, Sequence[int]] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph from x to y with weights of the given shapes."""
    initializers = [
        numpy_helper.from_array(np.zeros(dims, dtype=np.float32), name)
        for name, dims in (weights or {}).items()
    ] + [numpy_helper.from_array(np.array(v, dtype=np.int64), name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


node = helper.make_node


def only(network: Network) -> Layer:
    (layer,) = network.layers
    return layer


def test_grouped_dilated_strided_convolution() -> None:
    n = node(
        "Conv",
        ["x", "w"],
        ["y"],
        group=4,
        dilations=[2, 2],
        strides=[2, 1],
        pads=[2, 1, 2, 1],
        kernel_shape=[3, 3],
    )
    layer = only(read_onnx(model([n], (1, 16, 20, 10), {"w": (32, 4, 3, 3)})))
    assert (layer.k, layer.c, layer.g, layer.oy, layer.ox, layer.fy, layer.fx) == (8, 4, 4, 10, 8, 3, 3)
    assert (layer.stride_y, layer.stride_x, layer.dilation_y, layer.pads) == (2, 1, 2, (2, 1, 2, 1))
    assert layer.iterations == 32 * 4 * 9 * 10 * 8


def test_depthwise_and_same_padding() -> None:
    n = node("Conv", ["x", "w"], ["y"], group=8, strides=[2, 2], auto_pad="SAME_UPPER", kernel_shape=[3, 3])
    layer = only(read_onnx(model([n], (1, 8, 112, 112), {"w": (8, 1, 3, 3)})))
    assert (layer.k, layer.c, layer.g, layer.pads, layer.oy) == (1, 1, 8, (0, 0, 1, 1), 56)


def test_padding_operators_join_the_convolution() -> None:
    nodes = [
        node("Pad", ["x", "p"], ["a"]),
        node("Conv", ["a", "w"], ["y"], kernel_shape=[3, 3]),
    ]
    layer = only(read_onnx(model(nodes, (1, 3, 8, 8), {"w": (4, 3, 3, 3)}, {"p": [0, 0, 1, 1, 0, 0, 1, 1]})))
    assert (layer.pads, layer.oy, layer.whole_input) == ((1, 1, 1, 1), 8, False)


@pytest.mark.parametrize(
    "gate",
    [
        [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])],
        [node("HardSigmoid", ["a"], ["s"]), node("Mul", ["s", "a"], ["b"])],
        [node("HardSwish", ["a"], ["b"])],
        [node("Relu", ["a"], ["r"]), node("Clip", ["r"], ["b"])],
        [
            node("Div", ["a", "scale"], ["d"]),
            node("Erf", ["d"], ["e"]),
            node("Add", ["e", "scale"], ["f"]),
            node("Mul", ["a", "f"], ["b"]),
        ],
        [node("BatchNormalization", ["a", "bn", "bn", "bn", "bn"], ["b"])],
    ],
)
def test_activations_are_free(gate: list[onnx.NodeProto]) -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), *gate, node("Conv", ["b", "w2"], ["y"])]
    network = read_onnx(
        model(nodes, (1, 3, 8, 8), {"w": (4, 3, 1, 1), "w2": (5, 4, 1, 1), "scale": (1,), "bn": (4,)})
    )
    assert [(layer.kind, layer.inputs) for layer in network.layers] == [("conv", (-1,)), ("conv", (0,))]


def test_squeeze_and_excite() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="body"),
        node("GlobalAveragePool", ["a"], ["p"]),
        node("Conv", ["p", "w1"], ["q"]),
        node("Relu", ["q"], ["r"]),
        node("Conv", ["r", "w2"], ["s"]),
        node("Sigmoid", ["s"], ["t"]),
        node("Mul", ["a", "t"], ["b"]),
        node("Conv", ["b", "w3"], ["y"], name="project"),
    ]
    weights = {"w": (8, 3, 1, 1), "w1": (2, 8, 1, 1), "w2": (8, 2, 1, 1), "w3": (4, 8, 1, 1)}
    network = read_onnx(model(nodes, (1, 3, 16, 16), weights))
    assert [layer.kind for layer in network.layers] == ["conv", "pool", "conv", "conv", "elementwise", "conv"]
    gate = network.layers[4]
    assert gate.inputs == (0, 3)
    assert not gate.whole_input
    result = Scheduler(load_accelerator("meta-prototype-df")).schedule(network)
    assert result.iterations == network.iterations


def test_concat_resize_and_pool() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["p", "", "scales"], ["u"], mode="nearest"),
        node("Concat", ["a", "u", "x"], ["c"], axis=1),
        node("Conv", ["c", "w2"], ["y"]),
    ]
    graph = model(nodes, (1, 3, 8, 8), {"w": (4, 3, 1, 1), "w2": (2, 11, 1, 1)})
    graph.graph.initializer.append(
        numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "scales")
    )
    network = read_onnx(graph)
    assert [layer.kind for layer in network.layers] == ["conv", "pool", "copy", "concat", "concat", "conv"]
    assert network.layers[2].scale_y == 2
    assert network.layers[4].g == 11
    for result in (
        Scheduler(load_accelerator()).schedule(network),
        evaluate(network, load_accelerator(), mode="fully-cached", tile=(8, 4)),
    ):
        assert result.latency_cycles > 0


def test_fully_connected_layers_and_reshapes() -> None:
    nodes = [
        node("GlobalAveragePool", ["x"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w", "b"], ["g"], transB=1),
        node("Relu", ["g"], ["h"]),
        node("MatMul", ["h", "m"], ["y"]),
    ]
    network = read_onnx(model(nodes, (1, 6, 7, 7), {"w": (10, 6), "b": (10,), "m": (10, 3)}))
    assert [(layer.kind, layer.k, layer.c, layer.oy) for layer in network.layers] == [
        ("pool", 1, 1, 1),
        ("matmul", 10, 6, 1),
        ("matmul", 3, 10, 1),
    ]


@pytest.mark.parametrize("batch_first", [True, False])
def test_torch_s_own_attention_is_read(batch_first: bool) -> None:
    """Its export computes shapes by way of an empty slice."""

    class Attending(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = torch.nn.MultiheadAttention(16, 2, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = x.flatten(2).permute((0, 2, 1) if batch_first else (2, 0, 1))
            found: torch.Tensor = self.attend(tokens, tokens, tokens, need_weights=False)[0]
            return found

    content = export_onnx(Attending().eval(), (1, 16, 4, 4))
    products = [layer for layer in read_onnx(content).layers if layer.op in ("MatMul", "Gemm")]
    assert len(products) == 4  # queries, keys and values at once, two products, and the projection


def test_attention() -> None:
    t, d, h = 12, 16, 4
    nodes = [
        node("LayerNormalization", ["x", "g"], ["n"]),
        node("MatMul", ["n", "wq"], ["q0"]),
        node("MatMul", ["n", "wk"], ["k0"]),
        node("MatMul", ["n", "wv"], ["v0"]),
        node("Reshape", ["q0", "heads"], ["q1"]),
        node("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]),
        node("Reshape", ["k0", "heads"], ["k1"]),
        node("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]),
        node("Reshape", ["v0", "heads"], ["v1"]),
        node("Transpose", ["v1"], ["v"], perm=[0, 2, 1, 3]),
        node("MatMul", ["q", "k"], ["s"]),
        node("Softmax", ["s"], ["a"]),
        node("MatMul", ["a", "v"], ["o"]),
        node("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "flat"], ["o2"]),
        node("MatMul", ["o2", "wo"], ["z"]),
        node("Add", ["z", "x"], ["y"]),
    ]
    weights = {"g": (d,), "wq": (d, d), "wk": (d, d), "wv": (d, d), "wo": (d, d)}
    network = read_onnx(model(nodes, (1, t, d), weights, {"heads": [1, t, h, d // h], "flat": [1, t, d]}))
    kinds = [layer.kind for layer in network.layers]
    assert kinds == [
        "copy",
        "matmul",
        "matmul",
        "matmul",
        "matmul",
        "copy",
        "matmul",
        "matmul",
        "elementwise",
    ]
    scores, mixed = network.layers[4], network.layers[6]
    assert (scores.k, scores.c, scores.g, scores.oy, scores.second) == (t, d // h, h, t, 1)
    assert (mixed.k, mixed.c, mixed.g, mixed.oy) == (d // h, t, h, t)
    assert not any(layer.whole_input for layer in network.layers)
    products = sum(layer.iterations for layer in network.layers if layer.kind == "matmul")
    assert products == 4 * t * d * d + 2 * t * t * d
    assert network.weight_bytes == 4 * d * d
    assert Scheduler(load_accelerator()).schedule(network).iterations == network.iterations


def test_decomposed_layer_normalisation_is_one_pass() -> None:
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[2]),
        node("Sub", ["x", "m"], ["c"]),
        node("Mul", ["c", "c"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=[2]),
        node("Sqrt", ["v"], ["s"]),
        node("Div", ["c", "s"], ["n"]),
        node("MatMul", ["n", "w"], ["y"]),
    ]
    network = read_onnx(model(nodes, (1, 9, 8), {"w": (8, 5)}, opset=13))
    assert [layer.kind for layer in network.layers].count("matmul") == 1
    assert all(layer.kind == "copy" for layer in network.layers[:-1])
    assert len(network.layers) <= 3


def test_quantised_graphs_cost_what_they_compute() -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["wq", "s", "z"], ["wd"]),
        node("Conv", ["xd", "wd"], ["a"]),
        node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        node("DequantizeLinear", ["aq", "s", "z"], ["y"]),
    ]
    graph = model(nodes, (1, 3, 8, 8))
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(1), "s"),
            numpy_helper.from_array(np.int8(0), "z"),
            numpy_helper.from_array(np.zeros((4, 3, 1, 1), dtype=np.int8), "wq"),
        ]
    )
    assert only(read_onnx(graph)).kind == "conv"


def test_an_unknown_operator_is_named() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node("NonZero", ["a"], ["y"], name="odd")]
    graph = model(nodes, (1, 3, 8, 8), {"w": (4, 3, 1, 1)})
    with pytest.raises(InputError, match=r"operator NonZero \(odd\)"):
        read_onnx(graph)
    network = read_onnx(graph, allow_unknown=True)
    assert network.charged == ("NonZero",)
    result = Scheduler(load_accelerator()).schedule(network)
    assert result.charged == ("NonZero",)


def test_an_unknown_operator_keeps_its_shape_for_those_behind_it() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("NoSuchOperator", ["a"], ["b"], domain="my.domain"),
        node("Relu", ["b"], ["c"]),
        node("Conv", ["c", "w"], ["y"]),
    ]
    odd = model(nodes, (1, 4, 8, 8), {"w": (4, 4, 1, 1)})
    odd.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(InputError, match="NoSuchOperator"):
        read_onnx(odd)
    network = read_onnx(odd, allow_unknown=True)
    assert [layer.op for layer in network.layers] == ["Conv", "NoSuchOperator", "Conv"]
    assert network.layers[-1].oy == 8
    assert network.charged == ("my.domain::NoSuchOperator",)


@pytest.mark.parametrize("op", ["Sum", "Max"])
def test_every_map_of_a_sum_is_read(op: str) -> None:
    nodes = [node("Conv", ["x", "w"], [name]) for name in "abc"] + [node(op, ["a", "b", "c"], ["y"])]
    network = read_onnx(model(nodes, (1, 4, 8, 8), {"w": (4, 4, 1, 1)}))
    assert [layer.inputs for layer in network.layers[3:]] == [(0, 1), (3, 2)]
    assert Scheduler(load_accelerator()).schedule(network).iterations == network.iterations


def test_a_map_is_added_to_its_own_softmax() -> None:
    """Only what a mean over channels has begun is one pass with what follows."""
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Softmax", ["a"], ["s"], axis=1),
        node("Add", ["a", "s"], ["y"]),
    ]
    network = read_onnx(model(nodes, (1, 4, 8, 8), {"w": (4, 4, 1, 1)}))
    assert [(layer.kind, layer.inputs) for layer in network.layers[1:]] == [
        ("copy", (0,)),
        ("elementwise", (0, 1)),
    ]


def test_one_dimensional_convolution() -> None:
    layer = only(
        read_onnx(model([node("Conv", ["x", "w"], ["y"], pads=[1, 1])], (1, 4, 64), {"w": (8, 4, 3)}))
    )
    assert (layer.k, layer.c, layer.oy, layer.ox, layer.fy, layer.fx) == (8, 4, 64, 1, 3, 1)
    assert not layer.whole_input


@pytest.mark.parametrize(
    "volume",
    [node("Conv", ["x", "w"], ["y"]), node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2, 2])],
    ids=["conv", "pool"],
)
def test_three_dimensional_windows_are_refused(volume: onnx.NodeProto) -> None:
    with pytest.raises(InputError, match="3-dimensional") as refused:
        read_onnx(model([volume], (1, 4, 8, 8, 8), {"w": (4, 4, 3, 3, 3)}))
    assert "checker" not in refused.value.fix  # which passes


@pytest.mark.parametrize(
    ("equation", "result"),
    [("bchw,cd", "bchw,cd->bdhw"), ("...c, cd", "...c,cd->...d"), ("hbcw,cz", "hbcw,cz->bhwz")],
)
def test_an_equation_may_leave_its_result_out(equation: str, result: str) -> None:
    axis = equation.index("c") if "." not in equation else 3
    shape = tuple(5 if i == axis else 1 if i == 0 else 4 for i in range(4))
    first, second = (
        read_onnx(model([node("Einsum", ["x", "w"], ["y"], equation=each)], shape, {"w": (5, 7)}))
        for each in (equation, result)
    )
    assert first == second
    assert first.macs == 5 * 7 * 16


@pytest.mark.parametrize(
    ("equation", "checked"),
    [("bbcd,ce->bde", False), ("bcde,fg->b", False), ("bcde", True), ("bcde,xyz", True)],
)
def test_the_fix_of_an_equation_fits(equation: str, checked: bool) -> None:
    einsum = node("Einsum", ["x", "w"], ["y"], equation=equation)
    graph = model([einsum], (1, 1, 4, 4), {"w": (1, 3)})
    with pytest.raises(InputError) as refused:
        read_onnx(graph)
    assert ("checker" in refused.value.fix) == checked


def test_a_batch_in_the_graph_is_refused() -> None:
    with pytest.raises(InputError, match="batch of 4"):
        read_onnx(model([node("Conv", ["x", "w"], ["y"])], (4, 4, 8, 8), {"w": (4, 4, 1, 1)}))


def test_weights_may_stand_before_the_map() -> None:
    layer = only(read_onnx(model([node("MatMul", ["w", "x"], ["y"])], (1, 8, 16), {"w": (32, 8)})))
    assert layer.iterations == 32 * 8 * 16


@pytest.mark.parametrize("form", ["heads in the shape", "heads in an attribute"])
def test_the_attention_operator_is_two_products_and_a_softmax(form: str) -> None:
    heads, tokens, wide = 2, 16, 8
    shape: tuple[int, ...] = (1, heads, tokens, wide)
    settings = {}
    if form == "heads in an attribute":
        shape, settings = (1, tokens, heads * wide), {"q_num_heads": heads, "kv_num_heads": heads}
    n = node("Attention", ["x", "x", "x"], ["y"], **settings)
    network = read_onnx(model([n], shape, opset=23))
    scores, softmax, weighed = network.layers
    assert scores.iterations == weighed.iterations == heads * tokens * tokens * wide
    assert (softmax.kind, softmax.iterations) == ("copy", heads * tokens * tokens)
    assert scores.second == weighed.second == 1


def test_reshaping_alone_is_a_part_without_layers() -> None:
    assert read_onnx(model([node("Flatten", ["x"], ["y"])], (1, 4, 2, 2))).layers == ()


def test_dynamic_shapes_are_refused() -> None:
    graph = model([node("Conv", ["x", "w"], ["y"])], ("batch", 3, "h", "w_"), {"w": (4, 3, 1, 1)})
    with pytest.raises(InputError, match="static"):
        read_onnx(graph)


def test_two_inputs_are_refused() -> None:
    graph = model([node("Add", ["x", "z"], ["y"])], (1, 3, 8, 8))
    graph.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 8, 8]))
    with pytest.raises(InputError, match="2 inputs"):
        read_onnx(graph)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x08not a model")
    with pytest.raises(InputError, match="cannot be read"):
        read_onnx(path)
