"""From an ONNX graph to layers.

Activations, biases, normalisation folded into weights, quantisation and reshaping cost nothing by
themselves: they happen where a map is written. Everything else becomes a loop nest.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from hwnas.errors import InputError

from .layers import Network
from .onnx_builder import Builder, Value, maps_of
from .onnx_maps import GLOBAL_POOLS, alias, binary, concat, one_pass, pad, plumb, reduce, resize
from .onnx_products import attention, conv, matmul, pool
from .onnx_tensors import Tensors, load_model

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
    loaded = load_model(model)
    graph = loaded.graph
    tensors = Tensors(graph)
    inputs = [i for i in graph.input if i.name not in tensors.static]
    if len(inputs) != 1:
        raise InputError(
            f"the graph has {len(inputs)} inputs: {', '.join(i.name for i in inputs)}",
            "give a network with one input map",
        )
    builder = Builder(tensors, allow_unknown)
    shape = tensors.shapes.get(inputs[0].name)
    if shape is None:
        raise InputError(
            f"input {inputs[0].name} has no static shape",
            "export the model with fixed input shapes (no dynamic axes)",
        )
    if len(shape) > 1 and shape[0] != 1:
        raise InputError(
            f"input {inputs[0].name} is a batch of {shape[0]}",
            "export the model for one image; --batch lets the simulator take several",
        )
    windowed = any(n.input[:1] == [inputs[0].name] and n.op_type in CONVOLUTIONS | POOLS for n in graph.node)
    # Of three dimensions the last one is channels (tokens), unless windows slide along it.
    axis = 2 if len(shape) == 3 and not windowed else 1
    builder.values[inputs[0].name] = Value(-1, axis)
    rows, cols = builder.rows_cols(shape, axis)
    builder.size = (shape[axis] if len(shape) > 1 else 1, rows, cols)
    for node in graph.node:
        if not tensors.absorb(node):
            visit(builder, node)
    outputs = tuple(
        sorted({builder.values[o.name].origin for o in graph.output if o.name in builder.values} - {-1})
    )
    return Network(
        name or graph.name or "network",
        tuple(builder.layers),
        *builder.size,
        padded=True,
        charged=tuple(builder.charged),
        outputs=outputs,
    )


def visit(b: Builder, node: onnx.NodeProto) -> None:
    op = node.op_type
    if op in CONVOLUTIONS:
        conv(b, node)
    elif op in ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", "FusedMatMul"):
        matmul(b, node)
    elif op == "Attention" and node.domain in ("", "ai.onnx"):
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
    elif b.allow_unknown:
        b.charged.append(op)
        one_pass(b, node, True)
    else:
        raise InputError(
            f"operator {op} ({node.name or node.output[0]}) is not known to the simulator",
            "allow unknown operators (--allow-unknown) to charge them as a copy through memory, "
            "or replace the operator",
        )
