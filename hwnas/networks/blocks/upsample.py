"""The family of blocks that enlarge a map by a whole factor: the ends of EDSR, waifu2x and U-Nets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.measurement import STRICT
from hwnas.networks.blocks.chain import (
    Convolution,
    ConvolutionPlan,
    padded_steps,
    plan_chain,
    unpadded_steps,
)
from hwnas.networks.blocks.family import Family, Original, resolved
from hwnas.networks.blocks.found import Found, find_segments
from hwnas.networks.blocks.inherit_chain import at_kernel, folded, slopes_of, take_first
from hwnas.networks.blocks.layers import (
    Activation,
    Output,
    check_properties,
    divisible,
    make_activation,
    slopes,
    start_inside,
    start_norm,
)
from hwnas.ranges import Factor, Size

LARGEST_FACTOR = 8


@dataclass(frozen=True, kw_only=True)
class UpsampleSpec:
    """One replacement of a block: convolutions on the small map, of which the last one enlarges it.

    Attributes:
        upsample: by what: a transposed convolution; a convolution to factor² as many channels, which become
            pixels (Shi et al. 2016); or a convolution of the map whose pixels are repeated.
        kernel: size of the convolutions on the small map; of the largest one where they are not padded.
        depth: number of layers.
        width: factor on the channels inside, which are otherwise those that come in.
        activation: behind each layer but the last.
        output: what the block ends with, as the one that it replaces.
    """

    __pydantic_config__ = STRICT
    family: Literal["upsample"] = "upsample"
    upsample: Literal["transposed", "pixel-shuffle", "nearest"]
    kernel: Size
    depth: Size
    width: Factor
    activation: Activation
    output: Output

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """Family, way of enlarging and activation."""
        return self.family, self.upsample, self.activation

    @property
    def name(self) -> str:
        """`upsample-transposed-k3-d2-relu-w1`, with how it ends where that is not so."""
        ends = "" if self.output == self.activation else f"-{self.output}"
        return (
            f"upsample-{self.upsample}-k{self.kernel}-d{self.depth}-{self.activation}{ends}-w{self.width:g}"
        )

    @property
    def inside(self) -> float:
        """Channels inside over those that come in."""
        return self.width


@dataclass(frozen=True, kw_only=True)
class UpsampleTable:
    """The values of each property; factor and end are the block's own."""

    __pydantic_config__ = STRICT
    upsample: tuple[Literal["transposed", "pixel-shuffle", "nearest"], ...]
    kernel: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Activation | Literal["reference"], ...]


def upsample_specs(table: UpsampleTable, block: Original) -> list[UpsampleSpec]:
    """Every candidate of a table for a block. Raises InputError: its own activation is wanted and none."""
    return [UpsampleSpec(**values, output=block.output) for values in resolved(table, block)]


@dataclass(frozen=True, kw_only=True)
class EnlargingPlan:
    """The last layer: it maps (c_in, rows, columns) to (c_out, factor × rows − lost, …).

    Attributes:
        lost: pixels of the small map that it takes away, in rows and in columns.
    """

    upsample: Literal["transposed", "pixel-shuffle", "nearest"]
    factor: int
    kernel: int
    lost: int
    c_in: int
    c_out: int
    rows: int
    columns: int
    output: Output

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters; a transposed convolution's MACs are of the map that comes in."""
        small = (self.rows - self.lost) * (self.columns - self.lost)
        kernel, c_out, pixels = self.kernel, self.c_out, small
        if self.upsample == "transposed":
            kernel, pixels = self.kernel + self.factor - 1, self.rows * self.columns
        elif self.upsample == "pixel-shuffle":
            c_out = self.c_out * self.factor**2
        else:
            pixels = small * self.factor**2
        weights = kernel**2 * self.c_in * c_out
        return weights * pixels, weights + c_out + slopes(self.output, self.c_out)


class Enlarging(nn.Module):
    """x: (B, C_in, H, W) → (B, C_out, factor · (H − lost), factor · (W − lost))"""

    def __init__(self, plan: EnlargingPlan) -> None:
        super().__init__()
        factor, kernel = plan.factor, plan.kernel
        self.before: nn.Module = nn.Identity()
        self.behind: nn.Module = nn.Identity()
        self.convolution: nn.Conv2d | nn.ConvTranspose2d
        if plan.upsample == "transposed":
            # One pixel of the small map reaches kernel + factor − 1 of the large one.
            padding = kernel // 2 + factor * plan.lost // 2
            size = kernel + factor - 1
            self.convolution = nn.ConvTranspose2d(plan.c_in, plan.c_out, size, factor, padding)
        elif plan.upsample == "pixel-shuffle":
            padding = (kernel - 1 - plan.lost) // 2
            self.convolution = nn.Conv2d(plan.c_in, plan.c_out * factor**2, kernel, padding=padding)
            self.behind = nn.PixelShuffle(factor)
        else:
            self.before = nn.Upsample(scale_factor=factor, mode="nearest")
            self.convolution = nn.Conv2d(plan.c_in, plan.c_out, kernel, padding=kernel // 2)
        self.activation = make_activation(plan.output, plan.c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.behind(self.convolution(self.before(x))))
        return y


def find_factor(name: str, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """By which whole factor a block enlarges its map, and how many pixels of the small map it loses.

    Raises:
        InputError: it does not enlarge its map, or rows and columns otherwise.
    """
    found = set()
    for before, after in zip(in_shape[1:], out_shape[1:], strict=True):
        factor = -(-after // before)
        found.add((factor, before - after // factor) if after % factor == 0 else (0, 0))
    (factor, lost), *others = found
    if others or not 2 <= factor <= LARGEST_FACTOR:
        raise InputError(
            f"candidate {name} cannot turn a map of {tuple(in_shape[1:])} into {tuple(out_shape[1:])}: it "
            f"enlarges one by a whole factor from 2 to {LARGEST_FACTOR}, the same in rows and columns",
            "for a block that keeps or halves its map take another family: docs/spaces.md",
        )
    return factor, lost


def plan_upsample(
    spec: UpsampleSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> tuple[list[ConvolutionPlan], EnlargingPlan]:
    """The layers of a candidate between maps (C, H, W).

    Raises:
        InputError: as for `find_factor`, or `chain.unpadded_steps` where the block loses pixels.
    """
    (c_in, rows, columns), c_out = in_shape, out_shape[0]
    factor, lost = find_factor(spec.name, in_shape, out_shape)
    small = (c_in, rows - lost, columns - lost)
    if lost and spec.upsample == "nearest":
        raise InputError(
            f"candidate {spec.name} keeps the border of its map, of which the block loses {lost} pixels",
            'take upsample = ["transposed", "pixel-shuffle"] for this block',
        )
    steps = (unpadded_steps if lost else padded_steps)(spec.name, spec.kernel, spec.depth, in_shape, small)
    inner = c_in if spec.width == 1 else divisible(c_in * spec.width)
    channels = [c_in, *[inner] * (spec.depth - 1), c_out]
    *before, last = plan_chain(
        steps, channels, (rows, columns), "none", [*[spec.activation] * (spec.depth - 1), spec.output]
    )
    at = last.kernel - 1 if lost else 0
    enlarging = EnlargingPlan(
        upsample=spec.upsample,
        factor=factor,
        kernel=last.kernel,
        lost=at,
        c_in=last.c_in,
        c_out=c_out,
        rows=last.rows + at,
        columns=last.columns + at,
        output=spec.output,
    )
    return before, enlarging


def build_upsample(spec: UpsampleSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `plan_upsample`."""
    before, enlarging = plan_upsample(spec, in_shape, out_shape)
    return nn.Sequential(*(Convolution(plan) for plan in before), Enlarging(enlarging))


def upsample_cost(spec: UpsampleSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_upsample`."""
    before, enlarging = plan_upsample(spec, in_shape, out_shape)
    costs = [enlarging.cost, *(plan.cost for plan in before)]
    return sum(macs for macs, _ in costs), sum(params for _, params in costs)


@torch.no_grad()
def match_upsample(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: the output starts near the mean, since nothing is normalised."""
    *before, last = module.children()
    assert isinstance(last, Enlarging)
    for layer in before:
        assert isinstance(layer, Convolution)
        start_inside(layer.convolution)
    amount = last.convolution.out_channels // len(mean)  # of pixels that a pixel of the small map becomes
    mean, variance = mean.repeat_interleave(amount), variance.repeat_interleave(amount)
    start_norm(last.convolution, nn.Identity(), mean, variance)


@torch.no_grad()
def inherit_upsample(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """As `Family.inherit`: weights of a block that is such a chain itself.

    The first layers take after the block's first ones; the last one takes after its last one where no layer
    and no channel is left out.
    """
    segments = find_segments(block)
    if len(segments) != 1 or segments[0].scale is not None:
        return
    *before, last = module.children()
    assert isinstance(last, Enlarging)
    source = segments[0].layers[-1]
    convolutions = [layer for layer in before if isinstance(layer, Convolution)]
    if take_first(convolutions, segments[0]) and _agrees(last, source):
        weight, bias = folded(source)
        assert last.convolution.bias is not None
        last.convolution.weight.copy_(at_kernel(weight, last.convolution.kernel_size[0]))
        last.convolution.bias.copy_(bias)
        if isinstance(last.activation, nn.PReLU):
            last.activation.weight.copy_(slopes_of(source))


def _agrees(last: Enlarging, source: Found) -> bool:
    """Whether a block ends as a candidate does, its kernels apart."""
    ours, theirs = last.convolution, source.convolution
    shuffles = [
        each.upscale_factor for each in (last.behind, source.shuffle) if isinstance(each, nn.PixelShuffle)
    ]
    return (
        type(ours) is type(theirs)
        and ours.stride == theirs.stride
        and theirs.groups == 1
        and theirs.dilation == (1, 1)
        and theirs.kernel_size[0] == theirs.kernel_size[1]
        and (ours.kernel_size[0] - theirs.kernel_size[0]) % 2 == 0
        and len(shuffles) in (0, 2)
        and len(set(shuffles)) <= 1
        and isinstance(last.before, nn.Identity)
        and (source.norm is None or isinstance(theirs, nn.Conv2d))
    )


UPSAMPLE = Family(
    spec=UpsampleSpec,
    table=UpsampleTable,
    specs=upsample_specs,
    build=build_upsample,
    cost=upsample_cost,
    match_output=match_upsample,
    learning_rate=1e-2,
    inherit=inherit_upsample,
)
