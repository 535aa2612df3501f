from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest

from hwnas.compress.search.additive import sum_of
from hwnas.compress.search.pareto import hypervolume
from hwnas.compress.search.points import Point, pareto_front
from hwnas.compress.search.strategies import Problem, explore, hypervolume_ratio
from hwnas.compress.settings import SearchSettings

Choices = tuple[int, ...]


def settings(strategy: str, population: int = 10, generations: int = 6) -> SearchSettings:
    return SearchSettings(
        device="cpu",
        objectives=("latency",),
        filter="none",
        filter_threshold=0.1,
        protocol="quick",
        population=population,
        generations=generations,
        finetune_epochs=1,
        picks=("knee",),
        strategy=strategy,
    )


class Whole:
    """A problem whose costs are not sums: each pair of neighbours has something to say to it."""

    def __init__(self, parts: int = 4, amount: int = 8, seed: int = 0, interplay: float = 0.03) -> None:
        generator = np.random.default_rng(seed)
        self.choices = [[0, *range(2, amount + 1)] for _ in range(parts)]
        cost = generator.uniform(0.2, 1.0, (parts, amount)) / parts
        loss = generator.uniform(0.5, 1.5, (parts, amount)) * (1 / parts - cost)
        cost[:, 0], loss[:, 0] = 1 / parts, 0.0
        self.initial = [np.column_stack([loss[n], 1.2 * cost[n]]) for n in range(parts)]
        self.between = generator.normal(0, interplay, (parts, amount, amount))
        self.cost, self.asked = cost, 0

    def row(self, choices: Choices) -> list[int]:
        return [of_part.index(choice) for of_part, choice in zip(self.choices, choices, strict=True)]

    def values(self, choices: Choices) -> tuple[float, float]:
        row = self.row(choices)
        loss = sum(self.initial[n][i, 0] for n, i in enumerate(row))
        alone = sum(self.cost[n, i] for n, i in enumerate(row))
        return float(loss), float(
            alone + sum(self.between[n, i, j] for n, (i, j) in enumerate(pairwise(row)))
        )

    def costs(self, batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        self.asked += len(batch)
        return [(self.values(choices)[1],) for choices in batch]

    @property
    def problem(self) -> Problem:
        sizes = [np.column_stack([np.arange(1, len(t) + 1), 100 * t[:, 1]]) for t in self.initial]
        return Problem(
            choices=self.choices,
            loss=lambda choices: self.values(choices)[0],
            costs=self.costs,
            initial=self.initial,
            sizes=sizes,
        )

    def share(self, points: Sequence[Point]) -> float:
        """The points' hypervolume as a share of that of every architecture."""
        everything = np.array([self.values(choices) for choices in product(*self.choices)])
        corner = everything.max(0) * 1.05
        found = np.array([(p.loss, *(p.costs or ())) for p in points])
        return hypervolume(found, corner) / hypervolume(everything, corner)


def explored(whole: Whole, strategy: str, **how: int) -> list[Point]:
    return explore(whole.problem, settings(strategy, **how), 0, lambda rounds, seen: None)


@pytest.mark.parametrize("strategy", ["nsga2", "exact", "scale", "random"])
def test_points_are_what_the_functions_say_and_asked_for_once(strategy: str) -> None:
    whole = Whole()
    points = explored(whole, strategy)
    assert points[0].choices == (0, 0, 0, 0)
    assert len({point.choices for point in points}) == len(points) == whole.asked <= 60
    assert all((p.loss, *(p.costs or ())) == whole.values(p.choices) for p in points)
    assert points == explored(Whole(), strategy)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_correcting_block_costs_finds_nearly_all_of_the_front(seed: int) -> None:
    shares = {s: Whole(seed=seed).share(explored(Whole(seed=seed), s)) for s in ("nsga2", "exact", "random")}
    assert min(shares["nsga2"], shares["exact"]) > max(0.95, shares["random"])


def test_the_exact_strategy_ends_by_itself_where_costs_are_sums() -> None:
    whole = Whole(interplay=0.0)
    points = explored(whole, "exact", population=200, generations=50)
    assert whole.asked < 200
    assert whole.share(points) == pytest.approx(1)


def test_a_seeded_search_stops_when_its_front_no_longer_moves() -> None:
    whole = Whole()
    rounds: list[int] = []
    explore(whole.problem, settings("nsga2", 20, 100), 0, lambda number, seen: rounds.append(number))
    assert 5 < len(rounds) < 60
    assert whole.share(explored(Whole(), "nsga2", population=20, generations=100)) > 0.99


def test_uniform_scaling_takes_like_choices_everywhere() -> None:
    """With the same sizes in all parts, all parts take the same choice."""
    whole = Whole()
    whole.initial = [whole.initial[0]] * 4
    points = explored(whole, "scale", population=100)
    assert len(points) > 3
    assert all(len(set(whole.row(point.choices))) == 1 for point in points)


def test_random_search_spends_its_whole_budget_and_exhausts_small_spaces() -> None:
    assert len(explored(Whole(), "random")) == 60
    small = Whole(parts=2, amount=4)
    assert sorted(p.choices for p in explored(small, "random")) == sorted(product(*small.choices))


def test_the_share_of_the_exact_front() -> None:
    whole = Whole(interplay=0.0)
    everything = [
        Point(choices=choices, loss=whole.values(choices)[0], costs=whole.values(choices)[1:])
        for choices in product(*whole.choices)
    ]
    front = pareto_front(everything)
    full = hypervolume_ratio(whole.problem, everything, front)
    assert full is not None
    assert full.hypervolume == pytest.approx(1, abs=1e-4)
    assert full.points == len(front)
    assert full.mean_error < 1e-3
    half = hypervolume_ratio(whole.problem, everything, front[::4])
    assert half is not None
    assert half.hypervolume < 0.98
    values = np.array([(p.loss, *(p.costs or ())) for p in everything])
    np.testing.assert_allclose(
        sum_of(whole.initial, np.array([whole.row(p.choices) for p in everything]))[:, 0], values[:, 0]
    )


def test_choices_with_which_nothing_runs_are_no_longer_proposed() -> None:
    whole = Whole()

    def costs(batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        return ["refused" if choices[1] == 5 else whole.values(choices)[1:] for choices in batch]

    problem = whole.problem
    problem = Problem(**{**vars(problem), "costs": costs, "initial": [t.copy() for t in whole.initial]})
    problem.initial[1][4] = 0.0  # the choice 5 would be the best by far
    for strategy in ("nsga2", "exact"):
        points = explore(problem, settings(strategy, 10, 12), 0, lambda rounds, seen: None)
        failed = [point for point in points if point.costs is None]
        assert 0 < len(failed) < 15
        assert len(points) - len(failed) > 20
