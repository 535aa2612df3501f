"""NSGA-II with uniform crossover and random resets: what other searches are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize

POPULATION = 100


class _Choices(Problem):  # type: ignore[misc]
    def __init__(self, sizes: Sequence[int], values: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(n_var=len(sizes), n_obj=2, xl=0, xu=np.array(sizes) - 1, vtype=int)
        self.values = values
        self.seen: list[np.ndarray] = []

    def _evaluate(self, x: np.ndarray, out: dict[str, np.ndarray], *args: object, **kwargs: object) -> None:
        out["F"] = self.values(x.astype(int))
        self.seen.append(out["F"])


class _Reset(Mutation):  # type: ignore[misc]
    def _do(
        self, problem: Problem, x: np.ndarray, *args: object, random_state: np.random.Generator, **kw: object
    ) -> np.ndarray:
        reset = random_state.random(x.shape) < 1 / problem.n_var
        return np.where(reset, random_state.integers(0, problem.xu.astype(int) + 1, x.shape), x)


def plain(
    sizes: Sequence[int], values: Callable[[np.ndarray], np.ndarray], evaluations: int, seed: int
) -> np.ndarray:
    """The values (S, 2) that it sees, in order.

    Args:
        sizes: how many choices each part has.
        values: of the rows (S, N): what is minimised, (S, 2).
    """
    asked = _Choices(sizes, values)
    population = min(POPULATION, max(10, evaluations // 10))
    algorithm = NSGA2(
        pop_size=population, sampling=IntegerRandomSampling(), crossover=UX(), mutation=_Reset()
    )
    minimize(asked, algorithm, ("n_gen", evaluations // population), seed=seed, copy_algorithm=False)
    return np.concatenate(asked.seen)
