"""The family of ConvNeXt layers (Liu et al. 2022, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.measurement import STRICT
from hwnas.networks.blocks.family import Family, Original, crossed
from hwnas.networks.blocks.layers import (
    NORM_EPS,
    Activation,
    ChannelNorm,
    check_properties,
    divisible,
    make_activation,
    slopes,
    strides,
)
from hwnas.ranges import Factor, Size

LAYER_SCALE = 1e-6


@dataclass(frozen=True, kw_only=True)
class ConvNextSpec:
    """One replacement of a block: a chain of ConvNeXt layers.

    Attributes:
        kernel: size of the depthwise convolution.
        expand: hidden channels of a layer / its channels.
        depth: number of layers.
        width: factor on the channels inside of the block, which ends with its own width again.
        activation: of the hidden channels.
    """

    __pydantic_config__ = STRICT
    family: Literal["convnext"] = "convnext"
    kernel: Size
    expand: Size
    depth: Size
    width: Factor
    activation: Activation

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, expand=self.expand, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """Family and activation."""
        return self.family, self.activation

    @property
    def name(self) -> str:
        """`convnext-k7-e4-d2-gelu-w1`."""
        return f"convnext-k{self.kernel}-e{self.expand}-d{self.depth}-{self.activation}-w{self.width:g}"

    @property
    def inside(self) -> float:
        """Hidden channels of a layer over the block's."""
        return self.expand * self.width


@dataclass(frozen=True, kw_only=True)
class ConvNextTable:
    """The values of each property."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...]
    expand: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Activation, ...]


def convnext_specs(table: ConvNextTable, block: Original) -> list[ConvNextSpec]:
    """Every candidate of a table, whatever the block."""
    return [ConvNextSpec(**values) for values in crossed(table)]


class ConvNextLayer(nn.Module):
    """x: (B, C, H, W) → the same shape"""

    def __init__(self, spec: ConvNextSpec, channels: int) -> None:
        super().__init__()
        hidden = channels * spec.expand
        self.depthwise = nn.Conv2d(channels, channels, spec.kernel, padding=spec.kernel // 2, groups=channels)
        self.norm = ChannelNorm(channels, eps=NORM_EPS)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.activation = make_activation(spec.activation, hidden)
        self.project = nn.Conv2d(hidden, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.activation(self.expand(self.norm(self.depthwise(x)))))
        return x + self.scale * y


@dataclass(frozen=True, kw_only=True)
class ResamplePlan:
    """Sets channels, and halves the map, rounded up, where the stride is 2."""

    c_in: int
    c_out: int
    stride: int
    rows: int
    columns: int

    @property
    def kernel(self) -> int:
        """As the stride; 3 where a kernel of 2 would drop the last row of an odd map."""
        return 3 if self.stride == 2 and (self.rows % 2 or self.columns % 2) else self.stride

    @property
    def fan_in(self) -> int:
        """Values that one output is made of."""
        return self.c_in * self.kernel**2

    @property
    def pixels_out(self) -> int:
        """Of the map that comes out."""
        return -(-self.rows // self.stride) * -(-self.columns // self.stride)

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters."""
        weights = self.fan_in * self.c_out
        return weights * self.pixels_out, weights + self.c_out + 2 * self.c_in


class Resample(nn.Sequential):
    """x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)

    Its input is normalised, so that a random output has the bias as mean and the variance of the weights.
    """

    def __init__(self, plan: ResamplePlan) -> None:
        self.fan_in = plan.fan_in
        super().__init__(
            ChannelNorm(plan.c_in, eps=NORM_EPS),
            nn.Conv2d(plan.c_in, plan.c_out, plan.kernel, plan.stride, padding=plan.kernel // 3),
        )


@dataclass(frozen=True, kw_only=True)
class MapPlan:
    """How a candidate changes the map around its layers.

    Attributes:
        channels: of the layers.
        before: what stands before each layer; None where nothing has to change.
        pixels: of the map of each layer.
        behind: what comes back to the block's channels.
    """

    channels: int
    before: tuple[ResamplePlan | None, ...]
    pixels: tuple[int, ...]
    behind: ResamplePlan | None

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters of everything but the layers."""
        costs = [plan.cost for plan in (*self.before, self.behind) if plan is not None]
        return sum(macs for macs, _ in costs), sum(params for _, params in costs)


def plan_map(
    name: str, depth: int, width: float, in_shape: Sequence[int], out_shape: Sequence[int]
) -> MapPlan:
    """The plan of a candidate with `depth` layers; arguments and errors as for `layers.strides`."""
    (c_in, rows, columns), c_out = in_shape, out_shape[0]
    inner = c_out if width == 1 else divisible(c_out * width)
    before: list[ResamplePlan | None] = []
    pixels = []
    for stride in strides(name, depth, in_shape, out_shape):
        plan = ResamplePlan(c_in=c_in, c_out=inner, stride=stride, rows=rows, columns=columns)
        before.append(plan if stride > 1 or c_in != inner else None)
        c_in, rows, columns = inner, -(-rows // stride), -(-columns // stride)
        pixels.append(rows * columns)
    behind = ResamplePlan(c_in=inner, c_out=c_out, stride=1, rows=rows, columns=columns)
    return MapPlan(
        channels=inner,
        before=tuple(before),
        pixels=tuple(pixels),
        behind=None if inner == c_out else behind,
    )


def build_convnext(spec: ConvNextSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    plan = plan_map(spec.name, spec.depth, spec.width, in_shape, out_shape)
    layers: list[nn.Module] = []
    for before in plan.before:
        layers += [] if before is None else [Resample(before)]
        layers.append(ConvNextLayer(spec, plan.channels))
    return nn.Sequential(*layers, *([] if plan.behind is None else [Resample(plan.behind)]))


def convnext_cost(spec: ConvNextSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_convnext`."""
    plan = plan_map(spec.name, spec.depth, spec.width, in_shape, out_shape)
    channels, hidden = plan.channels, plan.channels * spec.expand
    weights = channels * (spec.kernel**2 + 2 * hidden)
    macs, params = plan.cost
    of_layer = weights + hidden + 5 * channels + slopes(spec.activation, hidden)
    return macs + weights * sum(plan.pixels), params + spec.depth * of_layer


@torch.no_grad()
def match_resample(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: whatever sets the block's channels gets the teacher's statistics."""
    for layer in module.children():
        if isinstance(layer, Resample):
            convolution = layer[1]
            assert isinstance(convolution, nn.Conv2d)
            if convolution.out_channels == len(mean):
                nn.init.normal_(convolution.weight, std=layer.fan_in**-0.5)
                convolution.weight.mul_(variance.sqrt()[:, None, None, None])
                assert convolution.bias is not None
                convolution.bias.copy_(mean)


CONVNEXT = Family(
    spec=ConvNextSpec,
    table=ConvNextTable,
    specs=convnext_specs,
    build=build_convnext,
    cost=convnext_cost,
    match_output=match_resample,
    learning_rate=1.5e-2,
)
