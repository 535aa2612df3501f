"""Regression: values of an image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from hwnas.compress.tasks.task import Metric, Task


def _as_targets(output: Tensor, targets: Tensor) -> Tensor:
    """Targets (B,) beside an output (B, 1) are (B, 1)."""
    return targets.to(output.dtype).reshape(output.shape)


def _absolute_error(output: Tensor, targets: Tensor) -> Tensor:
    return (output - _as_targets(output, targets)).abs().flatten(1).mean(1)


REGRESSION = Task(
    name="regression",
    metric=Metric(name="mean absolute error", share=False, higher_is_better=False),
    agreement_metric=Metric(
        name="mean absolute difference to the reference", share=False, higher_is_better=False
    ),
    loss=lambda output, targets: functional.mse_loss(output, _as_targets(output, targets)),
    distill=functional.mse_loss,
    score=_absolute_error,
    agreement=_absolute_error,
    output="values (B, D)",
    ranks=(2,),
    outputs=lambda data: (
        None
        if not isinstance(data.train.labels, Tensor)
        else data.train.labels.flatten(1).shape[1]
        if data.train.labels.ndim > 1
        else 1
    ),
)
