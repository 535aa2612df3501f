"""What tensors that somebody else made are like."""

from __future__ import annotations

import torch
from torch import Tensor


def unusual(tensor: Tensor) -> str | None:
    """What a tensor is that has no plain values in memory: `sparse`, `quantised`, …; None for a plain one."""
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout in (
        torch.sparse_coo,
        torch.sparse_csr,
        torch.sparse_csc,
        torch.sparse_bsr,
        torch.sparse_bsc,
    ):
        return "sparse"
    return None if tensor.layout == torch.strided else f"laid out as {tensor.layout}"
