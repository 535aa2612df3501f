"""A small network of inverted bottlenecks: each has hidden channels, and two of them a skip."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * c_in
        self.is_residual = stride == 1 and c_in == c_out
        self.body = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.is_residual else y


class Narrowable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, padding=1), nn.ReLU())
        self.layers = nn.Sequential(
            *(Bottleneck(*sizes) for sizes in ((16, 16, 1), (16, 24, 2), (24, 24, 1)))
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.stem(x)))
        return logits


def make() -> nn.Module:
    torch.manual_seed(0)
    return Narrowable()
