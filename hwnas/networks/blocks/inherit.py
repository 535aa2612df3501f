"""Weights of the reference for candidates that are built as its own blocks are.

A candidate is distilled on a few thousand images, the reference has seen many more. Where a block is a chain
of inverted bottlenecks, as in MobileNets and EfficientNets, a candidate of that family starts with the hidden
channels of the block's layers that matter most.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.networks.blocks.bottleneck import InvertedBottleneck, Shift
from hwnas.networks.blocks.layers import SqueezeExcite

Normed = tuple[nn.Conv2d, nn.BatchNorm2d]


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """The modules of one inverted bottleneck of the reference: 1×1, depthwise k×k, 1×1, each normalised.

    Attributes:
        gate: the two convolutions of squeeze-and-excitation, where there is one made of convolutions.
    """

    expand: Normed
    spatial: Normed
    project: Normed
    gate: tuple[nn.Conv2d, nn.Conv2d] | None

    @property
    def residual(self) -> bool:
        """Whether its input is added, as far as its sizes tell."""
        return self.spatial[0].stride == (1, 1) and self.channels[0] == self.channels[1]

    @property
    def channels(self) -> tuple[int, int]:
        """Of its input and output."""
        return self.expand[0].in_channels, self.project[0].out_channels

    @property
    def importance(self) -> Tensor:
        """Of each hidden channel: its scale, times the norm of what leads on from it. (hidden,)"""
        norm: Tensor = torch.linalg.vector_norm(self.project[0].weight, dim=(0, 2, 3))
        return self.spatial[1].weight.abs() * norm


def find_bottlenecks(module: nn.Module) -> list[Bottleneck]:
    """The inverted bottlenecks of a part of the reference, in the order in which it names its modules."""
    leaves = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    normed: list[Normed] = []
    plain: dict[int, list[nn.Conv2d]] = defaultdict(list)  # behind so many normalised ones
    for conv, after in itertools.pairwise([*leaves, None]):
        if isinstance(conv, nn.Conv2d):
            if isinstance(after, nn.BatchNorm2d) and after.num_features == conv.out_channels:
                normed.append((conv, after))
            else:
                plain[len(normed)].append(conv)
    found = []
    for number, (first, second, third) in enumerate(zip(normed, normed[1:], normed[2:], strict=False)):
        hidden = second[0].groups
        points = all(conv.kernel_size == (1, 1) and conv.groups == 1 for conv, _ in (first, third))
        if points and first[0].out_channels == second[0].out_channels == third[0].in_channels == hidden:
            gate = plain[number + 2]
            is_gate = len(gate) == 2 and gate[0].in_channels == gate[1].out_channels == hidden
            found.append(
                Bottleneck(
                    expand=first, spatial=second, project=third, gate=(gate[0], gate[1]) if is_gate else None
                )
            )
    return found


@torch.no_grad()
def inherit(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """Give the layers of a fresh candidate the weights of a block's layers where their sizes agree.

    The first layer takes after the block's first one, the others after those that keep the width. Where the
    block ends wider or narrower than it begins, the last layer takes after its last one.

    Args:
        module: from `build_candidate`; its output's mean and variance are set already.
        block: what it replaces.
        variance: of each channel of the block's output, (C,).
    """
    bottlenecks, layers = find_bottlenecks(block), list(module.children())
    if not bottlenecks or bottlenecks[-1].channels[1] != len(variance):
        return
    first, last = bottlenecks[0], bottlenecks[-1]
    inner = first.channels[1]
    sources = [first, *(b for b in bottlenecks[1:] if b.channels == (inner, inner))]
    pairs = list(zip(layers, sources, strict=False))
    if last.channels[1] != inner and len(layers) > 1:
        pairs = [*pairs[: len(layers) - 1], (layers[-1], last)]
    inputs = torch.arange(first.channels[0])
    for layer, source in pairs:
        assert isinstance(layer, InvertedBottleneck)
        outputs = _outputs(layer, source, inputs, variance)
        _take(layer, source, inputs, outputs)
        inputs = outputs


def _outputs(layer: InvertedBottleneck, source: Bottleneck, inputs: Tensor, variance: Tensor) -> Tensor:
    """Which channels of the source's output a layer's are: fewer than they are where it has more of them.

    Those that vary most, where the source ends as its block does; else those that are scaled most.
    """
    there, wanted = source.channels[1], _normed(layer.project)[0].out_channels
    if source.residual and wanted == len(inputs):
        return inputs
    matter = variance if there == len(variance) else source.project[1].weight.abs()
    return matter.topk(min(wanted, there)).indices.sort().values


def _take(layer: InvertedBottleneck, source: Bottleneck, inputs: Tensor, outputs: Tensor) -> None:
    """The most important hidden channels of a layer, between some channels of its input and its output."""
    (expand, expand_norm), (project, project_norm) = map(_normed, (layer.expand, layer.project))
    if len(inputs) != expand.in_channels or layer.stride != source.spatial[0].stride[0]:
        return
    kept = min(expand.out_channels, source.spatial[0].out_channels)
    chosen = source.importance.topk(kept).indices.sort().values
    expand.weight[:kept] = source.expand[0].weight[chosen][:, inputs]
    _take_norm(expand_norm, source.expand[1], chosen)
    shift = layer.spatial[0]
    if isinstance(shift, Shift):
        shift.take(source.spatial[0].weight[chosen])
        return
    spatial, spatial_norm = _normed(layer.spatial)
    spatial.weight[:kept] = _kernels(source.spatial[0].weight[chosen], spatial)
    _take_norm(spatial_norm, source.spatial[1], chosen)
    if isinstance(layer.se, SqueezeExcite) and source.gate is not None:
        _take_gate(layer.se, source.gate, chosen)
    if len(outputs) == project.out_channels:
        project.weight[:, :kept] = source.project[0].weight[outputs][:, chosen]
        project.weight[:, kept:] = 0.0
        if layer.residual == source.residual:
            _take_norm(project_norm, source.project[1], outputs)


def _normed(part: nn.Sequential) -> Normed:
    conv, norm = part[0], part[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def _kernels(weight: Tensor, conv: nn.Conv2d) -> Tensor:
    """Depthwise kernels (C, 1, k, k) at another size, cut or surrounded by zeros, and in groups."""
    margin = (conv.kernel_size[0] - weight.shape[-1]) // 2
    weight = functional.pad(weight, [margin] * 4)
    a_group = conv.weight.shape[1]
    if a_group == 1:
        return weight
    in_group = functional.one_hot(torch.arange(len(weight)) % a_group, a_group)
    return weight * in_group[:, :, None, None]


def _take_gate(layer: SqueezeExcite, source: tuple[nn.Conv2d, nn.Conv2d], chosen: Tensor) -> None:
    reduce, expand = source
    if reduce.bias is None or expand.bias is None or reduce.out_channels != layer.reduce.out_channels:
        return
    assert layer.reduce.bias is not None and layer.expand.bias is not None
    layer.reduce.weight[:, : len(chosen)] = reduce.weight[:, chosen]
    layer.reduce.bias.copy_(reduce.bias)
    layer.expand.weight[: len(chosen)] = expand.weight[chosen]
    layer.expand.bias[: len(chosen)] = expand.bias[chosen]


def _take_norm(norm: nn.BatchNorm2d, source: nn.BatchNorm2d, chosen: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name)[: len(chosen)] = getattr(source, name)[chosen]
