"""Cuts of the reference's own blocks: the same layers with fewer hidden channels, or nothing at all.

A cut starts from the trained weights, in closed form: what leads on from the channels that stay is fitted to
what the block gives (`closed_form.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.measurement import STRICT
from hwnas.networks.blocks.hidden import Hidden, find_hidden
from hwnas.networks.blocks.layers import divisible
from hwnas.ranges import Factor, Size

LEARNING_RATE = 2e-3
"""What starts from weights that are nearly right bears little."""


@dataclass(frozen=True, kw_only=True)
class CutSpec:
    """A block of the reference with fewer hidden channels.

    Attributes:
        hidden: channels that stay of each group that can go, in the order of `find_hidden`; empty where
            the block is left out.
    """

    __pydantic_config__ = STRICT
    family: Literal["cut"] = "cut"
    hidden: tuple[Size, ...]

    @property
    def name(self) -> str:
        """`cut-96-72`, or `left-out`."""
        return "-".join(("cut", *map(str, self.hidden))) if self.hidden else "left-out"

    @property
    def kind(self) -> tuple[str, ...]:
        """Narrower, or left out."""
        return self.family, "narrower" if self.hidden else "left out"


def is_left_out(spec: object) -> bool:
    """Whether a part with this replacement gives its input as it is."""
    return isinstance(spec, CutSpec) and not spec.hidden


@dataclass(frozen=True, kw_only=True)
class CutTable:
    """What may stay of a block.

    Attributes:
        share: of the hidden channels, rounded to a multiple of 8.
        left_out: whether a block whose output is shaped as its input may be left out.
    """

    __pydantic_config__ = STRICT
    share: tuple[Factor, ...]
    left_out: tuple[bool, ...] = (False,)


def cut_specs(
    table: CutTable, module: nn.Module, in_shape: Sequence[int], out_shape: Sequence[int]
) -> list[CutSpec]:
    """Every cut of a block in eval mode, from the least that stays to the most."""
    groups = find_hidden(module, in_shape)
    found = [CutSpec(hidden=())] if True in table.left_out and tuple(in_shape) == tuple(out_shape) else []
    for share in sorted(table.share):
        kept = tuple(min(group.size, divisible(group.size * share)) for group in groups)
        if groups and any(size < group.size for size, group in zip(kept, groups, strict=True)):
            found.append(CutSpec(hidden=kept))
    return list(dict.fromkeys(found))


def build_cut(spec: CutSpec, module: nn.Module, in_shape: Sequence[int]) -> nn.Module:
    """A copy of a block with the first channels of each group, as many as `spec` says.

    Raises:
        InputError: the block has other groups.
    """
    if not spec.hidden:
        return nn.Identity()
    groups, copy = find_hidden(module, in_shape), deepcopy(module)
    if len(groups) != len(spec.hidden) or any(
        size > group.size for size, group in zip(spec.hidden, groups, strict=True)
    ):
        sizes = ", ".join(str(group.size) for group in groups) or "none"
        raise InputError(
            f"{spec.name} does not fit the block, whose hidden channels are {sizes}",
            "restore architecture.json as it was emitted",
        )
    for group, size in zip(groups, spec.hidden, strict=True):
        narrow(copy, group, torch.arange(size))
    return copy


@torch.no_grad()
def narrow(module: nn.Module, group: Hidden, kept: Tensor) -> None:
    """Keep some channels (K,) of a group in all layers that make, pass and read them."""
    for name in (*group.makers, *group.through):
        _keep_outputs(module.get_submodule(name), kept)
    for reader in group.readers:
        _keep_inputs(module.get_submodule(reader.name), kept)


def _keep_outputs(layer: nn.Module, kept: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, name, None)
        if isinstance(tensor, nn.Parameter):
            setattr(layer, name, nn.Parameter(tensor[kept].clone(), requires_grad=tensor.requires_grad))
        elif isinstance(tensor, Tensor):
            setattr(layer, name, tensor[kept].clone())
    count = len(kept)
    if isinstance(layer, nn.Conv2d):
        if layer.groups > 1:
            layer.in_channels = layer.groups = count
        layer.out_channels = count
    elif isinstance(layer, nn.Linear):
        layer.out_features = count
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = count
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.num_features = count


def _keep_inputs(layer: nn.Module, kept: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    layer.weight = nn.Parameter(layer.weight[:, kept].clone(), requires_grad=layer.weight.requires_grad)
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = len(kept)
    else:
        layer.in_features = len(kept)
