"""The inverted bottleneck: what candidates of that family are chains of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.networks.blocks.layers import SqueezeExcite, make_activation, slopes

GROUP_CHANNELS = 8
SHIFT_CHANNELS = 32
"""Channels that move together (DONNA 4.1.2)."""
SE_RATIO = 0.25

Layer = Literal["depthwise", "grouped", "shift"]


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """Kernel, channels, stride and input map of one layer of a candidate."""

    kernel: int
    activation: str
    se: bool
    layer: Layer
    c_in: int
    hidden: int
    c_out: int
    stride: int
    rows: int
    columns: int

    @property
    def reduced(self) -> int:
        """Channels inside of squeeze-and-excitation: a quarter of the layer's input, as in EfficientNet."""
        return max(1, round(self.c_in * SE_RATIO))

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters."""
        fan_in = GROUP_CHANNELS if self.layer == "grouped" else 1
        pixels_in = self.rows * self.columns
        pixels_out = -(-self.rows // self.stride) * -(-self.columns // self.stride)
        expand = self.c_in * self.hidden
        spatial = self.kernel**2 * fan_in * self.hidden
        learned = spatial if self.layer != "shift" else self.kernel**2 * -(-self.hidden // SHIFT_CHANNELS)
        project = self.hidden * self.c_out
        gates = 2 * self.hidden * self.reduced if self.se else 0
        biases = self.hidden + self.reduced + slopes(self.activation, self.reduced) if self.se else 0
        biases += 2 * slopes(self.activation, self.hidden)
        macs = expand * pixels_in + (spatial + project) * pixels_out + gates
        return macs, expand + learned + project + gates + biases + 4 * self.hidden + 2 * self.c_out


class Shift(nn.Module):
    """Moves each group of 32 channels by one offset of a k×k window, which the group learns.

    It computes a depthwise convolution with a single 1 in each kernel: of the forms that runtimes take, that
    is twice as fast as padding, slicing and joining (docs/spaces.md). The offset is the one with the largest
    of the group's logits; their gradients are those of the softmax in its place (straight-through, Bengio et
    al. 2013).

    x: (B, C, H, W) → (B, C, ⌈H/stride⌉, ⌈W/stride⌉)
    """

    weight: Tensor

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride = channels, kernel, stride
        self.logits = nn.Parameter(torch.randn(-(-channels // SHIFT_CHANNELS), kernel**2))
        self.register_buffer("weight", torch.zeros(channels, 1, kernel, kernel))
        self._settle()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.training:
            soft = self.logits.softmax(1)
            weight = self._kernels(self._chosen() + soft - soft.detach())
        return functional.conv2d(
            x, weight, stride=self.stride, padding=self.kernel // 2, groups=self.channels
        )

    def train(self, mode: bool = True) -> Shift:
        """Set the mode; in eval mode the offsets stay what the logits say now."""
        if self.training and not mode:
            self._settle()
        return super().train(mode)

    @torch.no_grad()
    def take(self, kernels: Tensor) -> None:
        """Begin where depthwise kernels (C, 1, k, k) have most of their weight; C is this one's at most."""
        margin = (self.kernel - kernels.shape[-1]) // 2
        energy = functional.pad(kernels, [margin] * 4).square().flatten(1)
        for group, of_group in enumerate(torch.split(energy, SHIFT_CHANNELS)):
            found = (of_group.sum(0) + 1e-12).log()
            # No lower: where the softmax has no weight, an offset is never learned.
            self.logits[group] = (found - found.max()).clamp(min=-3.0)
        self._settle()

    @torch.no_grad()
    def _settle(self) -> None:
        self.weight.copy_(self._kernels(self._chosen()))

    def _chosen(self) -> Tensor:
        return functional.one_hot(self.logits.argmax(1), self.kernel**2).to(self.logits)

    def _kernels(self, of_groups: Tensor) -> Tensor:
        of_channels = of_groups.repeat_interleave(SHIFT_CHANNELS, 0)[: self.channels]
        return of_channels.view(self.channels, 1, self.kernel, self.kernel)


def _spatial(plan: LayerPlan) -> nn.Module:
    hidden, kernel = plan.hidden, plan.kernel
    if plan.layer == "shift":
        return Shift(hidden, kernel, plan.stride)
    groups = hidden if plan.layer == "depthwise" else hidden // GROUP_CHANNELS
    return nn.Conv2d(hidden, hidden, kernel, plan.stride, padding=kernel // 2, groups=groups, bias=False)


class InvertedBottleneck(nn.Module):
    """Expand 1×1, convolve k×k or shift, gate, project 1×1, add the input where the shapes allow it.

    x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)
    """

    def __init__(self, plan: LayerPlan) -> None:
        super().__init__()
        c_in, hidden, c_out, stride = plan.c_in, plan.hidden, plan.c_out, plan.stride
        self.stride, self.residual = stride, stride == 1 and c_in == c_out
        self.expand = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            make_activation(plan.activation, hidden),
        )
        self.spatial = nn.Sequential(
            _spatial(plan),
            nn.BatchNorm2d(hidden),
            make_activation(plan.activation, hidden),
        )
        self.se = SqueezeExcite(hidden, plan.reduced, plan.activation) if plan.se else nn.Identity()
        self.project = nn.Sequential(nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.se(self.spatial(self.expand(x))))
        return x + y if self.residual else y
