"""Cutting trained layers in closed form: which hidden channels go, and what leads on from those that stay.

A reader gives W x of the hidden values x at its input (patches of them, for a convolution of more than one
pixel). Of their second moments S = E[x xᵀ], with a constant 1 among them where the reader can shift its
output, follows all that is needed:

- the weights that come nearest to W x from the values K that stay: W S[:, K] S[K, K]⁻¹ (least squares);
- what leaving one more channel out costs, the rest fitted anew: tr(W_c (S⁻¹)_cc⁻¹ W_cᵀ), the saliency of
  Optimal Brain Surgeon (Hassibi and Stork 1992), for all weights of a channel;
- the rank-r layer that comes nearest to W x: U Uᵀ W, U the r leading eigenvectors of the outputs' covariance,
  and their mean beside it (Zhang et al., Accelerating Very Deep Convolutional Networks, 2016, equation 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.networks.blocks.cut import CutSpec, is_left_out, narrow, split, splittable
from hwnas.networks.blocks.hidden import Hidden, Reader

PLACES = 64  # pixels or tokens of an image that count
LARGEST = 4608  # values in a patch; of more only the weights are looked at
RIDGE = 1e-4  # of the mean second moment
ENOUGH = 2  # samples a value at least
STEP = 8  # of so many channels that are left, one goes at a time


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Second moments of what a reader reads, the last value being 1. second: (D + 1, D + 1) float64."""

    second: Tensor
    samples: int


def read_by(specs: Iterable[CutSpec], block: nn.Module, groups: Sequence[Hidden]) -> set[str]:
    """The layers of a block whose moments its cuts start from, by their names."""
    names: set[str] = set()
    for spec in specs:
        if spec.hidden:
            names |= {reader.name for group in groups for reader in group.readers}
        elif spec.ranks:
            names |= {name for name, rank in zip(splittable(block), spec.ranks, strict=True) if rank}
    return names


@torch.no_grad()
def take_moments(module: nn.Module, layers: Iterable[str], batches: Iterable[Tensor]) -> dict[str, Moments]:
    """The moments of what layers read over batches of the block's inputs; some have none.

    Args:
        module: the block of the reference, in eval mode.
        layers: convolutions and linear layers, by their names.
    """
    sums: dict[str, Tensor] = {}
    samples: dict[str, int] = {}
    chance = torch.Generator().manual_seed(0)

    def watch(name: str, layer: nn.Conv2d | nn.Linear) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            (x,) = (*args, *kwargs.values())
            values = _patches(layer, x, chance)
            values = functional.pad(values, (0, 1), value=1.0)
            sums[name] = sums.get(name, 0) + (values.T @ values).double().cpu()
            samples[name] = samples.get(name, 0) + len(values)

        return layer.register_forward_pre_hook(hook, with_kwargs=True)

    handles = []
    for name in layers:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if _is_plain(layer):
            handles.append(watch(name, layer))
    try:
        for x in batches:
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: Moments(second=total / samples[name], samples=samples[name]) for name, total in sums.items()
    }


@torch.no_grad()
def start_cut(
    spec: CutSpec, block: nn.Module, groups: Sequence[Hidden], moments: Mapping[str, Moments]
) -> nn.Module:
    """A cut of a block with the weights that come nearest to what the block gives.

    Args:
        groups: of the block.
        moments: of the block's readers; those without any keep the weights of the channels that stay.
    """
    if is_left_out(spec):
        return nn.Identity()
    if spec.ranks:
        return _start_split(spec, block, moments)
    cut = deepcopy(block)
    for group, size in zip(groups, spec.hidden, strict=True):
        if size == group.size:
            continue
        kept = _kept(cut, group, size, moments)
        fits = [(reader, _fit(cut, reader, kept, group.size, moments)) for reader in group.readers]
        narrow(cut, group, kept)
        for reader, (weight, shift) in fits:
            _set(cut, reader, weight, shift)
    return cut


def _start_split(spec: CutSpec, block: nn.Module, moments: Mapping[str, Moments]) -> nn.Module:
    made = split(spec, block)
    for (name, layer), rank in zip(splittable(block).items(), spec.ranks, strict=True):
        if rank:
            first, second = made.get_submodule(name).children()
            weights = leading(layer, rank, moments.get(name))
            for half, weight in zip((first, second), weights, strict=False):
                half.weight.copy_(weight.view_as(half.weight))  # type: ignore[operator, arg-type]
            second.bias.copy_(weights[2])  # type: ignore[operator]
    return made


@torch.no_grad()
def leading(layer: nn.Conv2d | nn.Linear, rank: int, known: Moments | None) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest layer of a rank: what leads to it (R, D), from it (O, R), and what is added (O,).

    Args:
        known: of what the layer reads; without any all its inputs count alike.
    """
    weight = layer.weight.flatten(1).double().cpu()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.cpu()
    if known is None:
        covariance, mean = weight @ weight.T, torch.zeros(len(weight), dtype=torch.float64)
    else:
        center = known.second[:-1, -1]
        mean = weight @ center
        covariance = weight @ (known.second[:-1, :-1] - torch.outer(center, center)) @ weight.T
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -rank:]
    shift = mean - directions @ (directions.T @ mean)
    made = directions.T @ weight, directions, shift + bias.double()
    first, second, added = (each.to(layer.weight) for each in made)
    return first, second, added


def removal_order(second: Tensor, weight: Tensor, channels: int) -> Tensor:
    """The channels in the order in which they go, (C,): the one that costs least first, the rest fitted anew.

    Args:
        second: (D + 1, D + 1), of what a reader reads: values of one channel side by side, the last one 1.
        weight: (O, D + 1), of the reader; 0 for the constant.
    """
    each = (len(second) - 1) // channels
    left, gone = torch.arange(channels), []
    while len(left):
        columns = _columns(left, each, channels, second.shape[0])
        inverse = torch.linalg.inv(second[columns][:, columns])
        best = weight @ second[:, columns] @ inverse
        inner = inverse[: len(left) * each, : len(left) * each]
        blocks = inner.view(len(left), each, len(left), each).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        parts = best[:, : len(left) * each].view(-1, len(left), each).permute(1, 2, 0)
        cost = (parts * torch.linalg.solve(blocks, parts)).sum((1, 2))
        least = cost.argsort()[: max(1, len(left) // STEP)] if each == 1 else cost.argsort()
        gone.append(left[least])
        left = left[torch.ones(len(left), dtype=torch.bool).index_fill(0, least, False)]
    return torch.cat(gone)


def refitted(second: Tensor, weight: Tensor, columns: Tensor) -> Tensor:
    """The weights (O, K) on some values that come nearest to `weight` (O, D) on all."""
    inner = second[columns][:, columns]
    solved: Tensor = torch.linalg.solve(inner, (weight @ second[:, columns]).T)
    return solved.T


def _kept(module: nn.Module, group: Hidden, size: int, moments: Mapping[str, Moments]) -> Tensor:
    """The channels that stay, by the reader that computes most."""
    reader = group.readers[0]
    layer = module.get_submodule(reader.name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.flatten(2).flatten(1) if layer.weight.ndim == 4 else layer.weight
    known = moments.get(reader.name)
    if known is None:
        norms = weight.view(len(weight), group.size, -1).square().sum((0, 2))
        return norms.topk(size).indices.sort().values
    second = _with_ridge(known.second)
    if reader.norm is None and layer.bias is None:  # its output cannot shift
        second[-1, :-1] = second[:-1, -1] = 0.0
    full = functional.pad(weight.double().cpu(), (0, 1))
    return removal_order(second, full, group.size)[group.size - size :].sort().values


def _fit(
    module: nn.Module, reader: Reader, kept: Tensor, channels: int, moments: Mapping[str, Moments]
) -> tuple[Tensor | None, Tensor | None]:
    """A reader's weights for the channels that stay, and by how much its output shifts; None: as they are."""
    layer = module.get_submodule(reader.name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    known = moments.get(reader.name)
    if known is None:
        return None, None
    values = layer.weight[0].numel()
    each = values // channels
    shifts = reader.norm is not None or layer.bias is not None
    second = _with_ridge(known.second)
    weight = functional.pad(layer.weight.flatten(1).double().cpu(), (0, 1))
    if known.samples < ENOUGH * values:  # what goes counts with its mean
        goes = torch.ones(channels, dtype=torch.bool).index_fill(0, kept, False).nonzero().flatten()
        columns = _columns(goes, each, channels, values)
        return None, (weight[:, columns] @ second[columns, -1]).to(layer.weight) if shifts else None
    columns = _columns(kept, each, channels, values + 1 if shifts else values)
    found = refitted(second, weight, columns).to(layer.weight)
    inner = found[:, : len(kept) * each].reshape(len(weight), len(kept), *layer.weight.shape[2:])
    return inner, found[:, -1] if shifts else None


def _set(module: nn.Module, reader: Reader, weight: Tensor | None, shift: Tensor | None) -> None:
    layer = module.get_submodule(reader.name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if weight is not None:
        layer.weight.copy_(weight)
    if shift is not None and reader.norm is not None:
        norm = module.get_submodule(reader.norm)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None
        norm.running_mean -= shift
    elif shift is not None and layer.bias is not None:
        layer.bias += shift


def _with_ridge(second: Tensor) -> Tensor:
    diagonal = second.diagonal()
    ridge = torch.full_like(diagonal, RIDGE * float(diagonal[:-1].mean()) + 1e-12)
    ridge[-1] = 0.0
    return second + torch.diag(ridge)


def _columns(channels: Tensor, each: int, count: int, width: int) -> Tensor:
    """The values of some channels, and those behind all channels."""
    own = (channels[:, None] * each + torch.arange(each)).flatten()
    return torch.cat([own, torch.arange(count * each, width)])


def _is_plain(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether its patches can be taken: no padding of its own, and not too large."""
    if isinstance(layer, nn.Linear):
        return layer.in_features <= LARGEST
    is_torchs = type(layer).forward is nn.Conv2d.forward and layer.padding_mode == "zeros"
    return is_torchs and layer.weight[0].numel() <= LARGEST and not isinstance(layer.padding, str)


def _patches(layer: nn.Conv2d | nn.Linear, x: Tensor, chance: torch.Generator) -> Tensor:
    """What a layer reads at some places of each image, (N, D)."""
    if isinstance(layer, nn.Linear):
        return _some(x.reshape(len(x), -1, x.shape[-1]), chance)
    if layer.kernel_size == (1, 1):
        rows, columns = layer.stride
        return _some(x[:, :, ::rows, ::columns].flatten(2).transpose(1, 2), chance)
    assert not isinstance(layer.padding, str)
    how = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    # Image by image: a patch for each pixel of a whole batch takes nine times the batch, or more.
    patches = (functional.unfold(image[None], *how).transpose(1, 2) for image in x)
    return torch.cat([_some(each, chance) for each in patches])


def _some(values: Tensor, chance: torch.Generator) -> Tensor:
    """Some of the places (N, P, D) of each image, (N P, D)."""
    if values.shape[1] > PLACES:
        chosen = torch.randperm(values.shape[1], generator=chance)[:PLACES]
        values = values[:, chosen.to(values.device)]
    return values.reshape(-1, values.shape[-1])
