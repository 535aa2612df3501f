"""Parts as a network that can be measured, each exported when its graph is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import numpy as np
from torch import nn

from hwnas.network import Network, Part, export_onnx, in_eval_mode
from hwnas.networks.cut_points import Shape
from hwnas.networks.partition import Partition


def network_of(
    module: nn.Module, parts: Partition, name: str, calibration: np.ndarray | None = None
) -> Network:
    """The network of a module that was assembled from parts and then trained."""
    pieces = [_part(part, child, parts.in_shapes(part)) for part, child in module.named_children()]
    return Network(name, pieces, calibration, parts.wiring)


def _part(name: str, module: nn.Module, shapes: Sequence[Shape]) -> Part:
    """A part of a trained module, exported when its graph is first asked for; `shapes` of its inputs."""
    return Part(
        name,
        onnx=partial(export_onnx, module, *((1, *shape) for shape in shapes), name=name),
        module=lambda: in_eval_mode(deepcopy(module)),
    )


def own_parts(parts: Partition) -> dict[str, Part]:
    """The reference's own parts by name, in order."""
    modules = parts.ordered(parts.modules)
    return {name: _part(name, module, parts.in_shapes(name)) for name, module in modules.items()}


def own_network(parts: Partition, name: str, calibration: np.ndarray | None = None) -> Network:
    """The network of the reference's own parts."""
    return Network(name, list(own_parts(parts).values()), calibration, parts.wiring)
