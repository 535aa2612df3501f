"""NSGA-II over categorical choices, with operators that learn what each choice adds to loss and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowding, binary_tournament
from pymoo.core.mating import Mating
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.operators.crossover.ux import UX
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.optimize import minimize

from hwnas.compress.library.stitch import Choices
from hwnas.compress.search.additive import sum_of
from hwnas.compress.search.pareto import corner_beyond, hypervolume, non_dominated
from hwnas.compress.search.points import Costs, Evaluator, Point
from hwnas.compress.search.surrogate import AdditiveTables, Surrogate

SCREENED = 5
"""Offspring that are bred for each one that is evaluated."""
DRAWS = 10
PROPOSED_SHARE = 0.5
STILL = 1e-3
"""A front whose hypervolume grows by a smaller share does not move."""


def search(
    choices: Sequence[Sequence[int]],
    loss: Callable[[Choices], float],
    costs: Costs,
    objectives: int = 1,
    *,
    population: int,
    generations: int,
    seed: int,
    initial: AdditiveTables | None = None,
    patience: int | None = None,
    progress: Callable[[int, int], None] = lambda generation, seen: None,
) -> list[Point]:
    """Every architecture that NSGA-II asked for, in order and each once, the first choices of all parts
    first.

    Selection, non-dominated sorting and crowding are pymoo's. Choices are categories, so crossover takes
    each part from either parent and mutation resets a part to another choice, one part on average. Half of
    the resets go to choices that would be efficient by what the networks so far say about them, and of five
    times as many offspring those are evaluated that would be on the front (`Surrogate`). An architecture
    without costs counts as infeasible. The same seed and costs give the same points.

    Args:
        choices: what may stand in each part.
        objectives: how many costs an architecture has; the loss is minimised beside them.
        initial: what each choice adds to loss and costs, as far as it is known beforehand. The exact front of
            it is the first population; half of the later ones are the exact front of what it has been
            corrected to.
        patience: stop after so many generations without a move of the front; None never does.
        progress: called after each generation with its number and the architectures seen.
    """
    evaluate = Evaluator(loss, costs)
    surrogate = Surrogate(choices, evaluate, initial, objectives)
    convergence = Convergence()

    def after_generation(algorithm: Any) -> None:
        progress(algorithm.n_gen, len(evaluate.seen))
        if patience is not None and convergence.stalled_generations(evaluate.points) >= patience:
            algorithm.termination.force_termination = True

    mating = _SurrogateMating(surrogate, proposes=initial is not None)
    minimize(
        _Architectures(choices, objectives, evaluate),
        NSGA2(
            pop_size=population,
            sampling=_First(surrogate if initial is not None else None),
            mating=mating,
        ),
        ("n_gen", generations),
        seed=seed,
        callback=after_generation,
        copy_algorithm=False,  # a copy would learn from a copy of what was evaluated
    )
    return evaluate.points


class Convergence:
    """Whether a front still moves, by its hypervolume up to a little beyond the first points."""

    def __init__(self) -> None:
        self.corner: np.ndarray | None = None
        self.volume = 0.0
        self.still = 0

    def stalled_generations(self, points: Sequence[Point]) -> int:
        """Take in all points so far; how many calls in a row the front has not moved."""
        values = np.array([[p.loss, *p.costs] for p in points if p.costs is not None])
        if len(values) == 0:
            return 0
        if self.corner is None:
            self.corner = corner_beyond(values)
        volume = hypervolume(values, self.corner)
        self.still = self.still + 1 if volume <= self.volume * (1 + STILL) else 0
        self.volume = max(volume, self.volume)
        return self.still


class _Architectures(Problem):  # type: ignore[misc]
    """Genes are positions in each part's list of choices."""

    def __init__(self, choices: Sequence[Sequence[int]], objectives: int, evaluate: Evaluator) -> None:
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


class _First(Sampling):  # type: ignore[misc]
    """The first choices of all parts, the exact front of the initial tables if there are any, random ones."""

    def __init__(self, surrogate: Surrogate | None) -> None:
        super().__init__()
        self.surrogate = surrogate

    def _do(
        self, problem: Problem, n_samples: int, *args: Any, random_state: Any, **kwargs: Any
    ) -> np.ndarray:
        genes = random_state.integers(0, problem.xu.astype(int) + 1, (n_samples, problem.n_var))
        genes[0] = 0
        if self.surrogate is not None and n_samples > 1:
            proposed = self.surrogate.propose(self.surrogate.initial, n_samples - 1)
            genes[1 : 1 + len(proposed)] = [self.surrogate.row(choices) for choices in proposed]
        return np.asarray(genes)


class _LearnedReset(Mutation):  # type: ignore[misc]
    """Resets each gene with probability 1 / number of genes: to any other choice, or to an efficient one."""

    def __init__(self) -> None:
        super().__init__()
        self.efficient: list[np.ndarray] = []

    def _do(
        self, problem: Problem, x: np.ndarray, *args: Any, random_state: Any, **kwargs: Any
    ) -> np.ndarray:
        sizes = problem.xu.astype(int) + 1
        reset = random_state.random(x.shape) < 1 / problem.n_var
        offset = random_state.integers(1, np.maximum(sizes, 2), x.shape)
        good = np.column_stack([random_state.choice(of_part, len(x)) for of_part in self.efficient])
        to_good = random_state.random(x.shape) < 0.5
        return np.where(reset, np.where(to_good, good, (x + offset) % sizes), x)


class _SurrogateMating(Mating):  # type: ignore[misc]
    """Breeds many, and gives those that are on the front of a few guesses at the truth."""

    def __init__(self, surrogate: Surrogate, *, proposes: bool) -> None:
        self.surrogate = surrogate
        self.proposes = proposes
        super().__init__(
            TournamentSelection(func_comp=binary_tournament),
            UX(),
            _LearnedReset(),
            eliminate_duplicates=NSGA2().eliminate_duplicates,
        )

    def do(
        self, problem: Problem, pop: Population, n_offsprings: int, *args: Any, **kwargs: Any
    ) -> Population:
        random_state = kwargs["random_state"]
        learned = self.surrogate.fit()
        guesses = [learned.sample(random_state) for _ in range(DRAWS)]
        self.mutation.efficient = [
            np.concatenate([non_dominated(guess[part]) for guess in guesses]) for part in range(problem.n_var)
        ]
        wanted = round(n_offsprings * PROPOSED_SHARE) if self.proposes else 0
        proposed = self.surrogate.propose(learned.tables, wanted) if wanted else []
        rows = [self.surrogate.row(choices) for choices in proposed]
        bred = super().do(problem, pop, SCREENED * n_offsprings, *args, **kwargs)
        known = {*proposed, *self.surrogate.evaluate.seen}
        genes = [
            [int(gene) for gene in one]
            for one in bred.get("X")
            if self.surrogate.architecture(one) not in known
        ]
        rows += _screened(
            problem, np.array(genes, dtype=int), guesses, n_offsprings - len(rows), random_state
        )
        return Population.new(X=np.array(rows, dtype=int)) if rows else Population.create()


def _screened(
    problem: Problem, genes: np.ndarray, guesses: Sequence[AdditiveTables], amount: int, random_state: Any
) -> list[list[int]]:
    """`amount` of the offspring, from each guess in turn those that it puts on the front."""
    if len(genes) <= amount:
        return [list(row) for row in genes]
    chosen: list[int] = []
    left = np.arange(len(genes))
    for number, guess in enumerate(guesses):
        share = (amount - len(chosen)) // (len(guesses) - number)
        if share == 0:
            continue
        fancied = Population.new(X=genes[left], F=sum_of(guess, genes[left]), at=left)
        fancied.set("G", np.zeros((len(left), 0)))
        best = RankAndCrowding().do(problem, fancied, n_survive=share, random_state=random_state)
        found = best.get("at").astype(int)
        chosen += [int(i) for i in found]
        left = np.setdiff1d(left, found)
    return [list(row) for row in genes[chosen]]
