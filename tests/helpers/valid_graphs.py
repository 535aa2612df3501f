"""Small valid ONNX graphs of many kinds, of which tests make odd ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
IMAGE = [1, 3, 16, 16]
MAP = [1, 8, 16, 16]


def value(name: str, shape: Sequence[int | str] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    numbers = np.random.default_rng(0).standard_normal(shape) * 0.1
    return numpy_helper.from_array(numbers.astype(np.float32), name)


def constant(name: str, number: Any, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(number, dtype=dtype), name)


def node(kind: str, taken: str, given: str, **attributes: Any) -> onnx.NodeProto:
    """A node with its inputs and outputs as words."""
    return helper.make_node(kind, taken.split(), given.split(), **attributes)


def conv(taken: str, given: str, **attributes: Any) -> onnx.NodeProto:
    return node("Conv", taken, given, **{"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], **attributes})


def model(
    nodes: list[onnx.NodeProto],
    taken: Sequence[onnx.ValueInfoProto],
    given: onnx.ValueInfoProto,
    *weights: onnx.TensorProto,
    opset: int = 17,
    ir_version: int = 8,
    **settings: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", list(taken), [given], list(weights))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, **settings)


def convolutions() -> onnx.ModelProto:
    nodes = [
        conv("x k1 b", "a", strides=[2, 2]),
        node("BatchNormalization", "a b b b b", "n"),
        node("Clip", "n zero six", "c"),
        conv("c k2", "d", group=8),
        node("Sigmoid", "d", "s"),
        node("Mul", "d s", "m"),
        conv("m k3", "e", kernel_shape=[1, 1], pads=[0, 0, 0, 0]),
        node("Add", "c e", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f", axis=1),
        node("Gemm", "f w", "y", transB=1, alpha=1.0),
    ]
    weights = [
        weight("k1", 8, 3, 3, 3),
        weight("k2", 8, 1, 3, 3),
        weight("k3", 8, 8, 1, 1),
        weight("w", 5, 8),
    ]
    ones = numpy_helper.from_array(np.ones(8, np.float32), "b")
    limits = constant("zero", 0, np.float32), constant("six", 6, np.float32)
    return model(nodes, [value("x", ["N", 3, 16, 16])], value("y", ["N", 5]), *weights, ones, *limits)


def maps() -> onnx.ModelProto:
    """Pools, pads, resizing, and what puts maps together and takes them apart."""
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=0),
        node("Resize", "a nothing scales", "b", mode="nearest"),
        node("Concat", "x b", "c", axis=1),
        node("Split", "c halves", "d e", axis=1),
        node("Pad", "d pads", "f", mode="constant"),
        node("Slice", "f starts ends axes", "g"),
        node("AveragePool", "e", "h", kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
        node("Sub", "g h", "i"),
        node("ConvTranspose", "i t", "j", strides=[2, 2], kernel_shape=[2, 2]),
        node("Conv", "j u", "q", kernel_shape=[2, 2], strides=[2, 2], dilations=[1, 1]),
        node("DepthToSpace", "q", "z", blocksize=2),
        node("ReduceMean", "z", "y", axes=[2, 3], keepdims=1),
    ]
    known = [
        numpy_helper.from_array(np.zeros(0, np.float32), "nothing"),
        constant("scales", [1, 1, 2, 2], np.float32),
        constant("halves", [3, 3]),
        constant("pads", [0, 0, 1, 1, 0, 0, 1, 1]),
        constant("starts", [1, 1]),
        constant("ends", [17, 17]),
        constant("axes", [2, 3]),
        weight("t", 3, 4, 2, 2),
        weight("u", 8, 4, 2, 2),
    ]
    return model(nodes, [value("x", IMAGE)], value("y", [1, 2, 1, 1]), *known)


def attention() -> onnx.ModelProto:
    """Tokens, with shapes that are computed."""
    nodes = [
        node("LayerNormalization", "x one", "l", axis=-1),
        node("MatMul", "l wq", "q"),
        node("MatMul", "l wk", "k"),
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "batch", axis=0),
        node("Unsqueeze", "batch first", "b"),
        node("Concat", "b heads", "split", axis=0),
        node("Reshape", "q split", "q4"),
        node("Transpose", "q4", "qt", perm=[0, 2, 1, 3]),
        node("Reshape", "k split", "k4"),
        node("Transpose", "k4", "kt", perm=[0, 2, 3, 1]),
        node("MatMul", "qt kt", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Transpose", "k4", "vt", perm=[0, 2, 1, 3]),
        node("MatMul", "p vt", "o"),
        node("Transpose", "o", "ot", perm=[0, 2, 1, 3]),
        node("Reshape", "ot whole", "r"),
        node("Erf", "r", "e"),
        node("Add", "x e", "y"),
    ]
    known = [
        numpy_helper.from_array(np.ones(16, np.float32), "one"),
        weight("wq", 16, 16),
        weight("wk", 16, 16),
        constant("zero", 0),
        constant("first", [0]),
        constant("heads", [10, 2, 8]),
        constant("whole", [0, 10, 16]),
    ]
    return model(nodes, [value("x", [1, 10, 16])], value("y", [1, 10, 16]), *known)


def numbers() -> onnx.ModelProto:
    """Two inputs, one of them indices; where, cast, one-hot, tile, expand."""
    nodes = [
        node("Gather", "table ids", "e"),
        node("Cast", "ids", "f", to=FLOAT),
        node("Greater", "f zero", "mask"),
        node("Where", "mask f zero", "w"),
        node("Unsqueeze", "w last", "u"),
        node("Tile", "u times", "t"),
        node("Add", "e x", "a"),
        node("Mul", "a t", "m"),
        node("ArgMax", "m", "i", axis=-1, keepdims=0),
        node("OneHot", "i depth values", "o"),
        node("ReduceSum", "o", "y", keepdims=1),
    ]
    known = [
        weight("table", 30, 8),
        constant("zero", 0, np.float32),
        constant("last", [2]),
        constant("times", [1, 1, 8]),
        constant("depth", 8),
        constant("values", [0, 1], np.float32),
    ]
    return model(nodes, [value("ids", [1, 6], INT64), value("x", [1, 6, 8])], value("y", [1, 1, 1]), *known)


def loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [conv("v k", "w"), node("Identity", "go", "on")],
        "body",
        [value("i", [], INT64), value("go", [], BOOL), value("v", MAP)],
        [value("on", [], BOOL), value("w", MAP)],
    )
    made = node("Loop", "count yes x", "y", body=body)
    known = [constant("count", 4), constant("yes", True, np.bool_), weight("k", 8, 8, 3, 3)]
    return model([made], [value("x", MAP)], value("y", MAP), *known)


def branch() -> onnx.ModelProto:
    then = helper.make_graph([node("Relu", "x", "p")], "then", [], [value("p", IMAGE)])
    other = helper.make_graph([conv("x k", "q")], "else", [], [value("q", IMAGE)], [weight("k", 3, 3, 3, 3)])
    nodes = [
        node("Size", "x", "m"),
        node("Greater", "m zero", "c"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    return model(nodes, [value("x", IMAGE)], value("y", IMAGE), constant("zero", 0))


def scan() -> onnx.ModelProto:
    row = [1, 16, 16]
    body = helper.make_graph(
        [node("Add", "s r", "t"), node("Tanh", "t", "o")],
        "rows",
        [value("s", row), value("r", row)],
        [value("t", row), value("o", row)],
    )
    settings = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    nodes = [
        node("ReduceSum", "x axis", "start", keepdims=0),
        node("Scan", "start x", "last y", body=body, **settings),
    ]
    return model(nodes, [value("x", IMAGE)], value("y", IMAGE), constant("axis", [1]))


def function() -> onnx.ModelProto:
    swish = helper.make_function(
        "own",
        "Swish1",
        ["a"],
        ["z"],
        [node("Sigmoid", "a", "s"), node("Mul", "a s", "z")],
        [helper.make_opsetid("", 17)],
    )
    nodes = [conv("x k", "c"), node("Swish1", "c", "y", domain="own")]
    return model(nodes, [value("x", IMAGE)], value("y", MAP), weight("k", 8, 3, 3, 3), functions=[swish])


def quantized() -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", "x scale point", "q"),
        node("DequantizeLinear", "q scale point", "d"),
        node("DequantizeLinear", "k scales points", "w", axis=0),
        conv("d w", "y"),
    ]
    known = [
        constant("scale", 0.05, np.float32),
        constant("point", 128, np.uint8),
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int8), "k"),
        constant("scales", [0.1] * 4, np.float32),
        constant("points", [0] * 4, np.int8),
    ]
    return model(nodes, [value("x", IMAGE)], value("y", [1, 4, 16, 16]), *known)


def old() -> onnx.ModelProto:
    """Weights among the inputs, and the first of them."""
    taken = [value("k", [8, 3, 3, 3]), value("x", IMAGE)]
    nodes = [conv("x k", "c"), node("Relu", "c", "y")]
    return model(nodes, taken, value("y", MAP), weight("k", 8, 3, 3, 3), opset=7, ir_version=3)


def endless() -> onnx.NodeProto:
    """A loop whose condition is always true."""
    body = helper.make_graph(
        [node("Identity", "hostile.go", "hostile.on"), node("Add", "hostile.v hostile.i", "hostile.w")],
        "endless",
        [value("hostile.i", [], INT64), value("hostile.go", [], BOOL), value("hostile.v", [], INT64)],
        [value("hostile.on", [], BOOL), value("hostile.w", [], INT64)],
    )
    return helper.make_node("Loop", ["", "hostile.yes", "hostile.1"], ["hostile.r"], body=body)


VALID: dict[str, Callable[[], onnx.ModelProto]] = {
    made.__name__: made
    for made in (
        convolutions,
        maps,
        attention,
        numbers,
        loop,
        branch,
        scan,
        function,
        quantized,
        old,
    )
}
