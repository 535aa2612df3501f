"""Parts as a network that can be measured, each exported when its graph is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import numpy as np
from torch import nn

from hwnas.network import Network, Part, export_onnx, in_eval_mode
from hwnas.networks.partition import Partition


def network_of(
    module: nn.Sequential, parts: Partition, name: str, calibration: np.ndarray | None = None
) -> Network:
    """The network of a module that was assembled from parts and then trained."""
    pieces = [
        _part(part, child, shape)
        for (part, child), shape in zip(module.named_children(), parts.shapes[:-1], strict=True)
    ]
    return Network(name, pieces, calibration)


def _part(name: str, module: nn.Module, shape: Sequence[int]) -> Part:
    """A part of a trained module, exported when its graph is first asked for. shape: (C, H, W) or (T, C)."""
    return Part(
        name,
        onnx=partial(export_onnx, module, (1, *shape), name),
        module=lambda: in_eval_mode(deepcopy(module)),
    )


def own_parts(parts: Partition) -> list[Part]:
    """The reference's own parts."""
    return [
        _part(name, module, shape)
        for name, module, shape in zip(parts.names, parts.modules, parts.shapes[:-1], strict=True)
    ]
