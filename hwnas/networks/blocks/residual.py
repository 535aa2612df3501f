"""The family of residual layers, basic and bottleneck (ResNet, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.measurement import STRICT
from hwnas.networks.blocks.family import Family, Original, crossed
from hwnas.networks.blocks.layers import ACTIVATIONS, SqueezeExcite, check_properties, divisible, strides
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
        activation: `relu`, `swish` or `hswish`.
        se: squeeze-and-excitation in every layer.
        output: what the block ends with: `relu` where what it replaces is never negative, as in ResNets.
    """

    __pydantic_config__ = STRICT
    family: Literal["residual"] = "residual"
    layer: Literal["basic", "bottleneck"]
    kernel: Size
    depth: Size
    width: Factor
    activation: Literal["relu", "swish", "hswish"]
    se: bool
    output: Literal["relu", "linear"]

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """Family, layer, activation and attention."""
        return self.family, self.layer, self.activation, str(self.se)

    @property
    def name(self) -> str:
        """`residual-basic-k3-d2-relu-w0.5`; `-linear` where it does not end in a ReLU."""
        ends = ("-se" if self.se else "") + ("-linear" if self.output == "linear" else "")
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
    activation: tuple[Literal["relu", "swish", "hswish"], ...]
    se: tuple[bool, ...]


def residual_specs(table: ResidualTable, block: Original) -> list[ResidualSpec]:
    """Every candidate of a table for a block."""
    output: Literal["relu", "linear"] = "relu" if block.is_never_negative else "linear"
    return [ResidualSpec(**values, output=output) for values in crossed(table)]


class ResidualLayer(nn.Module):
    """x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)"""

    def __init__(
        self, spec: ResidualSpec, c_in: int, inner: int, c_out: int, stride: int, *, ends: bool
    ) -> None:
        super().__init__()
        activation = ACTIVATIONS[spec.activation]
        k, pad = spec.kernel, spec.kernel // 2
        if spec.layer == "basic":
            layers = [*_normalised(c_in, inner, k, stride, pad), activation()]
            layers += _normalised(inner, c_out, k, 1, pad)
        else:
            hidden = divisible(inner / BOTTLENECK)
            layers = [*_normalised(c_in, hidden, 1, 1, 0), activation()]
            layers += [*_normalised(hidden, hidden, k, stride, pad), activation()]
            layers += _normalised(hidden, c_out, 1, 1, 0)
        self.body = nn.Sequential(*layers)
        self.se = SqueezeExcite(c_out, max(1, c_out // SE_RATIO), activation) if spec.se else nn.Identity()
        same = c_in == c_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normalised(c_in, c_out, 1, stride, 0))
        self.activation: nn.Module = activation()
        if ends:
            self.activation = nn.ReLU() if spec.output == "relu" else nn.Identity()

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
        params += 2 * (hidden * (1 if spec.layer == "basic" else 2) + layer_out * (2 if shortcut else 1))
        c_in = layer_out
    return macs, params


@torch.no_grad()
def match_residual(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: the shortcut that sets the block's channels gets the teacher's statistics,
    and what is added to it starts at nothing.
    """
    for layer in module.children():
        assert isinstance(layer, ResidualLayer)
        end = layer.body[-1]
        assert isinstance(end, nn.BatchNorm2d)
        if end.num_features != len(mean):
            continue
        nn.init.zeros_(end.weight)
        if isinstance(layer.shortcut, nn.Sequential):
            norm = layer.shortcut[1]
            assert isinstance(norm, nn.BatchNorm2d)
            norm.weight.copy_(variance.sqrt())
            norm.bias.copy_(mean)


def _normalised(c_in: int, c_out: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, kernel, stride, padding=padding, bias=False),
        nn.BatchNorm2d(c_out),
    ]


RESIDUAL = Family(
    spec=ResidualSpec,
    table=ResidualTable,
    specs=residual_specs,
    build=build_residual,
    cost=residual_cost,
    match_output=match_residual,
    learning_rate=4e-2,
)
