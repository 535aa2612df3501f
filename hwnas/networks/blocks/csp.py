"""The family of cross-stage-partial bottlenecks: YOLOv5's C3, YOLOP (CSPNet, Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, cat, nn

from hwnas.networks.blocks.chain import Convolution, ConvolutionPlan
from hwnas.networks.blocks.family import Family, Original, resolved
from hwnas.networks.blocks.found import Found, Segment, divide, linked, run_block
from hwnas.networks.blocks.inherit_chain import fits, most_important, take_convolution
from hwnas.networks.blocks.layers import divisible, start_norm, strides
from hwnas.networks.blocks.plain import PlainSpec, PlainTable


@dataclass(frozen=True, kw_only=True)
class CspSpec(PlainSpec):
    """One replacement of a block: half of its channels go through a chain of bottlenecks, half beside it.

    Attributes:
        kernel: size of the spatial convolutions of the bottlenecks.
        depth: number of bottlenecks: 1×1, k×k, beside a skip.
        width: channels of each half / the block's; 0.5 in YOLOv5.
        activation: behind each convolution but the last.
    """

    family: Literal["csp"] = "csp"


@dataclass(frozen=True, kw_only=True)
class CspTable(PlainTable):
    """The values of each property; how it ends is the block's own."""


def csp_specs(table: CspTable, block: Original) -> list[CspSpec]:
    """Every candidate of a table for a block. Raises InputError: its own activation is wanted and none."""
    return [CspSpec(**values, output=block.output) for values in resolved(table, block)]


class Bottleneck(nn.Module):
    """1×1, k×k, beside a skip. x: (B, C, H, W) → the same shape"""

    def __init__(self, point: ConvolutionPlan, spatial: ConvolutionPlan) -> None:
        super().__init__()
        self.point, self.spatial = Convolution(point), Convolution(spatial)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.spatial(self.point(x))
        return y


@dataclass(frozen=True, kw_only=True)
class CspPlan:
    """The convolutions of a candidate; both halves look at the map that comes out.

    Attributes:
        halvings: 3×3 convolutions of stride 2 before both halves.
        half: what starts each half.
        point, spatial: of each bottleneck.
        merge: of both halves to what comes out.
    """

    halvings: tuple[ConvolutionPlan, ...]
    half: ConvolutionPlan
    point: ConvolutionPlan
    spatial: ConvolutionPlan
    merge: ConvolutionPlan


def plan_csp(spec: CspSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> CspPlan:
    """The convolutions of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    (channels, rows, columns), c_out = in_shape, out_shape[0]
    halvings = []
    for stride in strides(spec.name, spec.depth, in_shape, out_shape):
        if stride == 2:
            rows, columns = -(-rows // 2), -(-columns // 2)
            halvings.append(_plan(spec, channels, c_out, (rows, columns), kernel=3, stride=2))
            channels = c_out
    half, size = divisible(c_out * spec.width), (rows, columns)
    return CspPlan(
        halvings=tuple(halvings),
        half=_plan(spec, channels, half, size),
        point=_plan(spec, half, half, size),
        spatial=_plan(spec, half, half, size, kernel=spec.kernel),
        merge=_plan(spec, 2 * half, c_out, size, activation=spec.output),
    )


def _plan(
    spec: CspSpec,
    c_in: int,
    c_out: int,
    size: tuple[int, int],
    *,
    kernel: int = 1,
    stride: int = 1,
    activation: str = "",
) -> ConvolutionPlan:
    return ConvolutionPlan(
        kernel=kernel,
        padding=kernel // 2,
        stride=stride,
        c_in=c_in,
        c_out=c_out,
        rows=size[0],
        columns=size[1],
        norm="batch",
        activation=activation or spec.activation,
    )


class Csp(nn.Module):
    """x: (B, C_in, H, W) → (B, C_out, H, W)"""

    def __init__(self, plan: CspPlan, depth: int) -> None:
        super().__init__()
        self.through, self.beside = Convolution(plan.half), Convolution(plan.half)
        self.bottlenecks = nn.Sequential(*(Bottleneck(plan.point, plan.spatial) for _ in range(depth)))
        self.merge = Convolution(plan.merge)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.merge(cat([self.bottlenecks(self.through(x)), self.beside(x)], 1))
        return y


def build_csp(spec: CspSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    plan = plan_csp(spec, in_shape, out_shape)
    return nn.Sequential(*(Convolution(halving) for halving in plan.halvings), Csp(plan, spec.depth))


def csp_cost(spec: CspSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `layers.strides`."""
    plan = plan_csp(spec, in_shape, out_shape)
    bottlenecks = [plan.point, plan.spatial] * spec.depth
    costs = [each.cost for each in (*plan.halvings, plan.half, plan.half, *bottlenecks, plan.merge)]
    return sum(macs for macs, _ in costs), sum(params for _, params in costs)


@torch.no_grad()
def match_csp(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: the last normalisation gets the teacher's statistics."""
    *_, last = module.children()
    assert isinstance(last, Csp)
    start_norm(last.merge.convolution, last.merge.norm, mean, variance)


@dataclass(frozen=True, kw_only=True)
class FoundCsp:
    """What a block of the reference consists of, as `CspPlan`."""

    halvings: Sequence[Found]
    through: Found
    beside: Found
    bottlenecks: Sequence[Segment]
    merge: Found


def find_csp(block: nn.Module) -> FoundCsp | None:
    """Whether a block is a cross-stage-partial bottleneck, known by what it does to a random map."""
    calls, _, end = run_block(block)
    segments = divide(calls)
    if len(segments) < 3:
        return None
    *chain, beside, merge = segments
    half, whole = beside.y.shape[1], merge.x.shape[1]
    joins = whole == 2 * half and torch.equal(merge.x[:, half:], beside.y)
    if not joins or len(beside.layers) != 1 or len(merge.layers) != 1 or not torch.equal(merge.y, end):
        return None
    start, *bottlenecks = linked(chain, merge.x[:, :half]) or chain
    number = next((n for n, layer in enumerate(start.layers) if torch.equal(layer.x, beside.x)), None)
    if number is None:
        return None
    return FoundCsp(
        halvings=start.layers[:number],
        through=start.layers[number],
        beside=beside.layers[0],
        bottlenecks=[each for each in bottlenecks if each.scale is not None and len(each.layers) == 2],
        merge=merge.layers[0],
    )


@torch.no_grad()
def inherit_csp(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """As `Family.inherit`: a block of this kind gives its first bottlenecks, and the channels that matter."""
    source = find_csp(block)
    *halvings, last = [layer for layer in module.children() if isinstance(layer, Csp | Convolution)]
    assert isinstance(last, Csp)
    if source is None or len(halvings) != len(source.halvings):
        return
    channels = source.through.convolution.in_channels
    if last.through.convolution.in_channels != channels:
        return
    everything = torch.arange(channels)
    inputs = torch.arange(source.halvings[0].convolution.in_channels) if halvings else everything
    for halving, found in zip(halvings, source.halvings, strict=True):
        assert isinstance(halving, Convolution)
        if fits(halving.convolution, found):
            take_convolution(halving, found, inputs, torch.arange(found.convolution.out_channels))
        inputs = everything
    wanted = last.through.convolution.out_channels
    through, beside = (most_important(half, None, wanted) for half in (source.through, source.beside))
    take_convolution(last.through, source.through, everything, through)
    take_convolution(last.beside, source.beside, everything, beside)
    for layer, segment in zip(last.bottlenecks, source.bottlenecks, strict=False):
        assert isinstance(layer, Bottleneck)
        _take_bottleneck(layer, segment, through)
    if (
        len(through) == wanted
        and source.merge.convolution.out_channels == last.merge.convolution.out_channels
    ):
        outputs = torch.arange(last.merge.convolution.out_channels)
        joined = torch.cat([through, beside + source.through.convolution.out_channels])
        take_convolution(last.merge, source.merge, joined, outputs)


def _take_bottleneck(layer: Bottleneck, segment: Segment, channels: Tensor) -> None:
    point, spatial = segment.layers
    if fits(layer.point.convolution, point) and fits(layer.spatial.convolution, spatial):
        inner = most_important(point, spatial.convolution, layer.point.convolution.out_channels)
        take_convolution(layer.point, point, channels, inner)
        take_convolution(layer.spatial, spatial, inner, channels)


CSP = Family(
    spec=CspSpec,
    table=CspTable,
    specs=csp_specs,
    build=build_csp,
    cost=csp_cost,
    match_output=match_csp,
    learning_rate=4e-2,
    inherit=inherit_csp,
)
