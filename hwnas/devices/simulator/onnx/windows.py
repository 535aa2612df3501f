"""ONNX operators with windows: convolution and pooling. One-dimensional windows run along rows.

A network takes one image, so the images of a batch are folded out of its axes (frames, patches, copies).
They lie below one another, as one high map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx

from hwnas.devices.simulator.layers import Layer
from hwnas.devices.simulator.onnx.attributes import integer, integers, label, no_form, text
from hwnas.devices.simulator.onnx.builder import Builder, folded_out, nest, rows_cols
from hwnas.devices.simulator.onnx.tensors import Shape
from hwnas.errors import InputError

PADDINGS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Window:
    """How windows slide along one axis of a map. pad: zeros in front and behind."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    pad: tuple[int, int]


# What an axis is that a one-dimensional map does not have.
NO_AXIS = Window(1, 1, 1, 1, 1, (0, 0))


def slides(b: Builder, node: onnx.NodeProto, kernel: Sequence[int]) -> tuple[Window, Window, bool]:
    """How a convolution or pooling slides along rows and columns of its map.

    Returns:
        rows, columns, and whether tiles of the output correspond to no tiles of the map before.

    Raises:
        InputError: an attribute has another length, kind or range than the operator allows.
    """
    shape, made = b.map_shape(node.input[0], node), b.map_shape(node.output[0], node)
    before = b.value(node.input[0], node).pads
    y, x = _axes(node, shape, made, kernel)
    # What an operator before has padded joins this one's padding.
    real = [y.size - before[0] - before[2], x.size - before[1] - before[3]]
    if min(real) < 1:
        raise no_form(node, f"reads a map of {list(shape)} that is nothing but padding")
    y, x = _padded(y, real[0], before[0::2]), _padded(x, real[1], before[1::2])
    origin = b.value(node.input[0], node).origin
    if all((a.kernel, a.stride, a.pad) == (1, 1, (0, 0)) for a in (y, x)):
        # A matrix product: how its positions are folded says nothing.
        (rows, cols), rearranged = b.positions(origin, rows_cols(made, 1))
        return Window(rows, rows, 1, 1, 1, (0, 0)), Window(cols, cols, 1, 1, 1, (0, 0)), rearranged
    if shape[0] > 1:
        y, x, apart = _stacked(y, x, shape[0], node.op_type == "ConvTranspose")
        return y, x, apart or b.produced(origin) != (y.size, x.size)
    # A map of one row is a column here, so its windows turn with it.
    turned = y.out == 1 and (x.out > 1 or (y.size == 1 and x.size > 1))
    divided = turned and y.size > 1
    if turned:
        y, x = x, y
    return y, x, divided or b.produced(origin) != (y.size, x.size)


def _stacked(y: Window, x: Window, images: int, grows: bool) -> tuple[Window, Window, bool]:
    """The windows of images that lie below one another.

    Windows that overlap the edge between two images are taken for ones within an image. Images of one row or
    one column are rows of a map, which no window leaves.

    Args:
        grows: strides are those of the output, as transposed convolutions have them.

    Returns:
        rows, columns, and whether the images of the output are not as far apart as those of the map.
    """
    if x.size == x.out == x.kernel == 1:
        y, x = x, y
    stride = y.stride if grows or y.out > 1 else y.size
    before, after = (y.size * stride, y.out) if grows else (y.size, y.out * stride)
    high = Window(y.size * images, y.out * images, y.kernel, stride, y.dilation, y.pad)
    return high, x, before != after


def _padded(axis: Window, size: int, pad: Sequence[int]) -> Window:
    both = axis.pad[0] + pad[0], axis.pad[1] + pad[1]
    return Window(size, axis.out, axis.kernel, axis.stride, axis.dilation, both)


def _axes(node: onnx.NodeProto, shape: Shape, made: Shape, kernel: Sequence[int]) -> tuple[Window, Window]:
    """The windows of every axis as the node states them."""
    n = len(shape) - 2
    kernel = integers(node, "kernel_shape", kernel, length=n, low=1)
    strides = integers(node, "strides", [1] * n, length=n, low=1)
    dilations = integers(node, "dilations", [1] * n, length=n, low=1)
    pads = integers(node, "pads", [0] * 2 * n, length=2 * n, low=0)
    mode = text(node, "auto_pad", "NOTSET", PADDINGS)
    axes = []
    for i, out in enumerate(made[2:]):
        pad = pads[i], pads[n + i]
        if mode.startswith("SAME"):
            reach = (out - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1
            extra = max(0, reach - shape[2 + i])
            less, more = extra // 2, extra - extra // 2
            pad = (less, more) if mode == "SAME_UPPER" else (more, less)
        axes.append(Window(shape[2 + i], out, kernel[i], strides[i], dilations[i], pad))
    return axes[0], axes[1] if n == 2 else NO_AXIS


def conv(b: Builder, node: onnx.NodeProto) -> None:
    """A convolution, grouped, dilated or transposed."""
    name = node.input[0] if node.input else ""
    at = 3 if node.op_type == "QLinearConv" else 1
    weight = node.input[at] if len(node.input) > at else ""
    if name not in b.values or not weight or weight not in b.tensors.static:
        raise InputError(
            f"{label(node)} computes its weights", "give a network whose convolution weights are constants"
        )
    w, shape, out = b.shape(weight, node), b.map_shape(name, node), b.map_shape(node.output[0], node)
    group = integer(node, "group", 1, low=1)
    transposed = node.op_type == "ConvTranspose"
    k, c = (w[1] * group, w[0]) if transposed else (w[0], w[1] * group)
    if len(w) != len(shape) or (k, c) != (out[1], shape[1]) or k % group or c % group:
        raise no_form(
            node, f"has weights of shape {list(w)} in {group} groups, which do not fit {list(shape)}"
        )
    y, x, rearranged = slides(b, node, w[2:])
    if [*integers(node, "kernel_shape", w[2:])] != [*w[2:]]:
        raise no_form(node, f"has a kernel_shape that is not that of its weights, {list(w[2:])}")
    channels, sources = (k // group, c // group, group), (b.value(name, node).origin,)
    if transposed:
        # Every output position meets ceil(kernel / stride) inputs per axis, or one less.
        macs = prod(w) * prod(shape[2:]) * shape[0]
        layer = nest(
            node,
            "conv",
            sources,
            channels,
            (y.out, x.out),
            fy=-(-y.kernel // y.stride),
            fx=-(-x.kernel // x.stride),
            scale_y=y.stride,
            scale_x=x.stride,
            whole_input=rearranged,
            products=macs,
            reads=folded_out(shape),
        )
    else:
        layer = _sliding(node, "conv", sources, channels, (y, x), rearranged, folded_out(shape))
    b.add(node, layer, 1)


def pool(b: Builder, node: onnx.NodeProto) -> None:
    """Pooling with windows."""
    name = node.input[0] if node.input else ""
    source, shape = b.value(name, node).origin, b.map_shape(name, node)
    if not any(a.name == "kernel_shape" for a in node.attribute):
        raise no_form(node, "has no kernel_shape")
    y, x, rearranged = slides(b, node, [1] * (len(shape) - 2))
    everything = (y.out, x.out) == (1, 1) and (y.kernel, x.kernel) == rows_cols(shape, 1)
    whole = rearranged or everything
    layer = _sliding(node, "pool", (source,), (1, 1, shape[1]), (y, x), whole, folded_out(shape))
    b.add(node, layer, 1)


def _sliding(
    node: onnx.NodeProto,
    kind: str,
    sources: tuple[int, ...],
    channels: tuple[int, int, int],
    axes: tuple[Window, Window],
    rearranged: bool,
    reads: int,
) -> Layer:
    y, x = axes
    return nest(
        node,
        kind,
        sources,
        channels,
        (y.out, x.out),
        fy=y.kernel,
        fx=x.kernel,
        stride_y=y.stride,
        stride_x=x.stride,
        dilation_y=y.dilation,
        dilation_x=x.dilation,
        pads=(y.pad[0], x.pad[0], y.pad[1], x.pad[1]),
        whole_input=rearranged,
        reads=reads,
    )
