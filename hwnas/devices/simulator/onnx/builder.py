"""Layers under construction while an ONNX graph is walked through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx

from hwnas.devices.simulator.layers import Layer
from hwnas.devices.simulator.onnx.attributes import SMALLER, no_form, not_taken
from hwnas.devices.simulator.onnx.operators import read_by
from hwnas.devices.simulator.onnx.tensors import Shape, Tensors

# Iterations of one layer beyond this are no network's, and would overflow the tables.
MOST_ITERATIONS = 1 << 56


@dataclass
class Value:
    """Where a tensor comes from: a layer's position (-1, -2, …: an input), channel axis, padding to apply."""

    origin: int
    channel_axis: int
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass
class Builder:
    """Collects layers while walking through a graph.

    Attributes:
        values: every map met so far by its name; what is not here is a constant, or unknown.
        sizes: channels, rows and columns of each input.
    """

    tensors: Tensors
    allow_unknown: bool
    layers: list[Layer] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    charged: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int, int]] = field(default_factory=list)

    def value(self, name: str, node: onnx.NodeProto) -> Value:
        """Where a map that a node reads comes from. Raises InputError where nothing has made it."""
        if name not in self.values:
            raise no_form(node, f"reads {name or 'nothing'}, which is no map that the graph has made before")
        return self.values[name]

    def shape(self, name: str, node: onnx.NodeProto) -> Shape:
        """Shape of a tensor. Raises InputError, naming the node, where it is not static."""
        return self.tensors.shape(name, node)

    def map_shape(self, name: str, node: onnx.NodeProto) -> Shape:
        """Shape of a map that windows slide over: images, channels, one or two axes.

        Raises:
            InputError: it has other dimensions.
        """
        shape = self.shape(name, node)
        if len(shape) < 3:
            raise no_form(node, f"takes a map of {list(shape)}, which has no axis for windows")
        if len(shape) > 4:
            raise not_taken(
                node,
                f"has {len(shape) - 2}-dimensional windows; "
                "the simulator knows one- and two-dimensional ones",
            )
        return shape

    def channel_axis(self, name: str, node: onnx.NodeProto) -> int:
        """Axis of a map's channels; the last one where the map has fewer dimensions than were followed."""
        return min(self.value(name, node).channel_axis, max(0, len(self.shape(name, node)) - 1))

    def produced(self, position: int) -> tuple[int, int]:
        """Rows and columns of a layer's output or of an input."""
        return (
            (self.layers[position].oy, self.layers[position].ox)
            if position >= 0
            else self.sizes[~position][1:]
        )

    def channels(self, position: int) -> int:
        """Channels of a layer's output or of an input."""
        return self.layers[position].output_channels if position >= 0 else self.sizes[~position][0]

    def positions(self, origin: int, own: tuple[int, int]) -> tuple[tuple[int, int], bool]:
        """Rows and columns of what a map's producer handed on under another shape.

        Args:
            own: rows and columns that the tensor's own shape tells.

        Returns:
            the producer's, as long as there are as many positions: tokens keep the geometry of the map they
            come from, so one computation costs the same however its operands are folded. Else own ones, and
            True: tiles of one do not correspond to tiles of the other.
        """
        made = self.produced(origin)
        return (made, False) if prod(made) == prod(own) else (own, True)

    def add(self, node: onnx.NodeProto, layer: Layer, channel_axis: int, output: int = 0) -> None:
        """Append a layer and let a node's output come from it.

        Raises:
            InputError: it computes nothing, or is so large that its cost has no meaning.
        """
        if min(layer.k, layer.c, layer.g, layer.fy, layer.fx, layer.oy, layer.ox) < 1:
            raise not_taken(
                node, "computes nothing: one of its maps is empty", "give a network whose maps hold numbers"
            )
        if layer.iterations > MOST_ITERATIONS:
            raise not_taken(
                node,
                f"takes {layer.iterations:,} operations; the simulator takes {MOST_ITERATIONS:,} at most",
                SMALLER,
            )
        self.layers.append(layer)
        self.values[node.output[output]] = Value(len(self.layers) - 1, channel_axis)


def folded(sizes: Iterable[int]) -> tuple[int, int]:
    """Rows and columns of a map with some axes beside that of its channels.

    Axes of size one say nothing. A single axis is a column whichever way it lies, so (C, 1, T), (C, T, 1) and
    T tokens of C channels are one thing; of several the last one is columns.
    """
    wide = [d for d in sizes if d != 1]
    if len(wide) <= 1:
        return (wide[0] if wide else 1), 1
    return prod(wide[:-1]), wide[-1]


def rows_cols(shape: Shape, channel_axis: int) -> tuple[int, int]:
    """Rows and columns of a map: all axes but that of the channels, a folded batch among them."""
    return folded(d for i, d in enumerate(shape) if i != channel_axis)


def folded_out(shape: Shape) -> int:
    """Numbers of a map of several images (N, C, …), which its producer may know otherwise; 0 of one."""
    return prod(shape) if len(shape) > 1 and shape[0] > 1 else 0


def nest(
    node: onnx.NodeProto,
    kind: str,
    inputs: tuple[int, ...],
    channels: tuple[int, int, int],
    size: tuple[int, int],
    **more: Any,
) -> Layer:
    """A node's loop nest. channels: (K, C, G); size: output rows and columns; more: as for Layer."""
    name = node.name or node.output[0]
    return Layer(name, kind, inputs, *channels, *size, op=node.op_type, **more)


def maps_of(b: Builder, node: onnx.NodeProto) -> list[str]:
    """What a node reads that are maps, not constants."""
    return [i for i in read_by(node) if i in b.values]


def first_map(b: Builder, node: onnx.NodeProto) -> str:
    """The first input that is a map. Raises InputError where there is none."""
    names = maps_of(b, node)
    if not names:
        raise no_form(node, "has no map among its inputs")
    return names[0]
