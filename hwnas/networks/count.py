"""Multiply-accumulates and parameters of any module."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from hwnas.network import plain_attention
from hwnas.networks.partition import Partition


@torch.no_grad()
def count(module: nn.Module, *in_shapes: Sequence[int]) -> tuple[int, int]:
    """Multiply-accumulates of one image, and parameters.

    Convolutions, linear layers and matrix products count; element-wise work does not, as in the papers.

    Args:
        in_shapes: of each input, without the batch dimension: (C, H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    counter = FlopCounterMode(display=False)
    was_training = module.training
    module.eval()
    # The counter trips over views of parameters, as of a class token, that want a gradient and have no graph.
    weights = {name: value.detach() for name, value in module.named_parameters()}
    recurrent = any(isinstance(child, nn.RNNBase) for child in module.modules())
    # oneDNN's kernel of a recurrent layer is one that the counter does not know.
    oneDNN = torch.backends.mkldnn.flags(enabled=False) if recurrent else nullcontext()
    with counter, plain_attention(), oneDNN:
        inputs = tuple(torch.zeros(1, *shape, device=device) for shape in in_shapes)
        torch.func.functional_call(module, weights, inputs)
    module.train(was_training)
    return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters())


@dataclass(frozen=True, kw_only=True)
class Counts:
    """MACs and parameters of a reference's own parts.

    Attributes:
        parts: of each part with a number.
        joints: of the parts between them, together.
    """

    parts: tuple[tuple[int, int], ...]
    joints: tuple[int, int]


def count_parts(parts: Partition) -> Counts:
    """`count` of each part."""
    modules = parts.ordered(parts.modules)
    found = {name: count(module, *parts.in_shapes(name)) for name, module in modules.items()}
    joints = [found[name] for name in parts.order if name not in parts.names]
    return Counts(
        parts=tuple(found[name] for name in parts.names),
        joints=(sum(macs for macs, _ in joints), sum(params for _, params in joints)),
    )
