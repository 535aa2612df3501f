"""ONNX operators with windows or weights: convolution, pooling, matrix products."""

from __future__ import annotations

from math import prod

import onnx

from hwnas.errors import InputError

from .layers import Layer
from .onnx_builder import Builder, source_of
from .onnx_tensors import attribute, text_attribute


def spatial(values: list[int], fill: int) -> tuple[int, int]:
    """(y, x) of a one- or two-dimensional attribute; a one-dimensional convolution runs along y."""
    if len(values) == 1:
        return values[0], fill
    return values[0], values[1]


def padding_of(
    node: onnx.NodeProto, sizes: list[tuple[int, int, int, int, int]]
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) from pads or auto_pad. sizes an axis: in, out, kernel, stride, dilation."""
    mode = text_attribute(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for size, out, kernel, stride, dilation in sizes:
            extra = max(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - size)
            begin.append(extra // 2 if mode == "SAME_UPPER" else extra - extra // 2)
            end.append(extra - begin[-1])
        return begin[0], begin[1], end[0], end[1]
    pads = attribute(node, "pads", [0, 0, 0, 0])
    if len(pads) == 2:
        return pads[0], 0, pads[1], 0
    return pads[0], pads[1], pads[2], pads[3]


def conv(b: Builder, node: onnx.NodeProto) -> None:
    name, weight = node.input[0], node.input[3 if node.op_type == "QLinearConv" else 1]
    if name not in b.values or weight not in b.tensors.static:
        raise InputError(
            f"operator {node.op_type} ({node.name}) computes its weights",
            "give a network whose convolution weights are constants",
        )
    w = b.tensors.shape(weight, node)
    shape, out = b.tensors.shape(name, node), b.tensors.shape(node.output[0], node)
    group = attribute(node, "group", [1])[0]
    fy, fx = spatial(list(w[2:]), 1)
    sy, sx = spatial(attribute(node, "strides", [1, 1][: len(w) - 2]), 1)
    dy, dx = spatial(attribute(node, "dilations", [1, 1][: len(w) - 2]), 1)
    (iy, ix), (oy, ox) = b.rows_cols(shape, 1), b.rows_cols(out, 1)
    value = b.values[name]
    moved = value.pads
    source, rearranged = source_of(b, node, name, (iy - moved[0] - moved[2], ix - moved[1] - moved[3]))
    if node.op_type == "ConvTranspose":
        # Every output position meets ceil(kernel / stride) inputs per axis.
        layer = Layer(
            node.name or node.output[0],
            "conv",
            (source,),
            w[1],
            w[0] // group,
            group,
            oy,
            ox,
            -(-fy // sy),
            -(-fx // sx),
            scale_y=sy,
            scale_x=sx,
            whole_input=rearranged,
            op=node.op_type,
        )
    else:
        pads = padding_of(node, [(iy, oy, fy, sy, dy), (ix, ox, fx, sx, dx)])
        pads = (pads[0] + moved[0], pads[1] + moved[1], pads[2] + moved[2], pads[3] + moved[3])
        layer = Layer(
            node.name or node.output[0],
            "conv",
            (source,),
            w[0] // group,
            w[1],
            group,
            oy,
            ox,
            fy,
            fx,
            sy,
            sx,
            dy,
            dx,
            pads,
            whole_input=rearranged,
            op=node.op_type,
        )
    b.add(node, layer, 1)


def matmul(b: Builder, node: onnx.NodeProto) -> None:
    second_at = 3 if node.op_type == "QLinearMatMul" else 1
    first, second = node.input[0], node.input[second_at]
    out = b.tensors.shape(node.output[0], node)
    if first not in b.values:
        first, second = second, first
    shape = b.tensors.shape(first, node)
    label = node.name or node.output[0]
    if second in b.values:
        # Both are maps: one matrix per head. The second one must be complete (keys, values).
        heads, rows = prod(out[1:-2]), out[-2]
        expected = (rows, 1)
        source, rearranged = source_of(b, node, first, expected)
        layer = Layer(
            label,
            "matmul",
            (source, b.values[second].origin),
            out[-1],
            shape[-1],
            heads,
            rows,
            1,
            second=1,
            whole_input=rearranged,
            op=node.op_type,
        )
        b.add(node, layer, len(out) - 1)
        return
    w = b.tensors.shape(second, node)
    transposed = node.op_type == "Gemm" and attribute(node, "transB", [0])[0] == 1
    k, c = (w[-2], w[-1]) if transposed and len(w) > 1 else (w[-1], w[-2] if len(w) > 1 else w[-1])
    if node.op_type == "Gemm":
        rows, cols = (shape[0], 1) if shape[0] > 1 else (1, 1)
    else:
        rows, cols = b.rows_cols(out, len(out) - 1) if len(out) > 1 else (1, 1)
    source, rearranged = source_of(b, node, first, (rows, cols))
    b.add(
        node,
        Layer(label, "matmul", (source,), k, c, 1, rows, cols, whole_input=rearranged, op=node.op_type),
        len(out) - 1,
    )


def pool(b: Builder, node: onnx.NodeProto) -> None:
    name = node.input[0]
    shape, out = b.tensors.shape(name, node), b.tensors.shape(node.output[0], node)
    n = len(shape) - 2
    fy, fx = spatial(attribute(node, "kernel_shape", [1] * n), 1)
    sy, sx = spatial(attribute(node, "strides", [1] * n), 1)
    dy, dx = spatial(attribute(node, "dilations", [1] * n), 1)
    (iy, ix), (oy, ox) = b.rows_cols(shape, 1), b.rows_cols(out, 1)
    moved = b.values[name].pads
    source, rearranged = source_of(b, node, name, (iy - moved[0] - moved[2], ix - moved[1] - moved[3]))
    pads = padding_of(node, [(iy, oy, fy, sy, dy), (ix, ox, fx, sx, dx)])
    pads = (pads[0] + moved[0], pads[1] + moved[1], pads[2] + moved[2], pads[3] + moved[3])
    whole = rearranged or (oy == 1 and ox == 1 and (fy, fx) == (iy, ix))
    b.add(
        node,
        Layer(
            node.name or node.output[0],
            "pool",
            (source,),
            1,
            1,
            out[1],
            oy,
            ox,
            fy,
            fx,
            sy,
            sx,
            dy,
            dx,
            pads,
            whole,
            op=node.op_type,
        ),
        1,
    )
