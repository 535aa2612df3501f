"""ONNX files that are nearly valid: graphs of many kinds, each with some things changed, by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from valid_graphs import FLOAT, INT64, VALID, constant, endless, node

from hwnas.onnx_file import graphs_of, nodes_of

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
