"""The family of plain convolutions, padded or not: DnCNN (Zhang et al. 2017), waifu2x, FSRCNN."""

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
    start_chain,
    unpadded_steps,
)
from hwnas.networks.blocks.family import Family, Original, resolved
from hwnas.networks.blocks.inherit_chain import inherit_chain
from hwnas.networks.blocks.layers import (
    Activation,
    Output,
    check_properties,
    divisible,
    make_activation,
    slopes,
)
from hwnas.ranges import Factor, Size


@dataclass(frozen=True, kw_only=True)
class ConvolutionSpec:
    """One replacement of a block: a chain of plain convolutions.

    Attributes:
        kernel: size of the convolutions; of the largest one where they are not padded.
        depth: number of layers.
        width: factor on the channels inside of the block; its last layer comes back to the block's width.
        activation: behind each layer but the last.
        norm: behind each convolution: `none` or `batch`.
        skip: the block's input is added to what the layers give.
        padded: where not, the layers take from the map the pixels that the block takes.
        output: what the block ends with, as the one that it replaces.
    """

    __pydantic_config__ = STRICT
    family: Literal["convolution"] = "convolution"
    kernel: Size
    depth: Size
    width: Factor
    activation: Activation
    norm: Literal["none", "batch"]
    skip: bool
    padded: bool
    output: Output

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, depth=self.depth, width=self.width)
        if self.skip and not self.padded:
            raise ValueError("skip is true, it must be false where padded is false: the sizes differ")

    @property
    def kind(self) -> tuple[str, ...]:
        """Family, normalisation, activation and skip."""
        return self.family, self.norm, self.activation, str(self.skip)

    @property
    def name(self) -> str:
        """`convolution-k3-d4-relu-w0.5`, with what is not so behind it."""
        ends = "-batchnorm" if self.norm == "batch" else ""
        ends += ("-skip" if self.skip else "") + ("" if self.padded else "-unpadded")
        ends += "" if self.output == self.activation else f"-{self.output}"
        return f"convolution-k{self.kernel}-d{self.depth}-{self.activation}{ends}-w{self.width:g}"

    @property
    def inside(self) -> float:
        """Channels inside over the block's."""
        return self.width


@dataclass(frozen=True, kw_only=True)
class ConvolutionTable:
    """The values of each property; padding and end are the block's own."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Activation | Literal["reference"], ...]
    norm: tuple[Literal["none", "batch"], ...]
    skip: tuple[bool, ...]


def convolution_specs(table: ConvolutionTable, block: Original) -> list[ConvolutionSpec]:
    """Every candidate of a table for a block. Raises InputError: its own activation is wanted and none."""
    padded = not block.loses_border
    return [
        ConvolutionSpec(**values, padded=padded, output=block.output)
        for values in resolved(table, block)
        if padded or not values["skip"]
    ]


def plan_convolution(
    spec: ConvolutionSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> list[ConvolutionPlan]:
    """The layers of a candidate between maps (C, H, W).

    Raises:
        InputError: as for `chain.padded_steps` or `chain.unpadded_steps`; a skip between other shapes.
    """
    if spec.skip and tuple(in_shape) != tuple(out_shape):
        raise InputError(
            f"candidate {spec.name} adds its input, {tuple(in_shape)}, to its output, {tuple(out_shape)}",
            "take skip = [false] for this block",
        )
    steps = (padded_steps if spec.padded else unpadded_steps)(
        spec.name, spec.kernel, spec.depth, in_shape, out_shape
    )
    inner = out_shape[0] if spec.width == 1 else divisible(out_shape[0] * spec.width)
    channels = [in_shape[0], *[inner] * (spec.depth - 1), out_shape[0]]
    last = "linear" if spec.skip else spec.output
    activations = [*[spec.activation] * (spec.depth - 1), last]
    return plan_chain(steps, channels, in_shape[1:], spec.norm, activations)


class Skip(nn.Module):
    """Layers beside a skip, and what comes behind the sum. x: (B, C, H, W) → the same shape"""

    def __init__(self, layers: Sequence[nn.Module], activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(x + self.layers(x))
        return y


def build_convolution(
    spec: ConvolutionSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `plan_convolution`."""
    layers = [Convolution(plan) for plan in plan_convolution(spec, in_shape, out_shape)]
    if spec.skip:
        return nn.Sequential(Skip(layers, make_activation(spec.output, out_shape[0])))
    return nn.Sequential(*layers)


def convolution_cost(
    spec: ConvolutionSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_convolution`."""
    costs = [plan.cost for plan in plan_convolution(spec, in_shape, out_shape)]
    behind_sum = slopes(spec.output, out_shape[0]) if spec.skip else 0
    return sum(macs for macs, _ in costs), sum(params for _, params in costs) + behind_sum


@torch.no_grad()
def match_convolution(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: the last layer gets the statistics; beside a skip it adds nothing."""
    first = next(module.children())
    if isinstance(first, Skip):
        start_chain(list(first.layers), torch.zeros_like(mean), torch.zeros_like(variance))
    else:
        start_chain(list(module.children()), mean, variance)


def inherit_convolution(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """As `Family.inherit`: the weights of a block that is such a chain itself."""
    first = next(module.children())
    skip = isinstance(first, Skip)
    layers = list((first.layers if isinstance(first, Skip) else module).children())
    inherit_chain(layers, block, skip=skip)


def convolution_rate(spec: ConvolutionSpec) -> float:
    """Without a normalisation behind it a weight bears less."""
    return 4e-2 if spec.norm == "batch" else 4e-3


CONVOLUTION = Family(
    spec=ConvolutionSpec,
    table=ConvolutionTable,
    specs=convolution_specs,
    build=build_convolution,
    cost=convolution_cost,
    match_output=match_convolution,
    learning_rate=convolution_rate,
    inherit=inherit_convolution,
)
