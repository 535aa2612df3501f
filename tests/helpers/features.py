"""What the parts of a reference are given and give."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.composed import run_parts
from hwnas.networks.partition import Partition


@torch.no_grad()
def features_of(parts: Partition, x: Tensor) -> list[Tensor]:
    """All values for a batch, the batch itself first."""
    values = run_parts(list(parts.ordered(parts.modules).values()), parts.wiring, x)
    return [values[position] for position in sorted(values)]
