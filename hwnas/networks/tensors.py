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


SIZING = {
    "index": 1,
    "masked_select": 1,
    "bincount": 0,
    "_pack_padded_sequence": 1,
    "_nested_tensor_from_mask": 1,
}
"""The argument whose values decide the size of what an operation gives, where that is not any of them."""

SPARSE = ("_to_sparse", "_to_sparse_csr", "_to_sparse_csc", "_to_sparse_bsr", "_to_sparse_bsc")


def sized_by(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors whose values decide how large an operation's output is, such as the mask in `x[mask]`.

    Args:
        func: as `__torch_dispatch__` is given it.
    """
    name = func._opname
    if torch.Tag.dynamic_output_shape not in func.tags and name not in (*SIZING, *SPARSE):
        return []
    deciding: Any = (args, kwargs)
    if name in SIZING:
        deciding = args[SIZING[name] : SIZING[name] + 1] or kwargs
    tensors = [leaf for leaf in tree_leaves(deciding) if isinstance(leaf, Tensor)]
    if name == "index":  # by numbers, it is as large as these
        return [mask for mask in tensors if mask.dtype in (torch.bool, torch.uint8)]
    return tensors


def only_raises(func: Any) -> bool:
    """Whether an operation gives nothing and changes nothing: it can only raise, by values."""
    is_write = any(
        each.alias_info is not None and each.alias_info.is_write for each in func._schema.arguments
    )
    return not func._schema.returns and not is_write and func._opname != "_assert_tensor_metadata"


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


def tensors_of(output: object) -> list[Tensor]:
    """The tensors of what a network gives, in order."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def by_image(output: object, images: int) -> list[list[Tensor]]:
    """The tensors with an axis of images among what a network gives, for each image of a batch."""
    leaves = [leaf for leaf in tensors_of(output) if leaf.shape[:1] == (images,)]
    return [[leaf[n] for leaf in leaves] for n in range(images)]


def main_output(output: object) -> object:
    """Take the maps or logits out of what torchvision's segmenters and the networks of transformers give.

    Anything else is returned as it is.
    """
    if isinstance(output, Mapping) and "out" in output and output.keys() <= {"out", "aux"}:
        return output["out"]
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output
