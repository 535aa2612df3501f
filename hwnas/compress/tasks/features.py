"""Features: any tensors that something else reads, as those of a backbone; they need no targets."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.compress.tasks.task import Metric, Task, Tree
from hwnas.networks.tensors import tensors_of

TINY = 1e-12


def relative_errors(output: Tree, wanted: Tree) -> Tensor:
    """Squared error over squared values of each image, the mean over the tensors, (B,)."""
    return torch.stack(
        [
            (y - t).square().flatten(1).sum(1) / t.square().flatten(1).sum(1).clamp_min(TINY)
            for y, t in zip(tensors_of(output), tensors_of(wanted), strict=True)
        ]
    ).mean(0)


def explained(output: Tree, wanted: Tree) -> Tensor:
    """The share of the wanted values that the output explains, (B,): 1 less the relative error, or 0."""
    return (1 - relative_errors(output, wanted)).clamp_min(0)


EXPLAINED = Metric(name="explained share of the features", share=True, higher_is_better=True)
FEATURES = Task(
    name="features",
    metric=EXPLAINED,
    agreement_metric=EXPLAINED,
    loss=None,
    distill=lambda output, reference: relative_errors(output, reference).mean(),
    score=explained,
    agreement=explained,
    output="tensors with an axis of images first",
    ranks=(),
)
