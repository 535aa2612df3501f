"""A classifier that was narrowed to some classes learns from all that its reference knows.

The reference is nearly sure which of a few classes an image shows: its probabilities of those say little more
than a label. What an image has of all others is most of what there is to learn from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


def has_classifier(network: nn.Module, classifier: Mapping[str, Tensor]) -> bool:
    """Whether a network of parts has weights of these names in its head."""
    names = {name for name, _ in network.named_parameters()}
    return bool(classifier) and all(f"head.{key}" in names for key in classifier)


@contextmanager
def with_all_classes(
    networks: Sequence[nn.Module], classifier: Mapping[str, Tensor], classes: Sequence[int]
) -> Iterator[None]:
    """Let networks tell all classes apart as long as this lasts; then they have those that they had.

    Args:
        networks: each has the classifier; their own weights of the classes that they know stay.
        classifier: weights of all classes, by their names in the reference. Empty: nothing is done.
        classes: which of them the networks know, in their order.
    """
    narrowed = [
        (network.get_submodule(f"head.{name}"), kind, whole)
        for network in networks
        for (name, _, kind), whole in ((key.rpartition("."), whole) for key, whole in classifier.items())
    ]
    rows = list(classes)
    for layer, kind, whole in narrowed:
        own = getattr(layer, kind).detach()
        wide = whole.to(own, copy=True)
        wide[rows] = own
        _set(layer, kind, wide)
    try:
        yield
    finally:
        for layer, kind, _ in narrowed:
            _set(layer, kind, getattr(layer, kind).detach()[rows])


def _set(layer: nn.Module, kind: str, value: Tensor) -> None:
    setattr(layer, kind, nn.Parameter(value))
    if isinstance(layer, nn.Linear):
        layer.out_features = len(value)
    elif isinstance(layer, nn.Conv2d):
        layer.out_channels = len(value)
