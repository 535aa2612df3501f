"""A network that is in no zoo: branches of three depths, skips over skips, no named stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    )


class Fork(nn.Module):
    """Three branches, concatenated, mixed, and added to the input; one of them has a skip of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        third = channels // 3
        self.short = convolution(channels, third, 1)
        self.middle = convolution(channels, third, 3)
        self.enter = convolution(channels, third, 1)
        self.deep = convolution(third, third, 3, groups=third)
        self.mix = nn.Conv2d(3 * third, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        deep = self.deep(entered) + entered
        y: Tensor = functional.relu(x + self.mix(torch.cat([self.short(x), self.middle(x), deep], 1)))
        return y


class Branches(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.entry = convolution(3, 24, stride=2)
        self.fork1, self.fork2 = Fork(24), Fork(24)
        self.down1 = convolution(24, 48, stride=2)
        self.fork3, self.fork4, self.join = Fork(48), Fork(48), nn.Conv2d(96, 48, 1)
        self.down2 = convolution(48, 72, stride=2)
        self.fork5, self.fork6 = Fork(72), Fork(72)
        self.classify = nn.Linear(72, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fork2(self.fork1(self.entry(x)))
        x = self.down1(x)
        third = self.fork3(x)
        x = self.join(
            torch.cat([x, self.fork4(third) + third], 1)
        )  # around two forks, and around one of them
        x = self.fork6(self.fork5(self.down2(x)))
        logits: Tensor = self.classify(x.mean((2, 3)))
        return logits


def make() -> nn.Module:
    return Branches()


def two() -> nn.Module:
    return Branches(classes=2)
