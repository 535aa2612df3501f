"""The family of depthwise-separable layers: the towers and BiFPN nodes of EfficientDet (Tan et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.networks.blocks.family import Family, Original, resolved
from hwnas.networks.blocks.found import Found, find_segments
from hwnas.networks.blocks.inherit_chain import at_kernel, folded, most_important, slopes_of, take_norm
from hwnas.networks.blocks.layers import (
    divisible,
    make_activation,
    slopes,
    start_norm,
    strides,
)
from hwnas.networks.blocks.plain import PlainSpec, PlainTable


@dataclass(frozen=True, kw_only=True)
class SeparableSpec(PlainSpec):
    """One replacement of a block: a chain of depthwise-separable layers.

    Attributes:
        kernel: size of the depthwise convolutions.
        depth: number of layers.
        width: factor on the channels inside of the block; its last layer comes back to the block's width.
        activation: behind each layer but the last.
    """

    family: Literal["separable"] = "separable"


@dataclass(frozen=True, kw_only=True)
class SeparableTable(PlainTable):
    """The values of each property; how it ends is the block's own."""


def separable_specs(table: SeparableTable, block: Original) -> list[SeparableSpec]:
    """Every candidate of a table for a block. Raises InputError: its own activation is wanted and none."""
    return [SeparableSpec(**values, output=block.output) for values in resolved(table, block)]


@dataclass(frozen=True, kw_only=True)
class SeparablePlan:
    """One layer; rows and columns are those that it gives."""

    kernel: int
    stride: int
    c_in: int
    c_out: int
    rows: int
    columns: int
    activation: str

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters."""
        weights = self.c_in * (self.kernel**2 + self.c_out)
        biases = 2 * self.c_out + slopes(self.activation, self.c_out)
        return weights * self.rows * self.columns, weights + biases


class Separable(nn.Module):
    """Depthwise k×k, pointwise, normalisation, activation.

    x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)
    """

    def __init__(self, plan: SeparablePlan) -> None:
        super().__init__()
        kernel, c_in = plan.kernel, plan.c_in
        self.depthwise = nn.Conv2d(
            c_in, c_in, kernel, plan.stride, padding=kernel // 2, groups=c_in, bias=False
        )
        self.pointwise = nn.Conv2d(c_in, plan.c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(plan.c_out)
        self.activation = make_activation(plan.activation, plan.c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(self.pointwise(self.depthwise(x))))
        return y


def plan_separable(
    spec: SeparableSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> list[SeparablePlan]:
    """The layers of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    (c_in, rows, columns), c_out = in_shape, out_shape[0]
    inner = c_out if spec.width == 1 else divisible(c_out * spec.width)
    plans = []
    for index, stride in enumerate(strides(spec.name, spec.depth, in_shape, out_shape)):
        is_last = index == spec.depth - 1
        rows, columns = -(-rows // stride), -(-columns // stride)
        plan = SeparablePlan(
            kernel=spec.kernel,
            stride=stride,
            c_in=c_in,
            c_out=c_out if is_last else inner,
            rows=rows,
            columns=columns,
            activation=spec.output if is_last else spec.activation,
        )
        plans.append(plan)
        c_in = plan.c_out
    return plans


def build_separable(spec: SeparableSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    return nn.Sequential(*(Separable(plan) for plan in plan_separable(spec, in_shape, out_shape)))


def separable_cost(spec: SeparableSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_separable`."""
    costs = [plan.cost for plan in plan_separable(spec, in_shape, out_shape)]
    return sum(macs for macs, _ in costs), sum(params for _, params in costs)


@torch.no_grad()
def match_separable(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: the last normalisation gets the teacher's statistics."""
    *_, last = module.children()
    assert isinstance(last, Separable)
    start_norm(last.pointwise, last.norm, mean, variance)


@torch.no_grad()
def inherit_separable(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """As `Family.inherit`: weights of a block that is such a chain itself.

    The first layers take after the block's first ones; the last one takes after its last one where no layer
    and no channel is left out.
    """
    segments = find_segments(block)
    if len(segments) != 1 or segments[0].scale is not None:
        return
    sources = _pairs(segments[0].layers)
    layers = [layer for layer in module.children() if isinstance(layer, Separable)]
    inputs = torch.arange(layers[0].depthwise.in_channels)
    for number, (layer, source) in enumerate(zip(layers, sources, strict=False)):
        depthwise, pointwise = source
        if depthwise.convolution.stride != layer.depthwise.stride:
            return
        is_last = layer is layers[-1]
        wanted = layer.pointwise.out_channels
        whole = len(inputs) == depthwise.convolution.in_channels and len(layers) == len(sources)
        if is_last and not (whole and wanted == pointwise.convolution.out_channels):
            return
        behind = None if is_last or number + 1 == len(sources) else sources[number + 1][1].convolution
        outputs = torch.arange(wanted) if is_last else most_important(pointwise, behind, wanted)
        _take(layer, source, inputs, outputs)
        inputs = outputs


def _pairs(layers: Sequence[Found]) -> list[tuple[Found, Found]]:
    """Depthwise and pointwise convolutions in turn; [] where they are others."""
    pairs = list(zip(layers[::2], layers[1::2], strict=False))
    for first, second in pairs:
        depthwise, pointwise = first.convolution, second.convolution
        bare = first.norm is None and first.activation is None and isinstance(depthwise, nn.Conv2d)
        square = depthwise.kernel_size[0] == depthwise.kernel_size[1] and depthwise.kernel_size[0] % 2 == 1
        each = depthwise.groups == depthwise.in_channels == depthwise.out_channels
        point = pointwise.kernel_size == (1, 1) and pointwise.groups == 1
        if not (bare and square and each and point and depthwise.dilation == (1, 1)):
            return []
    return pairs if 2 * len(pairs) == len(layers) else []


def _take(layer: Separable, source: tuple[Found, Found], inputs: Tensor, outputs: Tensor) -> None:
    depthwise, pointwise = source
    weight, shift = folded(depthwise)
    kept, made = len(inputs), len(outputs)
    layer.depthwise.weight[:kept] = at_kernel(weight[inputs], layer.depthwise.kernel_size[0])
    weight = pointwise.convolution.weight[outputs]
    layer.pointwise.weight[:made] = 0.0
    layer.pointwise.weight[:made, :kept] = weight[:, inputs]
    if pointwise.norm is not None:
        bias = weight[:, :, 0, 0] @ shift  # what a bias of the depthwise one becomes
        if pointwise.convolution.bias is not None:
            bias = bias + pointwise.convolution.bias[outputs]
        take_norm(layer.norm, pointwise.norm, None, outputs)
        assert layer.norm.running_mean is not None
        layer.norm.running_mean[:made] -= bias.cpu()
    if isinstance(layer.activation, nn.PReLU):
        layer.activation.weight[:made] = slopes_of(pointwise)[outputs]


SEPARABLE = Family(
    spec=SeparableSpec,
    table=SeparableTable,
    specs=separable_specs,
    build=build_separable,
    cost=separable_cost,
    match_output=match_separable,
    learning_rate=4e-2,
    inherit=inherit_separable,
)
