"""Layers under construction while an ONNX graph is walked through."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx

from .layers import Layer
from .onnx_tensors import Shape, Tensors


@dataclass
class Value:
    """Where a tensor comes from: a layer's position (-1: the input), channel axis, padding still to apply."""

    origin: int
    channel_axis: int
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass
class Builder:
    """Collects layers while walking through a graph."""

    tensors: Tensors
    allow_unknown: bool
    layers: list[Layer] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    charged: list[str] = field(default_factory=list)
    size: tuple[int, int, int] = (1, 1, 1)

    def rows_cols(self, shape: Shape, channel_axis: int) -> tuple[int, int]:
        """Rows and columns of a map: the axes that are neither batch nor channels."""
        rest = [d for i, d in enumerate(shape) if i not in (0, channel_axis)]
        if not rest:
            return 1, 1
        return (rest[0], 1) if len(rest) == 1 else (prod(rest[:-1]), rest[-1])

    def produced(self, position: int) -> tuple[int, int]:
        """Rows and columns of a layer's output or of the input."""
        return (self.layers[position].oy, self.layers[position].ox) if position >= 0 else self.size[1:]

    def channels(self, position: int) -> int:
        """Channels of a layer's output or of the input."""
        return self.layers[position].output_channels if position >= 0 else self.size[0]

    def add(self, node: onnx.NodeProto, layer: Layer, channel_axis: int, output: int = 0) -> None:
        """Append a layer and let a node's output come from it."""
        self.layers.append(layer)
        self.values[node.output[output]] = Value(len(self.layers) - 1, channel_axis)


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
    """Inputs that are maps, not constants."""
    return [i for i in node.input if i in b.values]


def source_of(b: Builder, node: onnx.NodeProto, name: str, expected: tuple[int, int]) -> tuple[int, bool]:
    """Producer of a tensor, and whether it was rearranged on the way (so that tiles do not correspond)."""
    value = b.values[name]
    return value.origin, b.produced(value.origin) != expected
