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
    """Serialised pieces of a part's graph: everything but its input and output, and these two."""

    def __init__(self, body: bytes, input_info: bytes, output_info: bytes, opsets: Mapping[str, int]) -> None:
        self.body = body
        self.input_info = input_info
        self.output_info = output_info
        self.opsets = opsets


def join(fragments: Sequence[Fragment]) -> bytes:
    """Join graphs into one ONNX model, without exporting or parsing anything again.

    Args:
        fragments: each made for its position.
    """
    import onnx

    opsets = {domain: version for fragment in fragments for domain, version in fragment.opsets.items()}
    model = onnx.ModelProto(ir_version=8, producer_name="hwnas")
    for domain, version in sorted(opsets.items()):
        model.opset_import.add(domain=domain, version=version)
    ends = onnx.GraphProto(name="hwnas")
    last = f"{OUTPUT_NAME}.{len(fragments) - 1}"
    ends.node.add(op_type="Identity", input=[last], output=[OUTPUT_NAME])
    ends.input.add().ParseFromString(fragments[0].input_info)
    ends.output.add().ParseFromString(fragments[-1].output_info)
    ends.input[0].name, ends.output[0].name = INPUT_NAME, OUTPUT_NAME
    graph = b"".join([*(fragment.body for fragment in fragments), ends.SerializeToString()])
    return bytes(model.SerializeToString()) + _field(_GRAPH_FIELD, graph)


_GRAPH_FIELD = 7  # ModelProto.graph


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field: tag, varint length, payload."""
    length, varint = len(payload), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *varint, length]) + payload


def make_fragment(content: bytes, position: int) -> Fragment:
    """A serialised model, its names made unique to its position.

    Raises:
        NetworkFormError: it has not one input and one output.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    inputs = inputs_of(model)
    if len(inputs) != 1 or len(graph.output) != 1:
        raise NetworkFormError(
            f"a part to be stitched has {len(inputs)} inputs and {len(graph.output)} outputs, not one each",
            "cut the network where one tensor passes",
        )
    names = {inputs[0].name: f"{OUTPUT_NAME}.{position - 1}" if position else INPUT_NAME}
    names[graph.output[0].name] = f"{OUTPUT_NAME}.{position}"
    body = onnx.GraphProto()
    body.node.extend(graph.node)
    body.initializer.extend(graph.initializer)
    body.value_info.extend(graph.value_info)
    _rename(body, names, f"{position}/")
    return Fragment(
        body.SerializeToString(),
        inputs[0].SerializeToString(),
        graph.output[0].SerializeToString(),
        {opset.domain: opset.version for opset in model.opset_import},
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
