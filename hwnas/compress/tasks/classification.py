"""Classification: logits of an image, and the class that is right."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from hwnas.compress.tasks.task import ACCURACY, Metric, Task


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, label_smoothing=0.1)


def soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """With the teacher's probabilities; of pixels, the mean over them."""
    return functional.cross_entropy(logits, teacher.softmax(1))


def same_class(logits: Tensor, other: Tensor) -> Tensor:
    return logits.argmax(1) == other.argmax(1)


CLASSIFICATION = Task(
    name="classification",
    metric=ACCURACY,
    agreement_metric=Metric(name="agreement", share=True, higher_is_better=True),
    loss=_cross_entropy,
    distill=soft_cross_entropy,
    score=lambda logits, labels: logits.argmax(1) == labels,
    agreement=same_class,
    output="logits (B, classes)",
    ranks=(2,),
    takes_classes=True,
    outputs=lambda data: len(data.class_names) or None,
)
