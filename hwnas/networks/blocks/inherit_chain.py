"""Weights of the reference for chains of plain convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.networks.blocks.chain import Convolution
from hwnas.networks.blocks.found import Found, Segment, find_segments


@torch.no_grad()
def inherit_chain(layers: Sequence[nn.Module], block: nn.Module, *, skip: bool) -> None:
    """Give a fresh chain the weights of a block that is one chain itself, in the same place of a skip.

    Args:
        layers: each a `Convolution`.
        block: what the chain replaces.
        skip: whether the chain stands beside a skip.
    """
    segments = find_segments(block)
    if len(segments) == 1 and (segments[0].scale is not None) == skip:
        convolutions = [layer for layer in layers if isinstance(layer, Convolution)]
        if take_first(convolutions[:-1], segments[0]):
            take_last(convolutions, segments[0])


def take_first(layers: Sequence[Convolution], segment: Segment) -> bool:
    """Give layers the weights of the first ones of a segment, whose most important channels they take.

    A layer behind them has learned other values: where layers or channels are left out, the last one had
    better start afresh.

    Returns:
        Whether they are the same as the segment's own, but for its last one.
    """
    inputs, same = torch.arange(segment.layers[0].convolution.in_channels), True
    for number, (layer, source) in enumerate(zip(layers, segment.layers, strict=False)):
        if not fits(layer.convolution, source):
            return False
        behind = segment.layers[number + 1].convolution if number + 1 < len(segment.layers) else None
        outputs = most_important(source, behind, layer.convolution.out_channels)
        take_convolution(layer, source, inputs, outputs)
        same = same and len(outputs) == source.convolution.out_channels
        inputs = outputs
    return same and len(layers) == len(segment.layers) - 1


def take_last(layers: Sequence[Convolution], segment: Segment) -> None:
    """Give the last layer the weights of a segment's last one, times what it is scaled by beside a skip."""
    layer, source = layers[-1], segment.layers[-1]
    if (
        not fits(layer.convolution, source)
        or source.convolution.out_channels != layer.convolution.out_channels
    ):
        return
    take_convolution(
        layer,
        source,
        torch.arange(source.convolution.in_channels),
        torch.arange(source.convolution.out_channels),
    )
    if segment.scale is not None:
        target = layer.convolution if isinstance(layer.norm, nn.Identity) else layer.norm
        scale_outputs(target, segment.scale)


def scale_outputs(target: nn.Module, scale: Tensor) -> None:
    """Multiply what a convolution or a normalisation gives. scale: (C, 1, 1)"""
    factor = scale.flatten().cpu()
    assert isinstance(target.weight, Tensor) and isinstance(target.bias, Tensor)
    target.weight.mul_(factor.view(-1, *[1] * (target.weight.ndim - 1)))
    target.bias.mul_(factor)


def fits(convolution: nn.Conv2d, source: Found) -> bool:
    """Whether a convolution may have the weights of another, at its own size of kernels."""
    conv = source.convolution
    odd = conv.kernel_size[0] == conv.kernel_size[1] and conv.kernel_size[0] % 2 == 1
    plain = isinstance(conv, nn.Conv2d) and conv.dilation == (1, 1) and not source.shuffle
    return plain and odd and conv.stride == convolution.stride and conv.groups in (1, convolution.groups)


def most_important(source: Found, behind: nn.Module | None, wanted: int) -> Tensor:
    """Which of a convolution's output channels a layer of `wanted` channels takes, in order.

    Those with the largest weights, times the norm of what leads on from them. `behind`: the next convolution.
    """
    weight, norm = folded(source)[0], torch.ones(())
    if isinstance(behind, nn.Conv2d) and behind.groups == 1 and behind.in_channels == len(weight):
        norm = torch.linalg.vector_norm(behind.weight, dim=(0, 2, 3))
    matter = torch.linalg.vector_norm(weight, dim=(1, 2, 3)) * norm
    chosen: Tensor = matter.topk(min(wanted, len(matter))).indices.sort().values
    return chosen.cpu()


def folded(source: Found) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch normalisation in it."""
    weight = source.convolution.weight.detach()
    bias = source.convolution.bias
    bias = weight.new_zeros(source.convolution.out_channels) if bias is None else bias.detach()
    norm = source.norm
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None and norm.running_var is not None
    factor = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    shift = 0 if norm.bias is None else norm.bias
    return weight * factor[:, None, None, None], (bias - norm.running_mean) * factor + shift


def take_convolution(layer: Convolution, source: Found, inputs: Tensor, outputs: Tensor) -> None:
    """Give a layer some channels of a convolution, with its normalisation and slopes.

    Further inputs of the layer count nothing; further outputs stay random.
    """
    take_weights(layer.convolution, source, inputs, outputs)
    if source.norm is not None and isinstance(layer.norm, nn.BatchNorm2d):
        take_norm(layer.norm, source.norm, source.convolution.bias, outputs)
    if isinstance(layer.activation, nn.PReLU):
        layer.activation.weight[: len(outputs)] = slopes_of(source)[outputs]


def take_weights(conv: nn.Conv2d, source: Found, inputs: Tensor, outputs: Tensor) -> None:
    """As `take_convolution`, weights alone; where ours has a bias, a normalisation becomes part of them."""
    weight, bias = source.convolution.weight, None
    if conv.bias is not None:
        weight, bias = folded(source)
        conv.bias[: len(outputs)] = bias[outputs]
    conv.weight[: len(outputs)] = 0.0
    conv.weight[: len(outputs), : len(inputs)] = at_kernel(weight[outputs][:, inputs], conv.kernel_size[0])


def take_norm(norm: nn.BatchNorm2d, source: nn.BatchNorm2d, bias: Tensor | None, chosen: Tensor) -> None:
    """Give a normalisation some channels of another's, which stands behind a convolution with a bias."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = getattr(source, name)
        if values is not None:
            getattr(norm, name)[: len(chosen)] = values[chosen]
    assert norm.running_var is not None
    norm.running_var[: len(chosen)] += source.eps - norm.eps
    if bias is not None:
        assert norm.running_mean is not None
        norm.running_mean[: len(chosen)] -= bias[chosen].to(norm.running_mean)


def at_kernel(weight: Tensor, kernel: int) -> Tensor:
    """Kernels (…, k, k) at another size, cut or surrounded by zeros."""
    margin = (kernel - weight.shape[-1]) // 2
    return functional.pad(weight, [margin] * 4)


def slopes_of(source: Found) -> Tensor:
    """The slopes below zero (C,) of what stands behind a convolution: a ReLU's is 0."""
    channels, activation = source.convolution.out_channels, source.activation
    if isinstance(activation, nn.PReLU):
        return activation.weight.detach().cpu().expand(channels)
    slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
    return torch.full((channels,), slope)
