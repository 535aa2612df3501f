"""From an ONNX graph to layers.

Activations, biases, normalisation folded into weights, quantisation and reshaping cost nothing by
themselves: they happen where a map is written. Everything else becomes a loop nest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from hwnas.devices.simulator.layers import Layer, Network
from hwnas.devices.simulator.onnx.attributes import label, not_taken
from hwnas.devices.simulator.onnx.builder import Builder, Value, maps_of, rows_cols
from hwnas.devices.simulator.onnx.maps import (
    GLOBAL_POOLS,
    alias,
    binary,
    concat,
    one_pass,
    pad,
    plumb,
    reduce,
    resize,
)
from hwnas.devices.simulator.onnx.operators import full_name, has_body, is_known
from hwnas.devices.simulator.onnx.products import PRODUCTS, attention, product
from hwnas.devices.simulator.onnx.tensors import Shape, Tensors, load_model
from hwnas.devices.simulator.onnx.windows import conv, pool
from hwnas.errors import InputError, first_line
from hwnas.wiring import Wiring

# Applied to single values on their way to memory.
POINTWISE = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Celu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Swish",
        "Tanh",
        "Softplus",
        "Softsign",
        "Mish",
        "Gelu",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Neg",
        "Abs",
        "Pow",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Not",
        "Cast",
        "CastLike",
        "Identity",
        "Dropout",
        "BatchNormalization",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ThresholdedRelu",
        "QuickGelu",
        "BiasGelu",
        "FastGelu",
        "Where",
        "Equal",
        "Greater",
        "Less",
        "And",
        "Or",
        "Min",
        "Max",
        "Mod",
        "LpNormalization",
    ]
)
# Move no data: the map is read in another order or in part.
PLUMBING = frozenset(
    [
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Slice",
        "Split",
        "Gather",
        "Tile",
        "DepthToSpace",
        "SpaceToDepth",
        "GatherND",
    ]
)
# One pass over every token or pixel.
PASSES = frozenset(
    ["Softmax", "LogSoftmax", "LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", "LRN"]
)
# Run over the last axis, that of a token's channels.
TOKENS = frozenset(["LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"])
# Need the whole map before the first result.
WHOLE_PASSES = frozenset(["InstanceNormalization", "GroupNormalization"])
BINARY = frozenset(["Add", "Sub", "Mul", "Div", "Sum"])
POOLS = frozenset(["MaxPool", "AveragePool", "LpPool"])
CONVOLUTIONS = frozenset(["Conv", "QLinearConv", "ConvInteger", "FusedConv", "ConvTranspose"])


def read_onnx(
    model: onnx.ModelProto | Path | str | bytes, name: str = "", *, allow_unknown: bool = False
) -> Network:
    """Read an ONNX model as a network of layers.

    Args:
        model: a file, its bytes, or the object; shapes must be static.
        allow_unknown: charge operators that are not known as one pass of their input and output through
            the off-chip memory, and list them in `charged`.

    Raises:
        InputError: an unknown operator (named), a shape that is not static, more than one input or image.
    """
    piece = read_piece(model, allow_unknown=allow_unknown)
    if len(piece.inputs) != 1:
        raise InputError(
            f"the graph has {len(piece.inputs)} inputs: {', '.join(piece.inputs)}",
            "give a network with one input map",
        )
    return Network(
        name or piece.name or "network",
        piece.layers,
        *piece.sizes[0],
        padded=True,
        charged=piece.charged,
        outputs=tuple(sorted({*piece.outputs} - {-1})),
    )


@dataclass(frozen=True)
class Piece:
    """The layers of a part of a network.

    Attributes:
        layers: they read inputs at -1, -2, ….
        inputs: the names of the inputs.
        sizes: channels, rows and columns of each input.
        outputs: the position of the layer, or of the input, that each output comes from.
        charged: as for `Network`.
    """

    name: str
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    sizes: tuple[tuple[int, int, int], ...]
    outputs: tuple[int, ...]
    charged: tuple[str, ...]


def read_piece(model: onnx.ModelProto | Path | str | bytes, *, allow_unknown: bool = False) -> Piece:
    """Read an ONNX model of one or more inputs. Arguments and errors as for `read_onnx`."""
    loaded = load_model(model)
    graph = loaded.graph
    tensors = Tensors(graph)
    builder = Builder(tensors, allow_unknown)
    inputs = [i.name for i in graph.input if i.name not in tensors.static]
    for number, name in enumerate(inputs):
        _begin(builder, graph, number, name)
    for node in graph.node:
        _take(builder, node)
    return Piece(
        name=graph.name,
        layers=tuple(builder.layers),
        inputs=tuple(inputs),
        sizes=tuple(builder.sizes),
        outputs=tuple(builder.values[o.name].origin for o in graph.output if o.name in builder.values),
        charged=tuple(builder.charged),
    )


def _begin(builder: Builder, graph: onnx.GraphProto, number: int, name: str) -> None:
    """Note an input. Raises InputError: its shape is open, or that of several images."""
    shape = builder.tensors.shapes.get(name)
    if shape is None:
        raise InputError(
            f"input {name} has no static shape", "export the model with fixed input shapes (no dynamic axes)"
        )
    if len(shape) > 1 and shape[0] != 1:
        raise InputError(
            f"input {name} is a batch of {shape[0]}",
            "export the model for one image; --batch lets the simulator take several",
        )
    axis = _channels_of_input(graph, name, shape)
    builder.values[name] = Value(~number, axis)
    builder.sizes.append((shape[axis] if len(shape) > 1 else 1, *rows_cols(shape, axis)))


def join_pieces(pieces: Sequence[Piece], wiring: Wiring, name: str) -> Network:
    """Join the layers of a network's parts, as if the whole had been read.

    Args:
        pieces: in order; of several inputs named `input.0`, `input.1`, … as the parts' graphs are.
    """
    made, sizes, layers = {0: -1}, dict[int, tuple[int, int, int]](), list[Layer]()
    for piece, reads, gives in zip(pieces, wiring.reads, wiring.gives, strict=True):
        values = [
            reads[int(name.rpartition(".")[2])] if len(reads) > 1 else reads[0] for name in piece.inputs
        ]
        sizes |= dict(zip(values, piece.sizes, strict=True))
        places = [
            *range(len(layers), len(layers) + len(piece.layers)),
            *(made[each] for each in values[::-1]),
        ]
        layers += [replace(layer, inputs=tuple(places[at] for at in layer.inputs)) for layer in piece.layers]
        made.update(zip(gives, (places[at] for at in piece.outputs), strict=True))
    return Network(
        name,
        tuple(layers),
        *sizes[0],
        charged=tuple(each for piece in pieces for each in piece.charged),
        outputs=tuple(sorted({made[value] for value in wiring.outputs.values()} - {-1})),
    )


def _channels_of_input(graph: onnx.GraphProto, name: str, shape: Shape) -> int:
    """Axis of the input's channels: the first one of images, the last one of tokens.

    Which of them it is follows from what reads it: windows slide along the axes behind the channels, products
    and normalisations of tokens run over the last one. Of three dimensions the last one unless windows do.
    """
    readers = {n.op_type for n in graph.node if name in n.input}
    if len(shape) < 3 or readers & (CONVOLUTIONS | POOLS | GLOBAL_POOLS):
        return min(1, max(0, len(shape) - 1))
    return len(shape) - 1 if len(shape) == 3 or readers & (PRODUCTS | TOKENS) else 1


# What goes wrong inside of an operator's reader where a graph breaks its own rules in a way that is not
# looked for by name: an input or output too few, shapes that contradict each other.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _take(b: Builder, node: onnx.NodeProto) -> None:
    """Note what a node computes. Raises InputError, naming the node, where it has no form of its operator."""
    try:
        b.tensors.check_size(node)
        if not b.tensors.absorb(node):
            visit(b, node)
    except MALFORMED as error:
        raise not_taken(
            node,
            f"has a form that the simulator cannot read ({first_line(error)})",
            "check the model with onnx.checker.check_model(path, full_check=True); where it passes, "
            "replace the operator",
        ) from error


def visit(b: Builder, node: onnx.NodeProto) -> None:
    """Turn one node into layers, or into another name of a map."""
    op = node.op_type
    if not is_known(node):
        unknown(b, node)
    elif op in CONVOLUTIONS:
        conv(b, node)
    elif op in PRODUCTS and (op != "Einsum" or len(node.input) == 2):
        product(b, node)
    elif op == "Attention":
        attention(b, node)
    elif op in POOLS:
        pool(b, node)
    elif op in GLOBAL_POOLS or (op in ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2")):
        reduce(b, node)
    elif (
        op in BINARY or op in ("QLinearAdd", "QLinearMul") or (op in POINTWISE and len(maps_of(b, node)) > 1)
    ):
        binary(b, node)
    elif op in POINTWISE:
        alias(b, node)
    elif op in PLUMBING:
        plumb(b, node)
    elif op == "Pad":
        pad(b, node)
    elif op == "Concat":
        concat(b, node)
    elif op in ("Resize", "Upsample"):
        resize(b, node)
    elif op in PASSES or op in WHOLE_PASSES:
        one_pass(b, node, op in WHOLE_PASSES)
    else:
        unknown(b, node)


def unknown(b: Builder, node: onnx.NodeProto) -> None:
    """Charge an operator that is not known as a copy. Raises InputError unless that is allowed."""
    if not b.allow_unknown:
        raise InputError(
            f"{label(node)} is not known to the simulator",
            "charge such operators as a copy through memory: --device-option allow_unknown=true; or "
            + ("export the network without control flow" if has_body(node) else "replace the operator"),
        )
    b.charged.append(full_name(node))
    if maps_of(b, node):
        one_pass(b, node, True)
    else:
        b.tensors.static.update(node.output)
