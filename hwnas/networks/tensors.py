"""What tensors that somebody else made are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


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


def written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors with memory that an operation of torch writes to.

    Args:
        func: as `__torch_dispatch__` is given it.
    """
    named = {**dict(zip((each.name for each in func._schema.arguments), args, strict=False)), **kwargs}
    return [
        leaf
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for leaf in tree_leaves(named.get(argument.name))
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided
    ]
