"""What a search sees, the front of it, and the network that is picked from the front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from hwnas.compress.library.stitch import Choices
from hwnas.compress.settings import TIMED, Objective
from hwnas.errors import HwnasError, InputError
from hwnas.measurement import STRICT
from hwnas.ranges import LARGEST_FIGURE, Figure

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
    front = NonDominatedSorting().do(values, only_non_dominated_front=True)
    unique = {tuple(values[i]): measured[i][0] for i in sorted(front, reverse=True)}
    return sorted(unique.values(), key=lambda point: (point.costs or (), point.loss))


def pick(
    front: Sequence[Point], rule: str, objectives: Sequence[Objective], reference_latency_ms: float | None
) -> Point:
    """One point of a front.

    Args:
        rule: `knee` (farthest below the plane through the ends, all axes scaled to 1), `speedup=X` (lowest
            loss at a time of at most 1/X of the reference's, or at such a first cost where no objective is a
            time), or `latency-ms=X` (lowest loss within X).
        objectives: what the costs are.
        reference_latency_ms: what a latency of 1 stands for; None where it is not known.

    Raises:
        InputError: an unknown rule, or no point of the front reaches it.
    """
    limit = check_rule(rule, objectives)
    if limit is None:
        values = np.array([[point.loss, *(point.costs or ())] for point in front], dtype=float)
        low, span = values.min(0), np.ptp(values, axis=0)
        scaled = (values - low) / np.where(span > 0, span, 1.0)
        return front[int(scaled.sum(1).argmin())]
    if rule.startswith("latency-ms"):
        if reference_latency_ms is None:
            raise InputError(f"{rule}: how long the reference takes is not known", "use --speedup X")
        limit /= reference_latency_ms
    column = next((i for i, name in enumerate(objectives) if name in TIMED), 0)
    ratios = [(point.costs[column], point) for point in front if point.costs is not None]
    reached = [point for cost, point in ratios if cost <= limit]
    if not reached:
        fastest = min(cost for cost, _ in ratios)
        raise InputError(
            f"no architecture of the front reaches {rule}; the lowest ratio is {fastest:.3f}",
            f"ask for less, such as --speedup {math.floor(100 / fastest) / 100:g}, "
            "or search longer (--generations)",
        )
    return min(reached, key=lambda point: (point.loss, point.costs))


LEAST_BOUND = 1e-9


def check_rule(rule: str, objectives: Sequence[Objective]) -> float | None:
    """The bound that a pick sets: None for `knee`, 1/X for `speedup=X`, X for `latency-ms=X`.

    Raises:
        InputError: none of these, X is not a positive number, or latency is no objective.
    """
    kind, _, text = rule.partition("=")
    if rule == "knee":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if kind not in ("speedup", "latency-ms") or not LEAST_BOUND <= value <= LARGEST_FIGURE:
        raise InputError(
            f"unknown pick {rule!r}", "use --pick knee, --speedup X or --latency-ms X with a positive X"
        )
    if kind == "latency-ms" and "latency" not in objectives:
        raise InputError("--latency-ms needs the objective latency", "use --speedup X or --pick knee")
    return 1 / value if kind == "speedup" else value
