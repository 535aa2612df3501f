"""Which operator a node calls, and which tensors it reads: its type alone says neither."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import helper, inliner, shape_inference

from hwnas.errors import InputError, first_line
from hwnas.onnx_file import inner_graphs

STANDARD = frozenset(["", "ai.onnx"])
# What ONNX Runtime writes in the place of standard operators; each is read on purpose.
MICROSOFT = frozenset(
    [
        "BiasGelu",
        "DequantizeLinear",
        "FastGelu",
        "FusedConv",
        "FusedMatMul",
        "Gelu",
        "QLinearAdd",
        "QLinearMul",
        "QuantizeLinear",
        "QuickGelu",
        "SimplifiedLayerNormalization",
    ]
)
# Nodes that the calls of a file's own functions may unfold to.
MOST_NODES = 1 << 20

# Domain, name and overload.
Call = tuple[str, str, str]


def is_known(node: onnx.NodeProto) -> bool:
    """Whether a node's type means what ONNX, or ONNX Runtime, means by it; other domains mean their own."""
    return node.domain in STANDARD or (node.domain == "com.microsoft" and node.op_type in MICROSOFT)


def full_name(node: onnx.NodeProto) -> str:
    """A node's operator with its domain, where that is not ONNX's."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"


def has_body(node: onnx.NodeProto) -> bool:
    """Whether a node is control flow: it runs graphs of its own."""
    return bool(inner_graphs([node]))


def read_by(node: onnx.NodeProto) -> tuple[str, ...]:
    """Names of all tensors that a node reads: its inputs, and what graphs inside of it take from outside."""
    captured: dict[str, None] = {}
    waiting: list[tuple[onnx.GraphProto, frozenset[str]]] = [(g, frozenset()) for g in inner_graphs([node])]
    while waiting:
        graph, outer = waiting.pop()
        made = {*outer, *(t.name for t in graph.initializer), *(i.name for i in graph.input)}
        made |= {t.values.name for t in graph.sparse_initializer}
        for inner in graph.node:
            captured.update((i, None) for i in inner.input if i and i not in made)
            waiting += [(g, frozenset(made)) for g in inner_graphs([inner])]
            made.update(inner.output)
        captured.update((o.name, None) for o in graph.output if o.name not in made)
    return (*node.input, *captured)


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each call of a function that it defines itself replaced by the function's nodes.

    Raises:
        InputError: a function calls itself, is of another version of ONNX that cannot be converted, or the
            calls unfold to more nodes than any network has.
    """
    if not model.functions:
        return model
    try:
        unfolded = _unfolded(model)
    except CycleError as error:
        name = "::".join(error.args[1][0][:2])
        raise InputError(
            f"function {name} of the ONNX file calls itself", "write it without recursion"
        ) from None
    if unfolded > MOST_NODES:
        raise InputError(
            f"the functions of the ONNX file unfold to {unfolded:,} nodes; the simulator takes "
            f"{MOST_NODES:,} at most",
            "give a smaller network",
        )
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    # What converts a function of another version asks the type of every tensor that it is given.
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    try:
        typed = shape_inference.infer_shapes(typed, strict_mode=False)
        return inliner.inline_local_functions(typed, convert_version=True)
    except Exception as error:  # the classes of onnx's C++ part have no common base
        raise InputError(
            f"the functions of the ONNX file cannot be inlined: {first_line(error)}",
            "export the network without functions of its own, or for one version of ONNX",
        ) from error


def _unfolded(model: onnx.ModelProto) -> int:
    """Nodes of a model once its functions are inlined. Raises CycleError where one calls itself."""
    bodies = {(f.domain, f.name, f.overload): [*_called(f.node)] for f in model.functions}
    counts: dict[Call, int] = {}
    for function in TopologicalSorter(bodies).static_order():
        counts[function] = sum(counts[call] for call in bodies[function]) if function in bodies else 1
    return sum(counts.get(call, 1) for call in _called(model.graph.node))


def _called(nodes: Iterable[onnx.NodeProto]) -> Iterator[Call]:
    """What nodes call, those of the graphs inside of them as well."""
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        yield node.domain, node.op_type, node.overload
        waiting += [inner for graph in inner_graphs([node]) for inner in graph.node]
