"""What a search sees, and the front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.compress.library.stitch import Choices
from hwnas.compress.search.pareto import non_dominated
from hwnas.errors import HwnasError
from hwnas.measurement import STRICT
from hwnas.ranges import Figure

Costs = Callable[[Sequence[Choices]], list[tuple[float, ...] | str]]
"""The costs of each architecture, one per objective, or the reason why it has none."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One architecture that the search has seen.

    Attributes:
        choices: of each part; 0 is the reference's own.
        loss: what the quality model makes of it: Σ of held-out block losses, or 1 − predicted accuracy.
        costs: one per objective, as ratios to the reference's. None if it failed.
        reason: why it has no costs.
    """

    __pydantic_config__ = STRICT
    choices: Choices
    loss: Figure
    costs: tuple[Figure, ...] | None
    reason: str | None = None


class Evaluator:
    """Evaluates architectures, each once, and remembers them in order.

    Args:
        loss: of an architecture; it asks no device.
        costs: of architectures.
    """

    def __init__(self, loss: Callable[[Choices], float], costs: Costs) -> None:
        self.loss = loss
        self.costs = costs
        self.seen: dict[Choices, Point] = {}

    def __call__(self, batch: Sequence[Choices]) -> list[Point]:
        """The points of some architectures; only those that are new are asked for."""
        new = list(dict.fromkeys(architecture for architecture in batch if architecture not in self.seen))
        for architecture, answer in zip(new, self.costs(new) if new else [], strict=True):
            self.seen[architecture] = Point(
                choices=architecture,
                loss=self.loss(architecture),
                costs=None if isinstance(answer, str) else answer,
                reason=answer if isinstance(answer, str) else None,
            )
        return [self.seen[architecture] for architecture in batch]

    @property
    def points(self) -> list[Point]:
        """Everything that was evaluated, in order."""
        return list(self.seen.values())


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats in loss and all costs, by rising costs. Failed ones are left out.

    Raises:
        HwnasError: every point failed.
    """
    points = list(points)
    measured = [(point, point.costs) for point in points if point.costs is not None]
    if not measured:
        reason = next((point.reason for point in points), "nothing was asked for")
        raise HwnasError(
            f"no architecture could be measured on the device: {reason}",
            "all reasons are in search.json; `hwnas profile MODEL --device NAME` tries a single network",
        )
    values = np.array([[point.loss, *costs] for point, costs in measured])
    front = [measured[i][0] for i in non_dominated(values)]
    return sorted(front, key=lambda point: (point.costs or (), point.loss))
