"""ONNX operators with windows or weights: convolution, pooling, matrix products."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx

from hwnas.errors import InputError

from .onnx_builder import Builder, nest, source_of
from .onnx_tensors import attribute, text_attribute


def spatial(node: onnx.NodeProto, values: list[int], fill: int = 1) -> tuple[int, int]:
    """(y, x) of a one- or two-dimensional attribute; a one-dimensional window runs along y.

    Raises:
        InputError: it has three dimensions or more.
    """
    if len(values) > 2:
        raise InputError(
            f"operator {node.op_type} ({node.name or node.output[0]}) has {len(values)}-dimensional windows",
            "give a network of one- or two-dimensional maps",
        )
    return (values[0], fill) if len(values) == 1 else (values[0], values[1])


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


def windows(b: Builder, node: onnx.NodeProto, kernel: list[int]) -> dict[str, Any]:
    """How a convolution or pooling slides over its map: fields of its Layer."""
    ones = [1] * len(kernel)
    fy, fx = spatial(node, kernel)
    sy, sx = spatial(node, attribute(node, "strides", ones))
    dy, dx = spatial(node, attribute(node, "dilations", ones))
    iy, ix = b.rows_cols(b.tensors.shape(node.input[0], node), 1)
    oy, ox = b.rows_cols(b.tensors.shape(node.output[0], node), 1)
    # What an operator before has padded joins this one's padding.
    before = b.values[node.input[0]].pads
    own = padding_of(node, [(iy, oy, fy, sy, dy), (ix, ox, fx, sx, dx)])
    _, rearranged = source_of(
        b, node, node.input[0], (iy - before[0] - before[2], ix - before[1] - before[3])
    )
    return {
        "fy": fy,
        "fx": fx,
        "stride_y": sy,
        "stride_x": sx,
        "dilation_y": dy,
        "dilation_x": dx,
        "pads": tuple(inner + outer for inner, outer in zip(own, before, strict=True)),
        "whole_input": rearranged,
    }


def conv(b: Builder, node: onnx.NodeProto) -> None:
    name, weight = node.input[0], node.input[3 if node.op_type == "QLinearConv" else 1]
    if name not in b.values or weight not in b.tensors.static:
        raise InputError(
            f"operator {node.op_type} ({node.name or node.output[0]}) computes its weights",
            "give a network whose convolution weights are constants",
        )
    w = b.tensors.shape(weight, node)
    size = b.rows_cols(b.tensors.shape(node.output[0], node), 1)
    group = attribute(node, "group", [1])[0]
    slides = windows(b, node, list(w[2:]))
    if node.op_type == "ConvTranspose":
        # Every output position meets ceil(kernel / stride) inputs per axis.
        channels = (w[1], w[0] // group, group)
        slides = {
            "fy": -(-slides["fy"] // slides["stride_y"]),
            "fx": -(-slides["fx"] // slides["stride_x"]),
            "scale_y": slides["stride_y"],
            "scale_x": slides["stride_x"],
            "whole_input": slides["whole_input"],
        }
    else:
        channels = (w[0] // group, w[1], group)
    b.add(node, nest(node, "conv", (b.values[name].origin,), channels, size, **slides), 1)


def matmul(b: Builder, node: onnx.NodeProto) -> None:
    second_at = 3 if node.op_type == "QLinearMatMul" else 1
    first, second = node.input[0], node.input[second_at]
    out = b.tensors.shape(node.output[0], node)
    if first not in b.values:
        first, second = second, first
    shape = b.tensors.shape(first, node)
    axis = len(out) - 1
    if second in b.values:
        # Both are maps: one matrix per head. The second one must be complete (keys, values).
        heads, rows = prod(out[1:-2]), out[-2]
        source, rearranged = source_of(b, node, first, (rows, 1))
        sources, channels = (source, b.values[second].origin), (out[-1], shape[-1], heads)
        b.add(
            node,
            nest(node, "matmul", sources, channels, (rows, 1), second=1, whole_input=rearranged),
            axis,
        )
        return
    w = b.tensors.shape(second, node)
    if first != node.input[0]:
        # Weights times map: the map's rows are channels.
        source, rearranged = source_of(b, node, first, (out[-1], 1))
        layer = nest(node, "matmul", (source,), (w[-2], w[-1], 1), (out[-1], 1), whole_input=rearranged)
        b.add(node, layer, axis - 1)
        return
    transposed = node.op_type == "Gemm" and attribute(node, "transB", [0])[0] == 1
    k, c = (w[-2], w[-1]) if transposed and len(w) > 1 else (w[-1], w[-2] if len(w) > 1 else w[-1])
    size = (1, 1) if node.op_type == "Gemm" or not axis else b.rows_cols(out, axis)
    source, rearranged = source_of(b, node, first, size)
    b.add(node, nest(node, "matmul", (source,), (k, c, 1), size, whole_input=rearranged), axis)


def pool(b: Builder, node: onnx.NodeProto) -> None:
    out = b.tensors.shape(node.output[0], node)
    size = b.rows_cols(out, 1)
    slides = windows(b, node, attribute(node, "kernel_shape", [1] * (len(out) - 2)))
    if size == (1, 1) and (slides["fy"], slides["fx"]) == b.rows_cols(
        b.tensors.shape(node.input[0], node), 1
    ):
        slides["whole_input"] = True
    b.add(node, nest(node, "pool", (b.values[node.input[0]].origin,), (1, 1, out[1]), size, **slides), 1)


def attention(b: Builder, node: onnx.NodeProto) -> None:
    """The operator Attention: scores for each head, softmax, and the values that they weigh."""
    maps = [name for name in node.input if name in b.values]
    if len(maps) < 3 or list(node.input[:3]) != maps[:3]:
        raise InputError(
            f"operator Attention ({node.name or node.output[0]}) takes other than three maps",
            "give queries, keys and values that the network computes",
        )
    query, key, value = (b.tensors.shape(name, node) for name in maps[:3])
    heads = query[1] if len(query) == 4 else attribute(node, "q_num_heads", [1])[0]
    tokens, seen = query[-2], key[-2]
    wide, out = (shape[-1] // (heads if len(shape) == 3 else 1) for shape in (query, value))
    source, rearranged = source_of(b, node, maps[0], (tokens, 1))
    position = len(b.layers)
    b.layers += [
        nest(
            node,
            "matmul",
            (source, b.values[maps[1]].origin),
            (seen, wide, heads),
            (tokens, 1),
            second=1,
            whole_input=rearranged,
        ),
        nest(node, "copy", (position,), (1, 1, seen * heads), (tokens, 1)),
    ]
    values = b.values[maps[2]].origin
    shape = b.tensors.shape(node.output[0], node)
    last = nest(node, "matmul", (position + 1, values), (out, seen, heads), (tokens, 1), second=1)
    b.add(node, last, len(shape) - 1)
