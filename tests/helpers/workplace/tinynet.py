"""A network of one's own: two small stages, trained on digits in a second."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolution(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.add(self.body(x))


class Tiny(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem = nn.Sequential(nn.AvgPool2d(2), convolution(3, 8, stride=2))
        self.stages = nn.Sequential(
            nn.Sequential(convolution(8, 16, stride=2), Residual(16)),
            nn.Sequential(Residual(16), Residual(16)),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(x)))
        return logits


def make() -> nn.Module:
    return Tiny()


def seven() -> nn.Module:
    return Tiny(classes=7)


def seeded() -> nn.Module:
    """Weights of its own, the statistics of its normalisations included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Tiny().train()
        with torch.no_grad():
            for _ in range(30):
                model(torch.randn(32, 3, 32, 32))
    return model.eval()


class Summed(Residual):
    """With an operator that simulators do not know."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cumsum(2)


def summed() -> nn.Module:
    model = Tiny()
    model.stages[1] = nn.Sequential(Summed(16), Residual(16))
    return model
