"""The family of inverted bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hwnas.measurement import STRICT
from hwnas.networks.blocks.bottleneck import InvertedBottleneck, Layer, LayerPlan
from hwnas.networks.blocks.family import REFERENCE, Family, Original, crossed
from hwnas.networks.blocks.inherit import inherit
from hwnas.networks.blocks.layers import Activation, check_properties, divisible, strides
from hwnas.ranges import Factor, Size

_Activation = Activation | Literal["reference"]
_Se = bool | Literal["reference"]


@dataclass(frozen=True, kw_only=True)
class InvertedBottleneckSpec:
    """One replacement of a block: a chain of inverted bottlenecks (DONNA 4.1.1).

    Attributes:
        kernel: size of the spatial convolution.
        expand: hidden channels of a layer / its input channels.
        depth: number of layers.
        activation: one of `layers.Activation`.
        se: squeeze-and-excitation in every layer.
        layer: spatial convolution one channel at a time, or in groups of 8 channels; or a shift in its place,
            learned for each 32 channels (ShiftNet; DONNA 4.1.2).
        width: factor on the channels inside of the block; its last layer comes back to the block's width,
            so that any choice fits beside any other.
    """

    __pydantic_config__ = STRICT
    family: Literal["inverted-bottleneck"] = "inverted-bottleneck"
    kernel: Size
    expand: Size
    depth: Size
    activation: Activation
    se: bool
    layer: Layer
    width: Factor

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, expand=self.expand, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """Family, layer, activation and attention."""
        return self.family, self.layer, self.activation, str(self.se)

    @property
    def name(self) -> str:
        """`k5-e3-d2-swish-se-depthwise-w0.5`."""
        se = "-se" if self.se else ""
        return (
            f"k{self.kernel}-e{self.expand}-d{self.depth}-{self.activation}{se}-{self.layer}-w{self.width:g}"
        )

    @property
    def inside(self) -> float:
        """Hidden channels of a layer over the block's."""
        return self.expand * self.width


@dataclass(frozen=True, kw_only=True)
class Properties:
    """The values that each property may have."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...] | None = None
    expand: tuple[Size, ...] | None = None
    depth: tuple[Size, ...] | None = None
    activation: tuple[_Activation, ...] | None = None
    se: tuple[_Se, ...] | None = None
    layer: tuple[Layer, ...] | None = None
    width: tuple[Factor, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Together:
    """Values of some properties that only go together."""

    __pydantic_config__ = STRICT
    kernel: Size | None = None
    expand: Size | None = None
    depth: Size | None = None
    activation: _Activation | None = None
    se: _Se | None = None
    layer: Layer | None = None
    width: Factor | None = None


@dataclass(frozen=True, kw_only=True)
class InvertedBottleneckTable:
    """Each property is named in `properties`, or in each table of `together`."""

    __pydantic_config__ = STRICT
    properties: Properties = Properties()
    together: tuple[Together, ...] = ()

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination, as arguments of `InvertedBottleneckSpec`; `reference` is not resolved yet.

        Raises:
            ValueError: a property is missing, or stands in both places; its text starts with the key.
        """
        groups = [_given(group) for group in self.together]
        crossed_ones = _given(self.properties)
        for key in vars(self.properties):
            named = [key in group for group in groups]
            if key in crossed_ones and any(named):
                raise ValueError(f"{key} stands in properties and in together, it must be in one of them")
            if key not in crossed_ones and not (named and all(named)):
                raise ValueError(f"{key} is missing, it must be in properties or in each table of together")
        return [values | group for values in crossed(self.properties) for group in groups or [{}]]


def _given(table: Properties | Together) -> dict[str, Any]:
    return {key: value for key, value in vars(table).items() if value is not None}


def inverted_bottlenecks(table: InvertedBottleneckTable, block: Original) -> list[InvertedBottleneckSpec]:
    """Every candidate of a table for a block. Raises InputError: its own activation is wanted and none."""
    return [
        InvertedBottleneckSpec(
            **{key: getattr(block, key) if value == REFERENCE else value for key, value in values.items()}
        )
        for values in table.combinations()
    ]


def plan(spec: InvertedBottleneckSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> list[LayerPlan]:
    """The layers of a candidate: the map is halved as early as possible, as in the networks it replaces.

    Args:
        in_shape: (C, H, W) of the block's input.
        out_shape: (C, H, W) of the block's output.

    Raises:
        InputError: no chain of `depth` layers goes from the one size to the other.
    """
    (c_in, rows, columns), c_out = in_shape, out_shape[0]
    inner = divisible(c_out * spec.width)
    layers = []
    for index, stride in enumerate(strides(spec.name, spec.depth, in_shape, out_shape)):
        hidden = divisible(c_in * spec.expand * (spec.width if index == 0 else 1.0))
        layer_out = c_out if index == spec.depth - 1 else inner
        layers.append(
            LayerPlan(
                kernel=spec.kernel,
                activation=spec.activation,
                se=spec.se,
                layer=spec.layer,
                c_in=c_in,
                hidden=hidden,
                c_out=layer_out,
                stride=stride,
                rows=rows,
                columns=columns,
            )
        )
        c_in, rows, columns = layer_out, -(-rows // stride), -(-columns // stride)
    return layers


def build_candidate(
    spec: InvertedBottleneckSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> nn.Sequential:
    """The untrained module of a candidate; arguments and errors as for `plan`."""
    return nn.Sequential(*(InvertedBottleneck(layer) for layer in plan(spec, in_shape, out_shape)))


@torch.no_grad()
def match_output(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Let a fresh candidate's output have this mean and variance (C,) in each channel.

    The layers that set the block's channels get them in their last normalisation; the residual layers
    behind those start by adding nothing.
    """
    for layer in module.children():
        assert isinstance(layer, InvertedBottleneck)
        norm = layer.project[1]
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.num_features == len(mean):
            norm.weight.copy_(torch.zeros_like(mean) if layer.residual else variance.sqrt())
            norm.bias.copy_(torch.zeros_like(mean) if layer.residual else mean)


def cost(spec: InvertedBottleneckSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters of the candidate's module; arguments and errors as for `plan`."""
    costs = [layer.cost for layer in plan(spec, in_shape, out_shape)]
    return sum(macs for macs, _ in costs), sum(params for _, params in costs)


INVERTED_BOTTLENECK = Family(
    spec=InvertedBottleneckSpec,
    table=InvertedBottleneckTable,
    specs=inverted_bottlenecks,
    build=build_candidate,
    cost=cost,
    match_output=match_output,
    learning_rate=4e-2,
    inherit=inherit,
)
