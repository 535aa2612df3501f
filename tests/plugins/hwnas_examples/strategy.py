"""A strategy that takes the first architectures there are."""

from __future__ import annotations

from itertools import islice, product

from hwnas.compress.search.points import Evaluator, Point
from hwnas.compress.search.strategies import OnRound, Problem
from hwnas.compress.settings import SearchSettings


def first(problem: Problem, settings: SearchSettings, seed: int, progress: OnRound) -> list[Point]:
    """Measure the first architectures in the order of their choices."""
    evaluate = Evaluator(problem.loss, problem.costs)
    wanted = list(islice(product(*problem.choices), settings.population * settings.generations))
    for number, start in enumerate(range(0, len(wanted), settings.population), 1):
        evaluate(wanted[start : start + settings.population])
        progress(number, len(evaluate.seen))
    return evaluate.points
