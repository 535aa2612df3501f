"""Chains of plain k×k convolutions, padded or not: what several families are made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.networks.blocks.layers import (
    Norm,
    make_activation,
    make_norm,
    slopes,
    start_inside,
    start_norm,
    strides,
)


@dataclass(frozen=True, kw_only=True)
class ConvolutionPlan:
    """One convolution with its normalisation and activation; rows and columns are those that it gives."""

    kernel: int
    padding: int
    stride: int
    c_in: int
    c_out: int
    rows: int
    columns: int
    norm: Norm
    activation: str

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters."""
        weights = self.kernel**2 * self.c_in * self.c_out
        biases = self.c_out if self.norm == "none" else 2 * self.c_out
        return weights * self.rows * self.columns, weights + biases + slopes(self.activation, self.c_out)


class Convolution(nn.Module):
    """x: (B, C_in, H, W) → (B, C_out, rows, columns)"""

    def __init__(self, plan: ConvolutionPlan) -> None:
        super().__init__()
        bias = plan.norm == "none"
        self.convolution = nn.Conv2d(
            plan.c_in, plan.c_out, plan.kernel, plan.stride, padding=plan.padding, bias=bias
        )
        self.norm = make_norm(plan.norm, plan.c_out)
        self.activation = make_activation(plan.activation, plan.c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(self.convolution(x)))
        return y


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What each layer of a chain does to its map: how large its kernel is, and its stride."""

    kernels: Sequence[int]
    strides: Sequence[int]
    padded: bool


def padded_steps(
    name: str, kernel: int, depth: int, in_shape: Sequence[int], out_shape: Sequence[int]
) -> Steps:
    """Layers of one kernel that keep a map or halve it; arguments and errors as for `layers.strides`."""
    return Steps(kernels=[kernel] * depth, strides=strides(name, depth, in_shape, out_shape), padded=True)


def unpadded_steps(
    name: str, kernel: int, depth: int, in_shape: Sequence[int], out_shape: Sequence[int]
) -> Steps:
    """Layers that are not padded: together they take from a map the pixels that the block takes.

    Each takes its kernel − 1. They share the loss as evenly as odd kernels can, larger ones first, so the
    largest follows from the depth, and `kernel` has to be that one.

    Raises:
        InputError: the map loses no even number of pixels, the same in rows and columns, or its loss asks
            for another kernel.
    """
    lost = [before - after for before, after in zip(in_shape[1:], out_shape[1:], strict=True)]
    if lost[0] != lost[1] or lost[0] <= 0 or lost[0] % 2:
        raise InputError(
            f"candidate {name} cannot turn a map of {tuple(in_shape[1:])} into {tuple(out_shape[1:])}: "
            "without padding rows and columns lose the same even number of pixels",
            "cut elsewhere, so that a block keeps its map, halves it, or loses an even number of pixels",
        )
    each, more = divmod(lost[0] // 2, depth)
    kernels = [2 * (each + (index < more)) + 1 for index in range(depth)]
    if kernels[0] != kernel:
        raise InputError(
            f"candidate {name} does not lose the {lost[0]} pixels that its block does: {depth} layers have "
            f"kernel {kernels[0]} for that",
            f"give it kernel {kernels[0]}, or another depth: depth × (kernel − 1) is what is lost",
        )
    return Steps(kernels=kernels, strides=[1] * depth, padded=False)


def plan_chain(
    steps: Steps, channels: Sequence[int], size: Sequence[int], norm: Norm, activations: Sequence[str]
) -> list[ConvolutionPlan]:
    """The layers of a chain.

    Args:
        channels: of the input and behind each layer.
        size: (H, W) of the input.
        activations: behind each layer.
    """
    (rows, columns), plans = size, []
    pairs = zip(steps.kernels, steps.strides, itertools.pairwise(channels), activations, strict=True)
    for kernel, stride, (c_in, c_out), activation in pairs:
        lost = 0 if steps.padded else kernel - 1
        rows, columns = -(-(rows - lost) // stride), -(-(columns - lost) // stride)
        plans.append(
            ConvolutionPlan(
                kernel=kernel,
                padding=kernel // 2 if steps.padded else 0,
                stride=stride,
                c_in=c_in,
                c_out=c_out,
                rows=rows,
                columns=columns,
                norm=norm,
                activation=activation,
            )
        )
    return plans


def start_chain(layers: Sequence[nn.Module], mean: Tensor, variance: Tensor) -> None:
    """Let a chain's output have this mean and variance (C,) in each channel; as for `layers.start_norm`."""
    *before, last = layers
    for layer in before:
        assert isinstance(layer, Convolution)
        if isinstance(layer.norm, nn.Identity):
            start_inside(layer.convolution)
    assert isinstance(last, Convolution)
    start_norm(last.convolution, last.norm, mean, variance)
