"""Which of a front's networks the user gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hwnas.compress.search.points import Point
from hwnas.compress.settings import TIMED, Objective
from hwnas.errors import InputError
from hwnas.ranges import LARGEST_FIGURE

LEAST_BOUND = 1e-9
KNEE, SPEEDUP, LATENCY_MS, MAX_DROP = "knee", "speedup", "latency-ms", "max-drop"


def pick(
    front: Sequence[Point], rule: str, objectives: Sequence[Objective], reference_latency_ms: float | None
) -> Point:
    """The best of the `contenders`."""
    return contenders(front, rule, objectives, reference_latency_ms)[0]


def contenders(
    front: Sequence[Point], rule: str, objectives: Sequence[Objective], reference_latency_ms: float | None
) -> list[Point]:
    """The points of a front that a rule allows, the best first.

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
    assert allowed_drop(rule) is None, "the front does not tell it"
    if limit is None:
        values = np.array([[point.loss, *(point.costs or ())] for point in front], dtype=float)
        low, span = values.min(0), np.ptp(values, axis=0)
        scaled = (values - low) / np.where(span > 0, span, 1.0)
        return [front[int(scaled.sum(1).argmin())]]
    if rule.startswith(LATENCY_MS):
        if reference_latency_ms is None:
            raise InputError(f"{rule}: how long the reference takes is not known", "use --speedup X")
        limit /= reference_latency_ms
    column = _column(objectives)
    ratios = [(point.costs[column], point) for point in front if point.costs is not None]
    reached = [point for cost, point in ratios if cost <= limit]
    if not reached:
        fastest = min(cost for cost, _ in ratios)
        raise InputError(
            f"no architecture of the front reaches {rule}; the lowest ratio is {fastest:.3f}",
            f"ask for less, such as --speedup {math.floor(100 / fastest) / 100:g}, "
            "or search longer (--generations)",
        )
    return sorted(reached, key=lambda point: (point.loss, point.costs))


def check_rule(rule: str, objectives: Sequence[Objective]) -> float | None:
    """The bound that a pick sets on a cost: 1/X for `speedup=X`, X for `latency-ms=X`; None for others.

    Raises:
        InputError: none of these, X is not a positive number, or latency is no objective.
    """
    kind, _, text = rule.partition("=")
    if rule == KNEE:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if kind not in (SPEEDUP, LATENCY_MS, MAX_DROP) or not LEAST_BOUND <= value <= LARGEST_FIGURE:
        raise InputError(
            f"unknown pick {rule!r}",
            "use --pick knee, --speedup X, --latency-ms X or --max-drop X with a positive X",
        )
    if kind == LATENCY_MS and "latency" not in objectives:
        raise InputError("--latency-ms needs the objective latency", "use --speedup X or --pick knee")
    if kind == MAX_DROP:
        return None
    return 1 / value if kind == SPEEDUP else value


def allowed_drop(rule: str) -> float | None:
    """How much of its quality a network may lose by `max-drop=X`, in points; None for any other rule."""
    kind, _, text = rule.partition("=")
    return float(text) if kind == MAX_DROP else None


def by_first_cost(front: Sequence[Point], objectives: Sequence[Objective]) -> list[Point]:
    """A front by rising time, or where no objective is one by its first cost."""
    column = _column(objectives)
    return sorted((point for point in front if point.costs), key=lambda point: (point.costs or ())[column])


def _column(objectives: Sequence[Objective]) -> int:
    return next((i for i, name in enumerate(objectives) if name in TIMED), 0)
