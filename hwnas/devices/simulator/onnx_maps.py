"""ONNX operators that pass maps on: aliases, reshaping, reductions, element-wise operations."""

from __future__ import annotations

from math import prod

import onnx

from hwnas.errors import InputError

from .onnx_builder import Builder, Value, maps_of, nest, source_of
from .onnx_tensors import attribute

GLOBAL_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))


def alias(b: Builder, node: onnx.NodeProto, channel_axis: int | None = None) -> None:
    """The outputs are the input map under another name."""
    value = b.values[maps_of(b, node)[0]]
    for output in node.output:
        if output:
            b.values[output] = Value(
                value.origin, value.channel_axis if channel_axis is None else channel_axis, value.pads
            )


def plumb(b: Builder, node: onnx.NodeProto) -> None:
    maps = maps_of(b, node)
    value = b.values[maps[0]]
    before = b.tensors.shape(maps[0], node)
    after = b.tensors.shape(node.output[0], node)
    axis = value.channel_axis
    if node.op_type == "Transpose":
        order = attribute(node, "perm", list(range(len(before)))[::-1])
        axis = order.index(axis) if axis in order else axis
    elif len(after) != len(before) or (after != before and node.op_type in ("Reshape", "Flatten")):
        # Flattened or folded: channels are where their number is found, else the last axis (tokens).
        channels = before[axis] if axis < len(before) else 0
        axis = next((i for i in range(len(after) - 1, 0, -1) if after[i] == channels), len(after) - 1)
        if len(after) == 4 and len(before) == 3 and after[1] == channels:
            axis = 1
    alias(b, node, max(axis, 0))


def reduce(b: Builder, node: onnx.NodeProto) -> None:
    name = node.input[0]
    shape = b.tensors.shape(name, node)
    value = b.values[name]
    axes = attribute(node, "axes", [])
    if len(node.input) > 1 and not axes:
        axes = b.tensors.constant(node.input[1]) or []
    if node.op_type in GLOBAL_POOLS:
        axes = list(range(2, len(shape)))
    axes = sorted(a % len(shape) for a in axes) or list(range(1, len(shape)))
    if value.channel_axis in axes and len(axes) == 1:
        # Mean or variance of one token: the first half of a decomposed layer normalisation.
        one_pass(b, node, False)
        return
    rows, cols = b.rows_cols(shape, value.channel_axis)
    channels = shape[value.channel_axis]
    keep = attribute(node, "keepdims", [1])[0] or node.op_type in GLOBAL_POOLS
    layer = nest(node, "pool", (value.origin,), (1, 1, channels), (1, 1), fy=rows, fx=cols, whole_input=True)
    b.add(
        node,
        layer,
        value.channel_axis if keep else value.channel_axis - sum(a < value.channel_axis for a in axes),
    )


def binary(b: Builder, node: onnx.NodeProto) -> None:
    names: dict[int, str] = {}
    for name in maps_of(b, node):
        names.setdefault(b.values[name].origin, name)
    for origin in list(names):
        # The rest of a normalisation that a pass over each token has begun reads the map on the way.
        if origin >= 0 and b.layers[origin].kind == "copy" and b.layers[origin].op.startswith("Reduce"):
            names.pop(b.layers[origin].inputs[0], None)
    # The larger map first; the others may be vectors that gate it.
    first, *others = sorted(names.values(), key=lambda n: -prod(b.tensors.shape(n, node)))
    value = b.values[first]
    b.values[node.output[0]] = Value(value.origin, value.channel_axis)
    out = b.tensors.shape(node.output[0], node)
    size = b.rows_cols(out, value.channel_axis)
    for name in others:
        sources = [b.values[node.output[0]].origin, b.values[name].origin]
        rearranged = any(b.produced(source) not in (size, (1, 1)) for source in sources)
        channels = (1, 1, out[value.channel_axis])
        layer = nest(node, "elementwise", tuple(sources), channels, size, whole_input=rearranged)
        b.add(node, layer, value.channel_axis)


def pad(b: Builder, node: onnx.NodeProto) -> None:
    pads = (
        attribute(node, "pads", [])
        or (b.tensors.constant(node.input[1]) if len(node.input) > 1 else None)
        or []
    )
    alias(b, node)
    if len(pads) == 8:
        before = b.values[node.output[0]].pads
        extra = (pads[2], pads[3], pads[6], pads[7])
        b.values[node.output[0]].pads = (
            before[0] + extra[0],
            before[1] + extra[1],
            before[2] + extra[2],
            before[3] + extra[3],
        )


def concat(b: Builder, node: onnx.NodeProto) -> None:
    names = maps_of(b, node)
    origins = list(dict.fromkeys(b.values[n].origin for n in names))
    axis = b.values[names[0]].channel_axis
    shape = b.tensors.shape(node.output[0], node)
    rows, cols = b.rows_cols(shape, axis)
    if len(origins) == 1:
        alias(b, node)
        return
    current = origins[0]
    channels = b.channels(current)
    for origin in origins[1:]:
        channels += b.channels(origin)
        rearranged = b.produced(current) != (rows, cols) or b.produced(origin) != (rows, cols)
        layer = nest(
            node, "concat", (current, origin), (1, 1, channels), (rows, cols), whole_input=rearranged
        )
        b.add(node, layer, axis)
        current = len(b.layers) - 1


def resize(b: Builder, node: onnx.NodeProto) -> None:
    name = maps_of(b, node)[0]
    shape, out = b.tensors.shape(name, node), b.tensors.shape(node.output[0], node)
    (iy, ix), (oy, ox) = b.rows_cols(shape, 1), b.rows_cols(out, 1)
    source, rearranged = source_of(b, node, name, (iy, ix))
    up = oy % iy == 0 and ox % ix == 0
    layer = nest(
        node,
        "copy",
        (source,),
        (1, 1, out[1]),
        (oy, ox),
        scale_y=oy // iy if up else 1,
        scale_x=ox // ix if up else 1,
        whole_input=rearranged or not up,
    )
    b.add(node, layer, 1)


def one_pass(b: Builder, node: onnx.NodeProto, whole: bool) -> None:
    names = maps_of(b, node)
    if not names:
        raise InputError(
            f"operator {node.op_type} ({node.name or node.output[0]}) has no map among its inputs",
            "check the graph",
        )
    value = b.values[names[0]]
    shape = b.tensors.shape(names[0], node) if names[0] in b.tensors.shapes else (1, *b.size)
    axis = value.channel_axis if value.channel_axis < len(shape) else len(shape) - 1
    rows, cols = b.produced(value.origin)
    channels = max(1, prod(shape[1:]) // (rows * cols))
    layer = nest(node, "copy", (value.origin,), (1, 1, channels), (rows, cols), whole_input=whole)
    for output in range(len(node.output)):
        if node.output[output]:
            if output == 0:
                b.add(node, layer, axis)
            else:
                b.values[node.output[output]] = Value(len(b.layers) - 1, axis)
