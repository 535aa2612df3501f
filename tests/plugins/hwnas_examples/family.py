"""A family of 1×1 convolutions, which halve a map by pooling it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.measurement import STRICT
from hwnas.networks.blocks.family import Family, Original, crossed
from hwnas.networks.blocks.layers import strides
from hwnas.ranges import Size


@dataclass(frozen=True, kw_only=True)
class PointwiseSpec:
    """A chain of 1×1 convolutions."""

    __pydantic_config__ = STRICT
    family: Literal["pointwise"] = "pointwise"
    depth: Size

    @property
    def name(self) -> str:
        return f"pointwise-d{self.depth}"

    @property
    def kind(self) -> tuple[str, ...]:
        return (self.family,)

    @property
    def inside(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class PointwiseTable:
    """The values of each property."""

    __pydantic_config__ = STRICT
    depth: tuple[Size, ...]


def specs(table: PointwiseTable, block: Original) -> list[PointwiseSpec]:
    return [PointwiseSpec(**values) for values in crossed(table)]


def build(spec: PointwiseSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = in_shape[0]
    for stride in strides(spec.name, spec.depth, in_shape, out_shape):
        layers += [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        layers += [nn.Conv2d(channels, out_shape[0], 1, bias=False), nn.BatchNorm2d(out_shape[0])]
        channels = out_shape[0]
    return nn.Sequential(*layers)


def cost(spec: PointwiseSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    (channels, rows, columns), c_out = in_shape, out_shape[0]
    macs = params = 0
    for stride in strides(spec.name, spec.depth, in_shape, out_shape):
        rows, columns = -(-rows // stride), -(-columns // stride)
        macs += channels * c_out * rows * columns
        params += channels * c_out + 2 * c_out
        channels = c_out
    return macs, params


@torch.no_grad()
def match_output(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    assert isinstance(module, nn.Sequential)
    norm = module[-1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.weight.copy_(variance.sqrt())
    norm.bias.copy_(mean)


POINTWISE = Family(
    spec=PointwiseSpec,
    table=PointwiseTable,
    specs=specs,
    build=build,
    cost=cost,
    match_output=match_output,
    learning_rate=4e-2,
)
