"""ONNX files that are nearly valid: graphs of many kinds, each with some things changed, by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwnas.onnx_file import graphs_of, nodes_of

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
IMAGE = [1, 3, 16, 16]
MAP = [1, 8, 16, 16]
LARGEST = 2**63 - 1
SIZES = (0, -1, 1, 2, 3, 7, 1000, 2**31 - 1, 2**31, 10**12, LARGEST, -LARGEST - 1)
FLOATS = (0.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "y",
    "nothing",
    "SAME_UPPER",
    "VALID",
    "linear",
    "é" * 3,
    "a" * 5000,
    "../w.bin",
    "a\0b",
    "\n",
)
OPERATORS = tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas()}))


@dataclass
class Case:
    """A file, files beside it, and what a user says of its sizes."""

    content: bytes
    files: dict[str, bytes] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    has_batch: bool = False
    changes: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write them; the path of the ONNX file."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        path = folder / "case.onnx"
        path.write_bytes(self.content)
        return path


def case(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    name = rng.choice(sorted(VALID))
    model = VALID[name]()
    changes = [rng.choice(sorted(CHANGES)) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    made = Case(b"", changes=(name, *changes))
    for change in changes:
        CHANGES[change](rng, model, made.files)
    made.content = model.SerializeToString()
    if rng.random() < 0.1:
        made.content = bytes_changed(rng, made.content)
    if rng.random() < 0.1:
        made.shape = tuple(rng.choice((1, 3, 16, *SIZES[2:])) for _ in range(rng.randrange(1, 5)))
    made.has_batch = rng.random() < 0.2
    return made


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
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m zero", "c"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    return model(nodes, [value("x", IMAGE)], value("y", IMAGE), constant("zero", 0, np.float32))


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

Change = Callable[[random.Random, onnx.ModelProto, dict[str, bytes]], None]


def any_node(rng: random.Random, model: onnx.ModelProto) -> onnx.NodeProto | None:
    nodes = list(nodes_of(model))
    return rng.choice(nodes) if nodes else None


def any_graph(rng: random.Random, model: onnx.ModelProto) -> onnx.GraphProto:
    return rng.choice(list(graphs_of(model)))


def any_tensor(rng: random.Random, model: onnx.ModelProto) -> onnx.TensorProto | None:
    tensors = [tensor for graph in graphs_of(model) for tensor in graph.initializer]
    return rng.choice(tensors) if tensors else None


def attribute(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Another value of the same type."""
    found = any_node(rng, model)
    if found is None or not found.attribute:
        return
    known = rng.choice(list(found.attribute))
    if known.type == onnx.AttributeProto.INT:
        known.i = rng.choice(SIZES)
    elif known.type == onnx.AttributeProto.INTS:
        numbers = list(known.ints)
        how = rng.randrange(4)
        if how == 0 and numbers:
            numbers[rng.randrange(len(numbers))] = rng.choice(SIZES)
        elif how == 1:
            numbers = numbers[: rng.randrange(len(numbers) + 1)]
        elif how == 2:
            numbers += [rng.choice(SIZES)] * rng.randrange(1, 4)
        else:
            numbers = [rng.choice(SIZES) for _ in numbers]
        known.ints[:] = numbers
    elif known.type == onnx.AttributeProto.FLOAT:
        known.f = rng.choice(FLOATS)
    elif known.type == onnx.AttributeProto.STRING:
        known.s = rng.choice((*(text.encode() for text in TEXTS), b"\xff\xfe"))


def attributes(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """One is gone, is there twice, is of another type or name, or is new."""
    found = any_node(rng, model)
    if found is None:
        return
    how = rng.randrange(5)
    if how == 0 and found.attribute:
        del found.attribute[rng.randrange(len(found.attribute))]
    elif how == 1 and found.attribute:
        found.attribute.add().CopyFrom(rng.choice(list(found.attribute)))
    elif how == 2 and found.attribute:
        rng.choice(list(found.attribute)).type = rng.choice(range(15))
    elif how == 3 and found.attribute:
        rng.choice(list(found.attribute)).name = rng.choice(TEXTS)
    else:
        name = rng.choice(("axis", "axes", "kernel_shape", "pads", "strides", "group", "dilations", "new"))
        new = rng.choice((rng.choice(SIZES), [rng.choice(SIZES)], rng.choice(FLOATS), rng.choice(TEXTS)))
        found.attribute.append(helper.make_attribute(name, new))


def sizes(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Shapes of inputs, outputs and values."""
    graph = any_graph(rng, model)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    tensor = rng.choice(values).type.tensor_type
    how = rng.randrange(6)
    if how == 0:
        tensor.ClearField("shape")
    elif how == 1:
        tensor.shape.dim.add(dim_value=rng.choice(SIZES))
    elif tensor.shape.dim:
        place = rng.randrange(len(tensor.shape.dim))
        if how == 2:
            del tensor.shape.dim[place]
        elif how == 3:
            tensor.shape.dim[place].dim_param = rng.choice(("N", "seq", *TEXTS))
        elif how == 4:
            tensor.shape.dim[place].Clear()
        else:
            tensor.shape.dim[place].dim_value = rng.choice(SIZES)


def types(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Kinds of elements, or of whole values."""
    graph = any_graph(rng, model)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    found = rng.choice(values)
    if rng.random() < 0.7:
        found.type.tensor_type.elem_type = rng.choice((*range(28), 99, -1))
        return
    tensor = helper.make_tensor_type_proto(FLOAT, [1])
    other = rng.choice(
        (
            helper.make_sequence_type_proto(tensor),
            helper.make_optional_type_proto(tensor),
            helper.make_map_type_proto(INT64, tensor),
            onnx.TypeProto(),
        )
    )
    found.type.CopyFrom(other)


def weights(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Sizes, kinds and bytes of constants; small integers are shapes, counts and axes."""
    tensor = any_tensor(rng, model)
    if tensor is None:
        return
    how = rng.randrange(7)
    if how == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    elif how == 1:
        tensor.dims.append(rng.choice(SIZES))
    elif how == 2:
        tensor.data_type = rng.choice((*range(28), 99))
    elif how == 3:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif how == 4:
        tensor.ClearField("raw_data")
    elif how == 5:
        tensor.name = rng.choice(TEXTS)
    elif tensor.data_type == INT64 and tensor.raw_data and len(tensor.raw_data) % 8 == 0:
        numbers = np.frombuffer(tensor.raw_data, np.int64).copy()
        numbers[rng.randrange(len(numbers))] = rng.choice(SIZES)
        tensor.raw_data = numbers.tobytes()
    elif tensor.data_type == FLOAT and len(tensor.raw_data) % 4 == 0:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        values[...] = rng.choice(FLOATS)
        tensor.raw_data = values.tobytes()


def names(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Names twice, gone, odd; edges that lead elsewhere."""
    found = any_node(rng, model)
    graph = any_graph(rng, model)
    how = rng.randrange(6)
    every = [name for other in nodes_of(model) for name in (*other.input, *other.output)] or ["x"]
    if how == 0 and found is not None and found.input:
        found.input[rng.randrange(len(found.input))] = rng.choice((*every, *TEXTS))
    elif how == 1 and found is not None and found.output:
        found.output[rng.randrange(len(found.output))] = rng.choice((*every, *TEXTS))
    elif how == 2:
        for other in graph.node:
            other.name = rng.choice(TEXTS)
    elif how == 3 and graph.input:
        rng.choice(list(graph.input)).name = rng.choice((*every, *TEXTS))
    elif how == 4 and graph.output:
        rng.choice(list(graph.output)).name = rng.choice((*every, *TEXTS))
    elif found is not None:
        found.input.append(rng.choice((*every, *TEXTS)))


def operators(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """A node is of another kind or domain, gone, there twice, or at another place."""
    graph = any_graph(rng, model)
    if not graph.node:
        return
    place = rng.randrange(len(graph.node))
    how = rng.randrange(5)
    if how == 0:
        graph.node[place].op_type = rng.choice((*OPERATORS, "", "NoSuchOperator"))
    elif how == 1:
        graph.node[place].domain = rng.choice(("ai.onnx", "com.microsoft", "own", *TEXTS))
    elif how == 2:
        del graph.node[place]
    elif how == 3:
        graph.node.add().CopyFrom(graph.node[place])
    else:
        kept = list(graph.node)
        rng.shuffle(kept)
        copies = [onnx.NodeProto.FromString(other.SerializeToString()) for other in kept]
        del graph.node[:]
        graph.node.extend(copies)


def versions(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    how = rng.randrange(4)
    if how < 3 and not model.opset_import:
        return
    if how == 0:
        model.opset_import[0].version = rng.choice((1, 6, 9, 11, 13, 21, 23, *SIZES))
    elif how == 1:
        model.opset_import[0].domain = rng.choice(("ai.onnx.ml", *TEXTS))
    elif how == 2:
        del model.opset_import[rng.randrange(len(model.opset_import)) :]
    else:
        model.ir_version = rng.choice((3, 4, 7, 10, 13, *SIZES))


def subgraphs(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Ends of inner graphs and functions; functions that call themselves; graphs where none belong."""
    inner = [graph for graph in graphs_of(model) if graph is not model.graph]
    how = rng.randrange(4)
    if model.functions and how < 2:
        known = rng.choice(list(model.functions))
        if how == 0:
            known.node.append(node(known.name, "a", "again", domain=known.domain))
        else:
            del known.output[:]
    elif inner and how == 0:
        del rng.choice(inner).output[0:1]
    elif inner and how == 1:
        del rng.choice(inner).input[0:1]
    elif inner and how == 2:
        rng.choice(inner).ParseFromString(model.graph.SerializeToString())  # a copy of what it is part of
    elif model.graph.node:
        rng.choice(list(model.graph.node)).attribute.append(helper.make_attribute("body", model.graph))


def outside(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """Weights in another file, which is there, or not, or not quite."""
    tensor = any_tensor(rng, model)
    if tensor is None:
        return
    files["w.bin"] = tensor.raw_data
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": "w.bin", "offset": "0", "length": str(length)}
    if rng.random() < 0.7:
        texts = (*TEXTS, *map(str, SIZES), "1.5", "0x10")
        entries[rng.choice(sorted(entries))] = rng.choice(texts)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)


def properties(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """What a model says of itself."""
    key = rng.choice(("shape", "input_shape", "author", *TEXTS))
    model.metadata_props.add(key=key, value=rng.choice((str(rng.choice(SIZES)), "[1, -1, 2**63]", *TEXTS)))
    model.producer_name = rng.choice(TEXTS)
    model.graph.doc_string = rng.choice(TEXTS)


def demands(rng: random.Random, model: onnx.ModelProto, files: dict[str, bytes]) -> None:
    """What never ends, or asks for any memory, at the network's beginning."""
    graph = model.graph
    if not graph.node or not graph.node[0].input:
        return
    size = rng.choice((10**5, 10**9, 10**12, 2**62))
    graph.initializer.extend(
        [constant("hostile.n", [size]), constant("hostile.1", 1), constant("hostile.s", size)]
    )
    how = rng.randrange(4)
    made = {
        0: [node("Range", "hostile.1 hostile.s hostile.1", "hostile.r")],
        1: [node("ConstantOfShape", "hostile.n", "hostile.r")],
        2: [node("Expand", "hostile.1 hostile.n", "hostile.r")],
        3: [endless()],
    }[how]
    if how == 3:
        graph.initializer.append(constant("hostile.yes", True, np.bool_))
    made += [
        node("ReduceMax", "hostile.r", "hostile.m", keepdims=0),
        node("Cast", "hostile.m", "hostile.f", to=FLOAT),
    ]
    first = onnx.NodeProto.FromString(graph.node[0].SerializeToString())
    made += [node("Add", f"{first.input[0]} hostile.f", "hostile.x")]
    first.input[0] = "hostile.x"
    rest = [onnx.NodeProto.FromString(other.SerializeToString()) for other in graph.node[1:]]
    del graph.node[:]
    graph.node.extend([*made, first, *rest])


def endless() -> onnx.NodeProto:
    """A loop whose condition is always true."""
    body = helper.make_graph(
        [node("Identity", "hostile.go", "hostile.on"), node("Add", "hostile.v hostile.i", "hostile.w")],
        "endless",
        [value("hostile.i", [], INT64), value("hostile.go", [], BOOL), value("hostile.v", [], INT64)],
        [value("hostile.on", [], BOOL), value("hostile.w", [], INT64)],
    )
    return helper.make_node("Loop", ["", "hostile.yes", "hostile.1"], ["hostile.r"], body=body)


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        attribute,
        attributes,
        sizes,
        types,
        weights,
        names,
        operators,
        versions,
        subgraphs,
        outside,
        properties,
        demands,
    )
}


def bytes_changed(rng: random.Random, content: bytes) -> bytes:
    """Some bytes of a file are others, gone, or new; mostly of names and structure, not of weights."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(changed) or 1)
        how = rng.randrange(3)
        if how == 0 and changed:
            changed[place] = rng.randrange(256)
        elif how == 1:
            del changed[place : place + rng.randrange(1, 9)]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(changed)
