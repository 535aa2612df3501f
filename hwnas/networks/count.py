"""Multiply-accumulates and parameters of any module."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import nn

from hwnas.network import plain_attention
from hwnas.networks.partition import Partition


@torch.no_grad()
def count(module: nn.Module, in_shape: Sequence[int]) -> tuple[int, int]:
    """Multiply-accumulates of one image, and parameters.

    Convolutions, linear layers and matrix products count; element-wise work does not, as in the papers.

    Args:
        in_shape: (C, H, W).
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
        torch.func.functional_call(module, weights, (torch.zeros(1, *in_shape, device=device),))
    module.train(was_training)
    return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters())


def count_parts(parts: Partition) -> tuple[tuple[int, int], ...]:
    """`count` of each part."""
    return tuple(count(part, shape) for part, shape in zip(parts.modules, parts.shapes[:-1], strict=True))
