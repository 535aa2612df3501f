"""NSGA-II over categorical choices: held-out block loss against measured or counted costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.operators.crossover.ux import UX
from pymoo.optimize import minimize
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from hwnas.compress.settings import TIMED, Objective
from hwnas.compress.stitch import Choices
from hwnas.errors import HwnasError, InputError
from hwnas.measurement import STRICT

Costs = Callable[[Sequence[Choices]], list[tuple[float, ...] | str]]
"""The costs of each architecture, one per objective, or the reason why it has none."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One architecture that the search has seen.

    Attributes:
        choices: of each part; 0 is the reference's own.
        loss: Σ of held-out block losses.
        costs: one per objective, as ratios to the reference's. None if it failed.
        reason: why it has no costs.
    """

    __pydantic_config__ = STRICT
    choices: Choices
    loss: float
    costs: tuple[float, ...] | None
    reason: str | None = None


def search(
    choices: Sequence[Sequence[int]],
    loss: Callable[[Choices], float],
    costs: Costs,
    objectives: int = 1,
    *,
    population: int,
    generations: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda generation, seen: None,
) -> list[Point]:
    """Every architecture that NSGA-II asked for, in order and each once, the reference first.

    Selection, non-dominated sorting and crowding are pymoo's. Choices are categories, so crossover takes
    each block from either parent and mutation resets a block to any other choice, one block on average.
    An architecture without costs counts as infeasible. The same seed and costs give the same points.

    Args:
        choices: what may stand in each block.
        objectives: how many costs an architecture has; the loss is minimised beside them.
        progress: called after each generation with its number and the architectures seen.
    """
    seen: dict[Choices, Point] = {}

    def evaluate(batch: Sequence[Choices]) -> list[Point]:
        new = list(dict.fromkeys(architecture for architecture in batch if architecture not in seen))
        for architecture, answer in zip(new, costs(new) if new else [], strict=True):
            seen[architecture] = Point(
                choices=architecture,
                loss=loss(architecture),
                costs=None if isinstance(answer, str) else answer,
                reason=answer if isinstance(answer, str) else None,
            )
        return [seen[architecture] for architecture in batch]

    def after_generation(algorithm: Any) -> None:
        progress(algorithm.n_gen, len(seen))

    minimize(
        _Architectures(choices, objectives, evaluate),
        NSGA2(pop_size=population, sampling=_ReferenceAndRandom(), crossover=UX(), mutation=_Reset()),
        ("n_gen", generations),
        seed=seed,
        callback=after_generation,
    )
    return list(seen.values())


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
    if kind not in ("speedup", "latency-ms") or not 0 < value < float("inf"):
        raise InputError(
            f"unknown pick {rule!r}", "use --pick knee, --speedup X or --latency-ms X with a positive X"
        )
    if kind == "latency-ms" and "latency" not in objectives:
        raise InputError("--latency-ms needs the objective latency", "use --speedup X or --pick knee")
    return 1 / value if kind == "speedup" else value


class _Architectures(Problem):  # type: ignore[misc]
    """Genes are positions in each block's list of choices."""

    def __init__(
        self,
        choices: Sequence[Sequence[int]],
        objectives: int,
        evaluate: Callable[[Sequence[Choices]], list[Point]],
    ) -> None:
        self.choices = choices
        self.no_costs = (0.0,) * objectives
        self.evaluate_points = evaluate
        upper = np.array([len(block) - 1 for block in choices])
        super().__init__(n_var=len(choices), n_obj=1 + objectives, n_ieq_constr=1, xl=0, xu=upper, vtype=int)

    def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        batch = [tuple(block[int(gene)] for block, gene in zip(self.choices, row, strict=True)) for row in x]
        points = self.evaluate_points(batch)
        failed = np.array([[point.costs is None] for point in points], dtype=float)
        out["F"] = np.array([[point.loss, *(point.costs or self.no_costs)] for point in points])
        out["G"] = failed


class _ReferenceAndRandom(Sampling):  # type: ignore[misc]
    def _do(
        self, problem: Problem, n_samples: int, *args: Any, random_state: Any, **kwargs: Any
    ) -> np.ndarray:
        genes = random_state.integers(0, problem.xu.astype(int) + 1, (n_samples, problem.n_var))
        genes[0] = 0
        return np.asarray(genes)


class _Reset(Mutation):  # type: ignore[misc]
    """Each gene becomes another choice with probability 1 / number of genes."""

    def _do(
        self, problem: Problem, x: np.ndarray, *args: Any, random_state: Any, **kwargs: Any
    ) -> np.ndarray:
        sizes = problem.xu.astype(int) + 1
        reset = random_state.random(x.shape) < 1 / problem.n_var
        offset = random_state.integers(1, np.maximum(sizes, 2), x.shape)
        return np.where(reset, (x + offset) % sizes, x)
