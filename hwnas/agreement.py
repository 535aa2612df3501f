"""Whether two ways of computing a network's answers agree, as far as rounding lets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OF_VARIATION = 1e-2
OF_SIZE = (3e-5, 1e-3)
"""Shares that two answers may differ by: of how far the answers to different inputs are apart, but no less
than rounding in float32 takes, and no more than this of the answers' size."""


def disagreement(expected: Sequence[object], found: Sequence[object]) -> float:
    """Compare the answers of two networks to the same inputs.

    A network whose answers hardly depend on its input gives nearly the same however wrong it is computed: so
    differences are held against how far the answers to different inputs are apart.

    Args:
        expected, found: an answer for each input, two inputs at least: a tensor, or a tuple, list or
            dictionary of tensors. Sizes are those of the expected ones.

    Returns:
        0 where they agree; else the largest difference as a share of the answers' size, infinite where their
        number, their shapes, or the places of infinite values and NaN differ.
    """
    import torch

    wanted, given = _tensors(expected), _tensors(found)
    if [[leaf.shape for leaf in leaves] for leaves in wanted] != [
        [leaf.shape for leaf in leaves] for leaves in given
    ]:
        return float("inf")
    pairs = zip(zip(*wanted, strict=True), zip(*given, strict=True), strict=True)
    return max((_apart(torch.stack(a), torch.stack(b)) for a, b in pairs), default=0.0)


def _tensors(answers: Sequence[object]) -> list[list[Tensor]]:
    import torch
    from torch.utils._pytree import tree_leaves

    return [[leaf.double() for leaf in tree_leaves(one) if isinstance(leaf, torch.Tensor)] for one in answers]


def _apart(expected: Tensor, found: Tensor) -> float:
    """The same of one tensor of each answer, (inputs, …) float64."""
    import torch

    there = expected.isfinite()
    if (
        not torch.equal(expected[~there].nan_to_num(), found[~there].nan_to_num())
        or not found[there].isfinite().all()
    ):
        return float("inf")
    if not there.any():
        return 0.0
    largest = float((expected - found)[there].abs().max())
    size = float(expected[there].abs().max())
    variation = float((expected.amax(0) - expected.amin(0)).nan_to_num(0.0, 0.0, 0.0).max())
    low, high = (share * size for share in OF_SIZE)
    if largest <= min(max(OF_VARIATION * variation, low), high):
        return 0.0
    return largest / size if size else float("inf")
