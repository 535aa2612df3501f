"""The layers of a network as loop nests, and the graph between them.

A layer is the seven-dimensional loop nest of ZigZag (Mei et al., IEEE TC 2021): K output channels and
C input channels per group, G groups, OY x OX output positions, FY x FX kernel positions. A depthwise
convolution has K = C = 1; a pooling layer is a depthwise one whose weights take no bits; an
element-wise layer has two inputs and no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hwnas.errors import InputError

MULTIPLYING = ("conv", "matmul")


@dataclass(frozen=True)
class Layer:
    """One loop nest.

    Attributes:
        inputs: positions of the producing layers; -1 is the network's input.
        pads: zero rows and columns around the input: (top, left, bottom, right).
        whole_input: every output tile needs the complete input map (global pooling, the keys and
            values of attention), so the map must be finished before this layer starts.
        second: index of the input that is a whole second operand (attention's keys and values) in place of
            stored weights.
        scale_y, scale_x: outputs along an axis for one input position (upsampling).
        spatial: (dimension, size) pairs that override the unrolling derived from the array.
        products: multiply-accumulates where they are fewer than the loop nest's iterations (transposed
            convolutions, whose windows are ragged); 0 where they are the same.
        reads: numbers of the first input that are read where they are not C x G channels of its map, as of a
            batch that is folded out of other axes; else 0.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    k: int = 1
    c: int = 1
    g: int = 1
    oy: int = 1
    ox: int = 1
    fy: int = 1
    fx: int = 1
    stride_y: int = 1
    stride_x: int = 1
    dilation_y: int = 1
    dilation_x: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    whole_input: bool = False
    second: int | None = None
    op: str = ""
    scale_y: int = 1
    scale_x: int = 1
    spatial: tuple[tuple[str, int], ...] = ()
    products: int = 0
    reads: int = 0

    @property
    def has_weights(self) -> bool:
        """Whether it brings stored weights."""
        return self.kind in MULTIPLYING and self.second is None

    @property
    def output_channels(self) -> int:
        """Channels of the output map."""
        return self.k * self.g

    @property
    def input_channels(self) -> int:
        """Channels of one input map."""
        return self.c * self.g

    @property
    def weight_elements(self) -> int:
        """Stored weights: K x C x G x FY x FX."""
        return self.k * self.c * self.g * self.fy * self.fx if self.has_weights else 0

    @property
    def iterations(self) -> int:
        """Loop iterations: the product of all dimensions, of pooling and element-wise layers as well."""
        return self.k * self.c * self.g * self.fy * self.fx * self.oy * self.ox

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, zero padding included; 0 of others."""
        return (self.products or self.iterations) if self.kind in MULTIPLYING else 0


@dataclass(frozen=True)
class Network:
    """Layers in topological order with the map they start from.

    Attributes:
        input_channels, input_rows, input_cols: the network's input map.
        padded: True for real networks; False for the reference workloads, whose maps grow backwards
            from the last output because they have no zero padding.
        charged: names of operators that are unknown and charged as a copy through memory.
        outputs: positions of layers whose maps leave the network although others read them; the last layer
            and those that nobody reads need not be named.
    """

    name: str
    layers: tuple[Layer, ...]
    input_channels: int
    input_rows: int
    input_cols: int
    padded: bool = True
    charged: tuple[str, ...] = ()
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for position, layer in enumerate(self.layers):
            for source in layer.inputs:
                if not -1 <= source < position:
                    raise InputError(
                        f"network {self.name}: layer {layer.name} reads from position {source}, "
                        "which does not come before it",
                        "list the layers in topological order",
                    )

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each layer the positions that read its output; the last entry is for the network's input."""
        found: list[list[int]] = [[] for _ in range(len(self.layers) + 1)]
        for position, layer in enumerate(self.layers):
            for source in dict.fromkeys(layer.inputs):
                found[source].append(position)
        return tuple(tuple(f) for f in found)

    @property
    def weight_bytes(self) -> int:
        """Stored weights at one byte each."""
        return sum(layer.weight_elements for layer in self.layers)

    @property
    def iterations(self) -> int:
        """Loop iterations of the whole network."""
        return sum(layer.iterations for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return sum(layer.macs for layer in self.layers)


def no_layers() -> InputError:
    """What is wrong with a network of nothing but reshaping and activations; a part may be so."""
    return InputError(
        "the network has no layers", "give one with a convolution, a pooling or a matrix product"
    )


def articulation_points(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Positions after which exactly one map is alive: where a network can be cut.

    Between two of them stands an undividable unit (a residual block, an inception branch): a stack
    takes all of it or none (DeFiNES, HPCA 2023, stack partitioning).
    """
    last_use = {-1: -1}
    for position, layer in enumerate(layers):
        for source in layer.inputs:
            last_use[source] = position
    points = []
    reach = -1
    for position in range(len(layers)):
        # A cut after this layer is clean when no earlier map is read beyond it.
        before = position - 1
        reach = max(reach, last_use.get(before, before))
        if reach <= position:
            points.append(position)
    return tuple(points)
