"""How a search goes about: NSGA-II, the exact front of corrected block costs, uniform scaling, chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from hwnas.compress.library.stitch import Choices
from hwnas.compress.search.additive import exact_front, sum_of
from hwnas.compress.search.nsga2 import Convergence, search
from hwnas.compress.search.pareto import corner_beyond, hypervolume
from hwnas.compress.search.points import Costs, Evaluator, Point
from hwnas.compress.search.surrogate import UNSEEN, AdditiveTables, Surrogate
from hwnas.compress.settings import SearchSettings
from hwnas.errors import HwnasError
from hwnas.measurement import STRICT
from hwnas.plugins import Registry
from hwnas.ranges import Count, Figure

PATIENCE = 5
"""Generations without a move of the front after which a seeded search ends."""
SCALES = 24
"""Depths and widths that uniform scaling tries."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched.

    Attributes:
        choices: what may stand in each part.
        loss, costs: of architectures.
        initial: what each choice adds to loss and costs, as far as it is known beforehand.
        sizes: (M_n, 2) of each part: depth and MACs a layer of each choice.
    """

    choices: Sequence[Sequence[int]]
    loss: Callable[[Choices], float]
    costs: Costs
    initial: AdditiveTables
    sizes: AdditiveTables


@dataclass(frozen=True, kw_only=True)
class ExactFront:
    """How far a front is from the exact one, where loss and costs are taken as sums over parts.

    Attributes:
        hypervolume: of the front's networks at their additive loss and costs, as a share of the exact
            front's.
        points: of the exact front.
        mean_error: of the additive costs against the measured ones, as a share of the mean cost.
    """

    __pydantic_config__ = STRICT
    hypervolume: Figure
    points: Count
    mean_error: Figure


OnRound = Callable[[int, int], None]
"""Is called with the number of rounds and of architectures so far."""

STRATEGIES = Registry("hwnas.strategies", "strategy", "give one of them: --strategy nsga2")
"""Each is called with the problem, the search's settings, a seed and an `OnRound`, and returns every point
that it asked for, in order and each once."""


def explore(problem: Problem, settings: SearchSettings, seed: int, progress: OnRound) -> list[Point]:
    """Return every architecture that the strategy of the settings asks for, in order and each once.

    Raises:
        InputError: there is no such strategy.
    """
    points: list[Point] = STRATEGIES.load(settings.strategy)(problem, settings, seed, progress)
    return points


def nsga2(problem: Problem, settings: SearchSettings, seed: int, progress: OnRound) -> list[Point]:
    """Search by NSGA-II, whose operators and seeds know the additive surrogate."""
    return search(
        problem.choices,
        problem.loss,
        problem.costs,
        problem.initial[0].shape[1] - 1,
        population=settings.population,
        generations=settings.generations,
        seed=seed,
        initial=problem.initial,
        patience=PATIENCE,
        progress=progress,
    )


def exact(problem: Problem, settings: SearchSettings, seed: int, progress: OnRound) -> list[Point]:
    """Measure the exact front of the block costs, corrected by what was measured, until it stands still."""
    evaluate = Evaluator(problem.loss, problem.costs)
    _follow_exact_front(problem, evaluate, settings, progress)
    return evaluate.points


def scale(problem: Problem, settings: SearchSettings, seed: int, progress: OnRound) -> list[Point]:
    """Measure what uniform scaling of depth and width makes."""
    return _evaluated(uniform(problem), problem, settings, progress)


def random(problem: Problem, settings: SearchSettings, seed: int, progress: OnRound) -> list[Point]:
    """Measure architectures by chance."""
    wanted = _by_chance(problem.choices, settings.population * settings.generations, seed)
    return _evaluated(wanted, problem, settings, progress)


def _evaluated(
    wanted: Sequence[Choices], problem: Problem, settings: SearchSettings, progress: OnRound
) -> list[Point]:
    """Architectures by the generation, the anchor first, as many as NSGA-II may ask for."""
    evaluate, budget = Evaluator(problem.loss, problem.costs), settings.population * settings.generations
    wanted = list(dict.fromkeys([tuple(of_part[0] for of_part in problem.choices), *wanted]))[:budget]
    for start in range(0, len(wanted), settings.population):
        evaluate(wanted[start : start + settings.population])
        progress(start // settings.population + 1, len(evaluate.seen))
    return evaluate.points


def _follow_exact_front(
    problem: Problem, evaluate: Evaluator, settings: SearchSettings, progress: Callable[[int, int], None]
) -> None:
    """Measure the exact front of the block costs, correct them by what was measured, and do so again.

    It ends when nothing new is on that front, or the front of what was measured no longer moves.
    """
    surrogate = Surrogate(problem.choices, evaluate, problem.initial, problem.initial[0].shape[1] - 1)
    convergence = Convergence()
    evaluate([surrogate.architecture([0] * len(problem.choices))])
    tables = problem.initial
    for number in range(1, settings.generations + 1):
        proposed = surrogate.propose(tables, settings.population - (number == 1), exact=True)
        evaluate(proposed)
        progress(number, len(evaluate.seen))
        if not proposed or convergence.stalled_generations(evaluate.points) >= 2:
            break
        tables = surrogate.fit().tables


def _by_chance(choices: Sequence[Sequence[int]], amount: int, seed: int) -> list[Choices]:
    """Different architectures, each as likely as any other."""
    generator = np.random.default_rng(seed)
    sizes = [len(of_part) for of_part in choices]
    total = prod(sizes)
    if total <= 4 * amount:
        numbers = generator.permutation(total)[:amount]
        rows = np.column_stack(np.unravel_index(numbers, sizes))
    else:
        rows = np.column_stack([generator.integers(0, size, 2 * amount + 100) for size in sizes])
    return [tuple(of_part[i] for of_part, i in zip(choices, row, strict=True)) for row in rows.tolist()]


def uniform(problem: Problem) -> list[Choices]:
    """Uniform scaling: every part is made shallower and narrower by the same two factors.

    A part takes the choice whose depth and MACs a layer are nearest to these shares of its largest
    choice's, in logarithms; of several that are as near, the one that adds least to the loss.
    """
    found: dict[Choices, None] = {}
    shares = np.linspace(1, 0, SCALES, endpoint=False)
    for depth in shares:
        for width in shares:
            row = []
            for of_part, sizes, initial in zip(problem.choices, problem.sizes, problem.initial, strict=True):
                target = np.array([max(1.0, round(depth * sizes[:, 0].max())), width * sizes[:, 1].max()])
                away = np.abs(np.log(np.maximum(sizes, 1) / np.maximum(target, 1))).sum(1).round(6)
                row.append(of_part[int(np.lexsort([initial[:, 0], away])[0])])
            found[tuple(row)] = None
    return list(found)


def hypervolume_ratio(problem: Problem, points: Sequence[Point], front: Sequence[Point]) -> ExactFront | None:
    """How far a front is from the exact one under additive costs, these corrected by all that was measured.

    None where the exact front is too large to be listed.
    """
    evaluate = Evaluator(problem.loss, problem.costs)
    evaluate.seen = {point.choices: point for point in points}
    surrogate = Surrogate(problem.choices, evaluate, problem.initial, problem.initial[0].shape[1] - 1)
    tables = surrogate.fit().tables
    try:
        _, exact = exact_front(tables)
    except HwnasError:
        return None
    exact = exact[(exact < UNSEEN / 2).all(1)]
    known = [point for point in points if point.costs is not None]
    rows = np.array([surrogate.row(point.choices) for point in known])
    measured = np.array([point.costs for point in known])
    costs = sum_of(tables, rows)[:, 1:]
    found = sum_of(tables, np.array([surrogate.row(point.choices) for point in front]))
    corner = corner_beyond(np.concatenate([exact, found]))
    return ExactFront(
        hypervolume=hypervolume(found, corner) / hypervolume(exact, corner),
        points=len(exact),
        mean_error=float(np.abs(costs - measured).mean() / np.abs(measured).mean()),
    )
