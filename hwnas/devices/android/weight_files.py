"""A graph as files: its structure, and its weights by part, each named by what it holds.

Networks of one search share most of their parts. A part's weights in a file of their own, named by their
hash, are copied to a phone once, however many graphs use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.files import sha256

if TYPE_CHECKING:
    import onnx

PAYS_BYTES = 64 * 1024  # below this a file of its own costs more than copying the weights again
ALIGNMENT = 64


@dataclass(frozen=True)
class GraphFiles:
    """The files of a graph by name, and which of them is the graph itself."""

    graph: str
    contents: Mapping[str, bytes]


def graph_files(content: bytes) -> GraphFiles:
    """Split a serialised ONNX model into its structure and its parts' weights.

    The parts are told apart by the names that stitching gives (`3/conv.weight`).
    """
    import onnx

    model = onnx.load_model_from_string(content)
    parts: dict[str, list[onnx.TensorProto]] = {}
    for tensor in model.graph.initializer:
        if tensor.HasField("raw_data"):
            part, slash, _ = tensor.name.partition("/")
            parts.setdefault(part if slash else "", []).append(tensor)
    contents = {}
    for tensors in parts.values():
        if sum(len(tensor.raw_data) for tensor in tensors) < PAYS_BYTES:
            continue
        weights = bytearray()
        places = []
        for tensor in tensors:
            weights += bytes(-len(weights) % ALIGNMENT)
            places.append((len(weights), len(tensor.raw_data)))
            weights += tensor.raw_data
        name = _name(bytes(weights), "bin")
        contents[name] = bytes(weights)
        for tensor, (offset, length) in zip(tensors, places, strict=True):
            _point_to(tensor, name, offset, length)
    structure = content if not contents else bytes(model.SerializeToString())
    graph = _name(structure, "onnx")
    return GraphFiles(graph, {**contents, graph: structure})


def _point_to(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    import onnx

    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _name(content: bytes, suffix: str) -> str:
    return f"{sha256(content)[:32]}.{suffix}"
