"""Cuts of the reference's own blocks: the same layers narrower inside, split in two, or nothing at all.

A cut starts from the trained weights, in closed form (`closed_form.py`): what leads on from the channels that
stay is fitted to what the block gives; a layer that is split gives its most important directions.
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
from hwnas.ranges import Factor, Size, SizeOrNone

LEARNING_RATE = 2e-3
"""What starts from weights that are nearly right bears little."""


@dataclass(frozen=True, kw_only=True)
class CutSpec:
    """A block of the reference with fewer hidden channels, or with its layers split in two.

    A block without either is left out.

    Attributes:
        hidden: channels that stay of each group that can go, in the order of `find_hidden`.
        ranks: channels between the two halves of each layer that can be split, in the order of
            `splittable`; 0 where it stays as it is.
    """

    __pydantic_config__ = STRICT
    family: Literal["cut"] = "cut"
    hidden: tuple[Size, ...]
    ranks: tuple[SizeOrNone, ...] = ()

    @property
    def name(self) -> str:
        """`cut-96-72`, `split-32-0`, or `left-out`."""
        ways = {"cut": self.hidden, "split": self.ranks}
        return (
            "-".join(str(each) for way, sizes in ways.items() if sizes for each in (way, *sizes))
            or "left-out"
        )

    @property
    def kind(self) -> tuple[str, ...]:
        """Narrower, split, or left out."""
        return self.family, "narrower" if self.hidden else "split" if self.ranks else "left out"


def is_left_out(spec: object) -> bool:
    """Whether a part with this replacement gives its input as it is."""
    return isinstance(spec, CutSpec) and not spec.hidden and not spec.ranks


@dataclass(frozen=True, kw_only=True)
class CutTable:
    """What may stay of a block.

    Attributes:
        share: of the hidden channels, rounded to a multiple of 8.
        rank: channels between the halves of a layer that is split over those that it gives, rounded alike.
        left_out: whether a block whose output is shaped as its input may be left out.
    """

    __pydantic_config__ = STRICT
    share: tuple[Factor, ...] | None = None
    rank: tuple[Factor, ...] | None = None
    left_out: tuple[bool, ...] = (False,)


def cut_specs(
    table: CutTable, module: nn.Module, in_shape: Sequence[int], out_shape: Sequence[int]
) -> list[CutSpec]:
    """Every cut of a block in eval mode, from the least that stays to the most."""
    groups = find_hidden(module, in_shape)
    found = [CutSpec(hidden=())] if True in table.left_out and tuple(in_shape) == tuple(out_shape) else []
    for share in sorted(table.share or ()):
        kept = tuple(min(group.size, divisible(group.size * share)) for group in groups)
        if groups and any(size < group.size for size, group in zip(kept, groups, strict=True)):
            found.append(CutSpec(hidden=kept))
    layers = splittable(module)
    for share in sorted(table.rank or ()):
        ranks = tuple(
            rank if _is_smaller(layer, rank := _rank(layer, share)) else 0 for layer in layers.values()
        )
        if any(ranks):
            found.append(CutSpec(hidden=(), ranks=ranks))
    return list(dict.fromkeys(found))


def build_cut(spec: CutSpec, module: nn.Module, in_shape: Sequence[int]) -> nn.Module:
    """A copy of a block with the first channels of each group and the ranks that `spec` says.

    Raises:
        InputError: the block has other groups, or other layers.
    """
    if is_left_out(spec):
        return nn.Identity()
    if spec.ranks:
        return split(spec, module)
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


def splittable(module: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers that can be split in two, by name: those of torch itself that mix channels."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Conv2d | nn.Linear)
        and type(child) in (nn.Conv2d, nn.Linear)
        and getattr(child, "groups", 1) == 1
        and not torch.nn.utils.parametrize.is_parametrized(child)
    }


def _rank(layer: nn.Conv2d | nn.Linear, share: float) -> int:
    return divisible(len(layer.weight) * share)


def _is_smaller(layer: nn.Conv2d | nn.Linear, rank: int) -> bool:
    """Whether both halves of a layer have fewer weights than itself."""
    outputs, inputs = layer.weight.flatten(1).shape
    return rank * (outputs + inputs) < outputs * inputs


def split(spec: CutSpec, module: nn.Module) -> nn.Module:
    """A copy of a block whose layers are two each: to the rank, as the layer reads; from it, point by point.

    Raises:
        InputError: the block has other layers.
    """
    copy = deepcopy(module)
    layers = splittable(copy)
    if len(layers) != len(spec.ranks):
        raise InputError(
            f"{spec.name} does not fit the block, in which {len(layers)} layers can be split",
            "restore architecture.json as it was emitted",
        )
    for (name, layer), rank in zip(layers.items(), spec.ranks, strict=True):
        if rank:
            copy.set_submodule(name, _halves(layer, rank))
    return copy


def _halves(layer: nn.Conv2d | nn.Linear, rank: int) -> nn.Sequential:
    if isinstance(layer, nn.Linear):
        return nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
        )
    first = nn.Conv2d(
        layer.in_channels,
        rank,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=False,
        padding_mode=layer.padding_mode,
    )
    return nn.Sequential(first, nn.Conv2d(rank, layer.out_channels, 1))


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
