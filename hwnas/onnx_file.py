"""ONNX files that a user gives: read whole and checked, or refused by cause. Nothing of them is run here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError, first_line
from hwnas.files import read_bytes

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**31 - 1
"""Of a protobuf message, and so of an ONNX model without weights in other files."""

LONGEST_NAME, LONGEST_PATH = 255, 4095
POINTER_BYTES = 1024  # a Git LFS pointer is smaller

LFS = b"version https://git-lfs.github.com/spec/"
OTHER_KINDS = {
    b"<!doctype html": "a page of HTML",
    b"<html": "a page of HTML",
    b"<?xml": "an XML document",
    b"PK\x03\x04": "a zip archive (torch.save writes such)",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"/annex/objects/": "a git-annex pointer",
}
AGAIN = "export the model again, or give another file"
TOGETHER = "put the model and the files of its weights together, as they were exported"


def read_model(path: Path) -> onnx.ModelProto:
    """The model in an ONNX file, with its weights, checked by ONNX's own checker but for sizes left open.

    Raises:
        InputError: it cannot be read, is something else (a Git LFS pointer, a page of HTML), is damaged, or
            keeps weights in files that are missing, too large, or outside of its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    content = _content(path)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise unusable(path, f"it is damaged or is no ONNX file: it begins with {content[:16]!r}") from None
    if not model.HasField("graph"):
        raise unusable(path, "it holds no graph")
    odd = next(_no_text(model), None)
    if odd is not None:
        raise unusable(path, f"the name {odd[:40]!r} in it is no text")
    _check_external(path, model, len(content))
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # of protobuf, of ONNX's C++ part and of the operating system
        raise unusable(path, first_line(error), TOGETHER) from None
    return model


def check_model(path: Path, model: onnx.ModelProto) -> None:
    """Ask ONNX's checker; outputs that do not say their shape get it first.

    Raises:
        InputError: with what the checker says.
    """
    import onnx

    try:
        if not all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
            inferred = onnx.shape_inference.infer_shapes(model).graph
            for value, known in zip(model.graph.output, inferred.output, strict=True):
                value.CopyFrom(known)
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, and whatever its C++ part raises of a hostile model
        raise unusable(path, first_line(error)) from None


def unusable(path: Path, reason: str, fix: str = AGAIN) -> InputError:
    """The refusal of a file."""
    return InputError(f"{path} is not a usable ONNX model: {reason}", fix)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a model holds: weights and attributes, those of subgraphs and functions as well."""
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes_of(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model, those of subgraphs and functions as well."""
    for graph in graphs_of(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Every graph of a model, those in attributes of nodes as well."""
    waiting = [model.graph, *inner_graphs(node for function in model.functions for node in function.node)]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += inner_graphs(graph.node)


def operators_of(content: bytes) -> tuple[str, ...]:
    """The kinds of operators in an ONNX model, those of subgraphs and functions included, sorted."""
    import onnx

    return tuple(sorted({node.op_type for node in nodes_of(onnx.load_model_from_string(content))}))


def has_external_data(content: bytes) -> bool:
    """Whether a serialised ONNX model keeps weights in other files; what is no model does not."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import uses_external_data

    try:
        return any(map(uses_external_data, tensors_of(onnx.load_model_from_string(content))))
    except DecodeError:
        return False


def inner_graphs(nodes: Iterator[onnx.NodeProto] | Sequence[onnx.NodeProto]) -> list[onnx.GraphProto]:
    """The graphs that are attributes of nodes, without those inside of them."""
    found = []
    for node in nodes:
        for attribute in node.attribute:
            found += [attribute.g] * attribute.HasField("g") + list(attribute.graphs)
    return found


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise InputError(f"cannot read {path}: it is no file", "give the path of an .onnx file")
    size = path.stat().st_size if path.exists() else 0
    if size > MOST_BYTES:
        raise unusable(
            path,
            f"it has {size / 1e9:.1f} GB, and one protobuf message, which an ONNX file is, has at most 2 GB",
            "export it with weights in files of their own: onnx.save(…, save_as_external_data=True)",
        )
    content = read_bytes(path)
    if not content:
        raise unusable(path, "it is empty")
    if content.startswith(LFS):
        raise unusable(path, "it is a Git LFS pointer, not the model that it stands for", _pull(path))
    begin = content[:64].lstrip().lower()
    for magic, kind in OTHER_KINDS.items():
        if begin.startswith(magic.lower()):
            raise unusable(path, f"it is {kind}", "download or export the model again")
    return content


def _pull(path: Path) -> str:
    return f"git lfs install && git lfs pull --include '{path.name}'"


def _no_text(message: Any) -> Iterator[bytes]:
    """Strings of a message that are no UTF-8, which protobuf gives as bytes, or refuses to give."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        repeated = not isinstance(value, str | bytes) and not hasattr(value, "ListFields")
        for item in value if repeated else [value]:
            if field.type == field.TYPE_MESSAGE:
                yield from _no_text(item)
            elif isinstance(item, bytes):
                yield item


def _check_external(path: Path, model: onnx.ModelProto, own_bytes: int) -> None:
    """Refuse weights in other files that cannot be had, before any of them is read."""
    from onnx.external_data_helper import uses_external_data

    total = own_bytes
    for tensor in tensors_of(model):
        if uses_external_data(tensor):
            total += _external_bytes(path, tensor)
    if total > MOST_BYTES:
        raise unusable(
            path,
            f"with its weights it has {total / 1e9:.1f} GB, and hwnas passes a network on as one protobuf "
            "message, of at most 2 GB",
            "export it in half precision, or measure a part of it",
        )


def _external_bytes(path: Path, tensor: onnx.TensorProto) -> int:
    """How many bytes a tensor takes from another file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    told = f"the weights {tensor.name!r} lie in {location[:60]!r}"
    place = PurePosixPath(location)
    if not location or "\0" in location:
        raise unusable(path, f"{told}, which is no name of a file", TOGETHER)
    if place.is_absolute() or ".." in place.parts:
        raise unusable(path, f"{told}, outside of its folder", TOGETHER)
    length_bytes = len(os.fsencode(location))
    if length_bytes > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in place.parts):
        raise unusable(path, f"{told} …, a name of {length_bytes} bytes, which no file has", TOGETHER)
    file = path.parent / location
    if not file.is_file():
        raise unusable(path, f"{told}, which is not there", TOGETHER)
    size = file.stat().st_size
    if size < POINTER_BYTES and read_bytes(file).startswith(LFS):
        raise unusable(path, f"{told}, which is a Git LFS pointer", _pull(file))
    offset, length = (entries.get(key, "0") for key in ("offset", "length"))
    if not (offset.isdecimal() and length.isdecimal()):
        raise unusable(path, f"{told}, {length!r} bytes from {offset!r} on, which are no numbers")
    wanted = int(length) or max(0, size - int(offset))
    if int(offset) + wanted > size:
        raise unusable(path, f"{told}, which ends before they do: it has {size} bytes", TOGETHER)
    return wanted
