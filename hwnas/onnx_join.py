"""Graphs of a network's parts, joined into one model.

A stitched graph is never exported: the parts' protobufs are joined. A protobuf message is the merge of its
concatenated serialisations, so joining graphs whose names are already disjoint is joining bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hwnas.errors import NetworkFormError
from hwnas.onnx_sizes import inputs_of

if TYPE_CHECKING:
    import onnx

INPUT_NAME, OUTPUT_NAME = "input", "output"


class Fragment:
    """A part's graph, serialised: everything but its inputs and outputs, and these by their values."""

    def __init__(self, body: bytes, infos: Mapping[int, bytes], opsets: Mapping[str, int]) -> None:
        self.body = body
        self.infos = infos
        self.opsets = opsets


def join(fragments: Sequence[Fragment], outputs: Mapping[str, int]) -> bytes:
    """Join graphs into one ONNX model, without exporting or parsing anything again.

    Args:
        fragments: each made for its position.
        outputs: the values that the whole gives, by name.
    """
    import onnx

    opsets = {domain: version for fragment in fragments for domain, version in fragment.opsets.items()}
    model = onnx.ModelProto(ir_version=8, producer_name="hwnas")
    for domain, version in sorted(opsets.items()):
        model.opset_import.add(domain=domain, version=version)
    infos = {value: info for fragment in fragments for value, info in fragment.infos.items()}
    ends = onnx.GraphProto(name="hwnas")
    ends.input.add().ParseFromString(infos[0])
    ends.input[0].name = INPUT_NAME
    for name, value in outputs.items():
        ends.node.add(op_type="Identity", input=[_value(value)], output=[name])
        info = ends.output.add()
        info.ParseFromString(infos[value])
        info.name = name
    graph = b"".join([*(fragment.body for fragment in fragments), ends.SerializeToString()])
    return bytes(model.SerializeToString()) + _field(_GRAPH_FIELD, graph)


def _value(number: int) -> str:
    return f"value/{number}" if number else INPUT_NAME


_GRAPH_FIELD = 7  # ModelProto.graph


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field: tag, varint length, payload."""
    length, varint = len(payload), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *varint, length]) + payload


def make_fragment(content: bytes, position: int, reads: Sequence[int], gives: Sequence[int]) -> Fragment:
    """A serialised model, its names made unique to its position.

    Args:
        reads, gives: the values that are its inputs and outputs. Of several inputs the model names those that
            it has `input.0`, `input.1`, …: the exporter leaves out one of which only the size is read.

    Raises:
        NetworkFormError: it has other inputs or outputs.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    inputs = inputs_of(model)
    numbers = {f"{INPUT_NAME}.{n}": value for n, value in enumerate(reads)}
    if len(reads) == 1 and len(inputs) == 1:
        numbers = {inputs[0].name: reads[0]}
    if not numbers.keys() >= {each.name for each in inputs} or len(graph.output) != len(gives):
        raise NetworkFormError(
            f"a part to be stitched has {len(inputs)} inputs and {len(graph.output)} outputs, where it "
            f"reads {len(reads)} values and gives {len(gives)}",
            "cut the network elsewhere",
        )
    values = {each.name: numbers[each.name] for each in inputs}
    infos = {values[each.name]: each.SerializeToString() for each in inputs}
    body = onnx.GraphProto()
    body.node.extend(graph.node)
    again = []
    for output, value in zip(graph.output, gives, strict=True):
        infos[value] = output.SerializeToString()
        if output.name in values:  # one tensor by two names, as a copy is in a graph
            again.append((_value(values[output.name]), _value(value)))
        values.setdefault(output.name, value)
    body.initializer.extend(graph.initializer)
    body.value_info.extend(graph.value_info)
    _rename(body, {name: _value(value) for name, value in values.items()}, f"{position}/")
    for first, other in again:
        body.node.add(op_type="Identity", input=[first], output=[other])
    return Fragment(
        body.SerializeToString(), infos, {opset.domain: opset.version for opset in model.opset_import}
    )


def _rename(graph: onnx.GraphProto, names: Mapping[str, str], prefix: str) -> None:
    """Rename every value and node of a graph, subgraphs included; an empty name is an absent input."""

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else name

    for value in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        value.name = new(value.name)
    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename(subgraph, names, prefix)
