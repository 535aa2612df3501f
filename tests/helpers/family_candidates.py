"""Candidates of families for networks that restore, enlarge or detect, and what tests of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.networks.blocks.convolution import ConvolutionSpec
from hwnas.networks.blocks.csp import CspSpec
from hwnas.networks.blocks.families import (
    build_replacement,
    start_replacement,
)
from hwnas.networks.blocks.family import FamilySpec
from hwnas.networks.blocks.naf import NafSpec
from hwnas.networks.blocks.residual import ResidualSpec
from hwnas.networks.blocks.separable import SeparableSpec
from hwnas.networks.blocks.upsample import UpsampleSpec

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


def convolution(**changed: Any) -> ConvolutionSpec:
    values: dict[str, Any] = {
        "kernel": 3,
        "depth": 3,
        "width": 1.0,
        "activation": "relu",
        "norm": "none",
        "skip": False,
        "padded": True,
        "output": "relu",
    }
    return ConvolutionSpec(**values | changed)


def upsample(**changed: Any) -> UpsampleSpec:
    values: dict[str, Any] = {
        "upsample": "transposed",
        "kernel": 3,
        "depth": 2,
        "width": 1.0,
        "activation": "leaky_relu",
        "output": "linear",
    }
    return UpsampleSpec(**values | changed)


def chain(
    channels: int, amount: int, *, padding: int, activation: Callable[[], nn.Module], norm: bool = False
) -> Any:
    layers: list[nn.Module] = []
    for _ in range(amount):
        layers += [nn.Conv2d(channels, channels, 3, padding=padding)]
        layers += [nn.BatchNorm2d(channels)] if norm else []
        layers.append(activation())
    return randomised(nn.Sequential(*layers))


def randomised(module: Any) -> Any:
    """In eval mode, with random statistics, scales and slopes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and value.ndim < 4:
                low = 0.5 if "running_var" in name or "norm" in name or "weight" in name else -0.5
                value.copy_(low + torch.rand(value.shape, generator=generator))
    return module.eval()


def heir(spec: FamilySpec, block: nn.Module, shapes: Shapes) -> nn.Module:
    """A fresh candidate that has inherited from a block."""
    torch.manual_seed(1)
    module = build_replacement(spec, *shapes)
    channels = shapes[1][0]
    start_replacement(module, spec, block, torch.zeros(channels), torch.ones(channels))
    return module.eval()


def norm_of(weight: Tensor, over: tuple[int, ...]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight.detach(), dim=over)
    return norm


def agree(a: nn.Module, b: nn.Module, shape: tuple[int, ...]) -> bool:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return torch.allclose(a(x), b(x), rtol=1e-3, atol=1e-4)


CANDIDATES: list[tuple[FamilySpec, Shapes]] = [
    (convolution(skip=True, activation="prelu"), ((16, 16, 16), (16, 16, 16))),
    (convolution(padded=False), ((16, 16, 16), (16, 10, 10))),
    (
        ResidualSpec(
            layer="basic",
            kernel=3,
            depth=2,
            width=1.0,
            activation="gelu",
            se=False,
            output="linear",
            norm="none",
        ),
        ((16, 16, 16), (16, 16, 16)),
    ),
    (NafSpec(kernel=3, expand=2.0, depth=2), ((16, 16, 16), (16, 16, 16))),
    (
        CspSpec(kernel=3, depth=2, width=0.5, activation="leaky_relu", output="swish"),
        ((16, 16, 16), (32, 8, 8)),
    ),
    (
        SeparableSpec(kernel=3, depth=2, width=1.0, activation="swish", output="swish"),
        ((16, 16, 16), (16, 16, 16)),
    ),
    *(
        (upsample(upsample=kind), ((16, 16, 16), (3, 32, 32)))
        for kind in ("transposed", "pixel-shuffle", "nearest")
    ),
]


class AtOneSize(nn.Module):
    """A block for maps of one size alone."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 16
        return x[:, :, 2:-2, 2:-2]
