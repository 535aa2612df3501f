"""ONNX operators that pass maps on: aliases, reshaping, reductions, element-wise operations."""

from __future__ import annotations

from math import prod

import onnx

from hwnas.devices.simulator.onnx.attributes import flag, integer, integers, no_form
from hwnas.devices.simulator.onnx.builder import (
    Builder,
    Value,
    first_map,
    folded,
    folded_out,
    maps_of,
    nest,
    rows_cols,
)
from hwnas.devices.simulator.onnx.tensors import Shape

GLOBAL_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))


def alias(b: Builder, node: onnx.NodeProto, channel_axis: int | None = None) -> None:
    """The outputs are the input map under another name."""
    value = b.values[first_map(b, node)]
    for output in node.output:
        if output:
            b.values[output] = Value(
                value.origin, value.channel_axis if channel_axis is None else channel_axis, value.pads
            )


def plumb(b: Builder, node: onnx.NodeProto) -> None:
    """The same values in another order, under another shape, or some of them."""
    name = first_map(b, node)
    before, after = b.shape(name, node), b.shape(node.output[0], node)
    axis = b.channel_axis(name, node)
    if node.op_type == "Transpose":
        order = integers(node, "perm", range(len(before))[::-1], length=len(before), low=0)
        if sorted(order) != [*range(len(before))]:
            raise no_form(node, f"has perm = {order}, which is no order of {len(before)} axes")
        axis = order.index(axis) if axis in order else axis
    elif prod(before) == prod(after):
        axis = _carried(before, after, axis)
    elif len(after) == len(before) - 1 and node.op_type == "Gather":
        axis -= integer(node, "axis", 0) % len(before) < axis
    elif len(after) != len(before):
        axis = len(after) - 1
    alias(b, node, max(axis, 0))


def _carried(before: Shape, after: Shape, axis: int) -> int:
    """Axis of a reshaped tensor in which the innermost step along an axis lies; else the last one.

    (C, H, W) to (C, HW) keeps channels first; (heads, C / heads) to (C) and back leaves them last.
    """
    step = prod(before[axis + 1 :])
    for i, size in enumerate(after):
        inner = prod(after[i + 1 :])
        if before[axis : axis + 1] != (1,) and size > 1 and inner <= step < inner * size:
            return i
    return len(after) - 1


def reduce(b: Builder, node: onnx.NodeProto) -> None:
    """Global pooling, means and sums over axes."""
    name = first_map(b, node)
    shape = b.shape(name, node)
    origin, channel_axis = b.values[name].origin, b.channel_axis(name, node)
    pooled = node.op_type in GLOBAL_POOLS
    axes = [*range(2, len(shape))] if pooled else _reduced(b, node, shape)
    if axes == [channel_axis]:
        # Mean or variance of one token: the first half of a decomposed layer normalisation.
        one_pass(b, node, False)
        return
    (rows, cols), _ = b.positions(origin, rows_cols(shape, channel_axis))
    channels = (1, 1, shape[channel_axis] if shape else 1)
    size, more = (1, 1), {}
    if folded_out(shape) and channel_axis:
        # Each image of a batch has a result of its own, or each position one over all images.
        kept = [d for i, d in enumerate(shape) if i not in (*axes, channel_axis)]
        size, more = folded(kept), {"reads": prod(shape)}
        rows, cols = prod(d for i, d in enumerate(shape) if i in axes and i != channel_axis), 1
    layer = nest(node, "pool", (origin,), channels, size, fy=rows, fx=cols, whole_input=True, **more)
    keep = pooled or flag(node, "keepdims", True)
    b.add(node, layer, channel_axis if keep else channel_axis - sum(a < channel_axis for a in axes))


def _reduced(b: Builder, node: onnx.NodeProto, shape: Shape) -> list[int]:
    """Axes that a reduction adds up: of an attribute, of an input, or all but the images."""
    axes = integers(node, "axes", [])
    if len(node.input) > 1 and not axes:
        axes = b.tensors.constant(node.input[1]) or []
    if any(not -len(shape) <= a < len(shape) for a in axes):
        raise no_form(node, f"has axes = {axes} of a map with {len(shape)}")
    return sorted({a % len(shape) for a in axes}) or [*range(1, len(shape))]


def binary(b: Builder, node: onnx.NodeProto) -> None:
    """Operations on two maps or more; those with a constant are free."""
    names: dict[int, str] = {}
    for name in maps_of(b, node):
        names.setdefault(b.values[name].origin, name)
    for origin in list(names):
        # The rest of a normalisation that a pass over each token has begun reads the map on the way.
        if origin >= 0 and b.layers[origin].kind == "copy" and b.layers[origin].op.startswith("Reduce"):
            names.pop(b.layers[origin].inputs[0], None)
    if not names:
        first_map(b, node)
    # The larger map first; the others may be vectors that gate it.
    first, *others = sorted(names.values(), key=lambda n: -prod(b.shape(n, node)))
    value = b.values[first]
    b.values[node.output[0]] = Value(value.origin, value.channel_axis)
    out = b.shape(node.output[0], node)
    axis = b.channel_axis(node.output[0], node)
    size, _ = b.positions(value.origin, rows_cols(out, axis))
    for name in others:
        sources = [b.values[node.output[0]].origin, b.values[name].origin]
        rearranged = any(prod(b.produced(source)) not in (prod(size), 1) for source in sources)
        channels = (1, 1, out[axis] if out else 1)
        layer = nest(node, "elementwise", tuple(sources), channels, size, whole_input=rearranged)
        b.add(node, layer, axis)


def pad(b: Builder, node: onnx.NodeProto) -> None:
    """Zeros around a map; those of an image join the padding of the convolution that reads it."""
    alias(b, node)
    pads = integers(node, "pads", []) or (
        (b.tensors.constant(node.input[1]) if len(node.input) > 1 else None) or []
    )
    if len(pads) == 8 and not any(pads[i] for i in (0, 1, 4, 5)):
        value = b.values[node.output[0]]
        top, left, bottom, right = (
            old + new for old, new in zip(value.pads, (pads[2], pads[3], pads[6], pads[7]), strict=True)
        )
        value.pads = (top, left, bottom, right)


def concat(b: Builder, node: onnx.NodeProto) -> None:
    """Maps side by side: along channels by itself, along positions in one pass."""
    name = first_map(b, node)
    origins = list(dict.fromkeys(b.values[n].origin for n in maps_of(b, node)))
    axis = b.channel_axis(name, node)
    shape = b.shape(node.output[0], node)
    own = rows_cols(shape, axis)
    if len(origins) == 1:
        alias(b, node)
        return
    along = integer(node, "axis", 1) % max(1, len(shape)) == axis
    size, _ = b.positions(origins[0], own)
    current = origins[0]
    channels = b.channels(current)
    for origin in origins[1:]:
        channels = channels + b.channels(origin) if along else shape[axis]
        rearranged = not along or any(prod(b.produced(o)) != prod(size) for o in (current, origin))
        layer = nest(node, "concat", (current, origin), (1, 1, channels), size, whole_input=rearranged)
        b.add(node, layer, axis)
        current = len(b.layers) - 1


def resize(b: Builder, node: onnx.NodeProto) -> None:
    """Upsampling and downsampling of a map."""
    name = first_map(b, node)
    shape, out = b.map_shape(name, node), b.map_shape(node.output[0], node)
    (iy, ix), (oy, ox) = rows_cols(shape, 1), rows_cols(out, 1)
    origin = b.values[name].origin
    up = oy % iy == 0 and ox % ix == 0
    layer = nest(
        node,
        "copy",
        (origin,),
        (1, 1, out[1]),
        (oy, ox),
        scale_y=oy // iy if up else 1,
        scale_x=ox // ix if up else 1,
        whole_input=b.produced(origin) != (iy, ix) or not up,
    )
    b.add(node, layer, 1)


def one_pass(b: Builder, node: onnx.NodeProto, whole: bool) -> None:
    """One pass over a map. whole: it needs the complete map before its first result."""
    name = first_map(b, node)
    origin = b.values[name].origin
    shape = b.tensors.shapes.get(name, (1, *b.sizes[0]))
    axis = min(b.values[name].channel_axis, len(shape) - 1)
    rows, cols = b.produced(origin)
    channels = max(1, prod(shape) // (rows * cols))
    layer = nest(node, "copy", (origin,), (1, 1, channels), (rows, cols), whole_input=whole)
    b.add(node, layer, axis)
    for output in node.output[1:]:
        if output:
            b.values[output] = Value(len(b.layers) - 1, axis)
