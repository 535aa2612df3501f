"""The family of residual layers, basic and bottleneck (ResNet, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.files import LEFT_OUT
from hwnas.measurement import STRICT
from hwnas.networks.blocks.family import Family, Original, resolved
from hwnas.networks.blocks.found import Segment, find_segments
from hwnas.networks.blocks.inherit_chain import fits, most_important, scale_outputs, take_weights
from hwnas.networks.blocks.layers import (
    Activation,
    Norm,
    Output,
    SqueezeExcite,
    check_properties,
    divisible,
    make_activation,
    make_norm,
    slopes,
    start_inside,
    start_norm,
    strides,
)
from hwnas.ranges import Factor, Size

BOTTLENECK = 4  # ResNet's output channels / those of the 3×3 convolution
SE_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class ResidualSpec:
    """One replacement of a block: a chain of residual layers.

    Attributes:
        layer: two k×k convolutions, or 1×1, k×k, 1×1 with a quarter of the channels inside.
        kernel: size of the spatial convolutions.
        depth: number of layers.
        width: factor on the channels inside of the block; its last layer comes back to the block's width.
        activation: one of `layers.Activation`.
        se: squeeze-and-excitation in every layer.
        output: what the block ends with: `relu` where what it replaces is never negative, as in ResNets.
        norm: behind each convolution: `batch` (with an activation behind each sum, as in ResNets), `layer` or
            `none` (with none there, as in EDSR, Lim et al. 2017, figure 2).
    """

    __pydantic_config__ = STRICT
    family: Literal["residual"] = "residual"
    layer: Literal["basic", "bottleneck"]
    kernel: Size
    depth: Size
    width: Factor
    activation: Activation
    se: bool
    output: Literal["relu", "linear"]
    norm: Norm = field(default="batch", metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """Family, layer, activation and attention; the normalisation where it is not the batch's."""
        norm = () if self.norm == "batch" else (self.norm,)
        return self.family, self.layer, self.activation, str(self.se), *norm

    @property
    def name(self) -> str:
        """`residual-basic-k3-d2-relu-w0.5`; `-linear` where it does not end in a ReLU."""
        ends = {"batch": "", "layer": "-layernorm", "none": "-nonorm"}[self.norm]
        ends += ("-se" if self.se else "") + ("-linear" if self.output == "linear" else "")
        return f"residual-{self.layer}-k{self.kernel}-d{self.depth}-{self.activation}{ends}-w{self.width:g}"

    @property
    def inside(self) -> float:
        """Channels of the spatial convolutions over the block's."""
        return self.width / (BOTTLENECK if self.layer == "bottleneck" else 1)


@dataclass(frozen=True, kw_only=True)
class ResidualTable:
    """The values of each property; how it ends is the block's own."""

    __pydantic_config__ = STRICT
    layer: tuple[Literal["basic", "bottleneck"], ...]
    kernel: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Activation | Literal["reference"], ...]
    se: tuple[bool, ...]
    norm: tuple[Norm, ...] = field(default=("batch",), metadata=LEFT_OUT)


def residual_specs(table: ResidualTable, block: Original) -> list[ResidualSpec]:
    """Every candidate of a table for a block."""
    output: Literal["relu", "linear"] = "relu" if block.is_never_negative else "linear"
    return [ResidualSpec(**values, output=output) for values in resolved(table, block)]


class ResidualLayer(nn.Module):
    """x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)"""

    def __init__(
        self, spec: ResidualSpec, c_in: int, inner: int, c_out: int, stride: int, *, ends: bool
    ) -> None:
        super().__init__()
        k = spec.kernel
        if spec.layer == "basic":
            layers = [*_normalised(spec, c_in, inner, k, stride), make_activation(spec.activation, inner)]
            layers += _normalised(spec, inner, c_out, k)
        else:
            hidden = divisible(inner / BOTTLENECK)
            layers = [*_normalised(spec, c_in, hidden, 1), make_activation(spec.activation, hidden)]
            layers += [
                *_normalised(spec, hidden, hidden, k, stride),
                make_activation(spec.activation, hidden),
            ]
            layers += _normalised(spec, hidden, c_out, 1)
        self.body = nn.Sequential(*layers)
        reduced = max(1, c_out // SE_RATIO)
        self.se = SqueezeExcite(c_out, reduced, spec.activation) if spec.se else nn.Identity()
        same = c_in == c_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normalised(spec, c_in, c_out, 1, stride))
        word = spec.output if ends else _behind_sum(spec)
        self.activation = make_activation(word, c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.se(self.body(x)) + self.shortcut(x))
        return y


def build_residual(spec: ResidualSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    c_in, c_out = in_shape[0], out_shape[0]
    inner = divisible(c_out * spec.width)
    layers = []
    for index, stride in enumerate(strides(spec.name, spec.depth, in_shape, out_shape)):
        ends = index == spec.depth - 1
        layer_out = c_out if ends else inner
        layers.append(ResidualLayer(spec, c_in, inner, layer_out, stride, ends=ends))
        c_in = layer_out
    return nn.Sequential(*layers)


def residual_cost(spec: ResidualSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_residual`."""
    (c_in, rows, columns), c_out = in_shape, out_shape[0]
    inner = divisible(c_out * spec.width)
    macs = params = 0
    for index, stride in enumerate(strides(spec.name, spec.depth, in_shape, out_shape)):
        layer_out = c_out if index == spec.depth - 1 else inner
        pixels_in = rows * columns
        rows, columns = -(-rows // stride), -(-columns // stride)
        pixels = rows * columns
        shortcut = c_in * layer_out if c_in != layer_out or stride > 1 else 0
        if spec.layer == "basic":
            hidden, first, spatial = inner, 0, spec.kernel**2 * inner * (c_in + layer_out)
        else:
            hidden = divisible(inner / BOTTLENECK)
            first, spatial = c_in * hidden, spec.kernel**2 * hidden**2 + hidden * layer_out
        reduced = max(1, layer_out // SE_RATIO) if spec.se else 0
        gates = 2 * layer_out * reduced
        macs += first * pixels_in + (spatial + shortcut) * pixels + gates
        params += first + spatial + shortcut + gates + (reduced + layer_out if spec.se else 0)
        inside = hidden * (1 if spec.layer == "basic" else 2)
        params += (1 if spec.norm == "none" else 2) * (inside + layer_out * (2 if shortcut else 1))
        params += slopes(spec.activation, inside + reduced)
        params += slopes(_behind_sum(spec), layer_out) if index < spec.depth - 1 else 0
        c_in = layer_out
    return macs, params


@torch.no_grad()
def match_residual(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: the shortcut that sets the block's channels gets the teacher's statistics,
    and what is added to it starts at nothing.
    """
    for layer in module.children():
        assert isinstance(layer, ResidualLayer)
        convolution, end = layer.body[-2:]
        assert isinstance(convolution, nn.Conv2d)
        is_last, channels = convolution.out_channels == len(mean), convolution.out_channels
        if not is_last and not isinstance(end, nn.Identity):
            continue
        nothing = torch.zeros(channels)
        start_norm(convolution, end, nothing, nothing)
        if isinstance(layer.shortcut, nn.Sequential):
            convolution, norm = layer.shortcut
            assert isinstance(convolution, nn.Conv2d)
            if is_last:
                start_norm(convolution, norm, mean, variance)
            else:
                start_inside(convolution)


def _behind_sum(spec: ResidualSpec) -> Output:
    return spec.activation if spec.norm == "batch" else "linear"


def _normalised(spec: ResidualSpec, c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    bias = spec.norm == "none"
    return [
        nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=bias),
        make_norm(spec.norm, c_out),
    ]


def residual_rate(spec: ResidualSpec) -> float:
    """Without a normalisation behind it a weight bears less."""
    return 4e-2 if spec.norm == "batch" else 4e-3


@torch.no_grad()
def inherit_residual(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """As `Family.inherit`: the first layers of a block without normalisations, for layers of its width."""
    layers = [layer for layer in module.children() if isinstance(layer, ResidualLayer)]
    for layer, segment in zip(layers, find_segments(block), strict=False):
        parts = [part for part in layer.body if not isinstance(part, nn.Identity)]
        convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
        fit = [fits(conv, found) for conv, found in zip(convolutions, segment.layers, strict=False)]
        here, there = convolutions[0].in_channels, segment.layers[0].convolution.in_channels
        same = len(convolutions) == len(segment.layers) and isinstance(layer.shortcut, nn.Identity)
        if segment.scale is None or not all(fit) or not same or here != there:
            return
        if isinstance(layer.body[1], nn.Identity):
            _take(convolutions, segment)


def _take(convolutions: Sequence[nn.Conv2d], segment: Segment) -> None:
    everything = torch.arange(convolutions[0].in_channels)
    inputs = everything
    for number, (conv, source) in enumerate(zip(convolutions, segment.layers, strict=True)):
        is_last = number == len(convolutions) - 1
        behind = None if is_last else segment.layers[number + 1].convolution
        outputs = everything if is_last else most_important(source, behind, conv.out_channels)
        take_weights(conv, source, inputs, outputs)
        inputs = outputs
    assert segment.scale is not None
    scale_outputs(convolutions[-1], segment.scale)


RESIDUAL = Family(
    spec=ResidualSpec,
    table=ResidualTable,
    specs=residual_specs,
    build=build_residual,
    cost=residual_cost,
    match_output=match_residual,
    learning_rate=residual_rate,
    inherit=inherit_residual,
)
