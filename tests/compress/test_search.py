from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.compress.search.nsga2 import search
from hwnas.compress.search.pick import check_rule, pick
from hwnas.compress.search.points import Evaluator, Point, pareto_front
from hwnas.compress.search.surrogate import FittedSurrogate, Surrogate
from hwnas.compress.settings import Objective
from hwnas.errors import HwnasError, InputError

Choices = tuple[int, ...]


class Additive:
    """Losses and costs that add up over blocks: small enough to be solved by trying everything."""

    def __init__(self, blocks: int, amount: int, seed: int) -> None:
        rng = random.Random(seed)
        self.choices = [[0, *range(2, amount + 1)] for _ in range(blocks)]  # the first candidate failed
        self.losses = [{m: rng.random() if m else 0.0 for m in block} for block in self.choices]
        self.costs_of = [
            {m: (1 - 0.8 * self.losses[n][m]) * rng.uniform(0.6, 1.0) if m else 1.0 for m in block}
            for n, block in enumerate(self.choices)
        ]
        self.asked: list[Choices] = []

    def loss(self, choices: Choices) -> float:
        return sum(self.losses[n][m] for n, m in enumerate(choices))

    def cost(self, choices: Choices) -> float:
        return sum(self.costs_of[n][m] for n, m in enumerate(choices)) / len(choices)

    def costs(self, batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        self.asked.extend(batch)
        return [(self.cost(choices),) for choices in batch]

    def point(self, choices: Choices) -> Point:
        return Point(choices=choices, loss=self.loss(choices), costs=(self.cost(choices),))

    def run(self, population: int = 20, generations: int = 20, seed: int = 0) -> list[Point]:
        return search(
            self.choices, self.loss, self.costs, population=population, generations=generations, seed=seed
        )


def hypervolume(points: Sequence[Point], loss: float, cost: float) -> float:
    """The area between a front and its worst corner, by summing strips."""
    area, last = 0.0, cost
    known = {(p.loss, p.costs[0]) for p in points if p.costs is not None}
    front = sorted(pair for pair in known if pair[0] < loss and pair[1] < cost)
    for left, height in front:
        if height < last:
            area += (loss - left) * (last - height)
            last = height
    return area


def test_it_approaches_the_true_front_and_beats_random_sampling() -> None:
    worse = 0
    for seed in range(3):
        problem = Additive(blocks=4, amount=9, seed=seed)
        everything = [problem.point(choices) for choices in product(*problem.choices)]
        corner = max(p.loss for p in everything), 1.0 + 1e-9
        exact = hypervolume(everything, *corner)
        found = problem.run(generations=30, seed=seed)
        assert len(found) < len(everything) / 4
        sample = random.Random(seed).sample(everything, len(found))
        reached, by_chance = hypervolume(found, *corner) / exact, hypervolume(sample, *corner) / exact
        assert 0.95 < reached <= 1 + 1e-9
        worse += by_chance >= reached
    assert worse == 0


def test_every_point_is_what_the_functions_say_and_asked_for_once() -> None:
    problem = Additive(blocks=3, amount=6, seed=0)
    points = problem.run()
    assert points[0].choices == (0, 0, 0)
    assert [point.choices for point in points] == problem.asked
    assert len(set(problem.asked)) == len(problem.asked) > 30
    assert points == [problem.point(point.choices) for point in points]
    assert all(
        m in block for point in points for m, block in zip(point.choices, problem.choices, strict=True)
    )


def test_the_same_seed_goes_the_same_way() -> None:
    first = Additive(blocks=4, amount=6, seed=1).run(seed=5)
    np.random.seed(99)
    random.seed(99)
    assert Additive(blocks=4, amount=6, seed=1).run(seed=5) == first
    assert Additive(blocks=4, amount=6, seed=1).run(seed=6) != first


@pytest.mark.parametrize("choices", [[[0]], [[0, 1]], [[0], [0, 3]], [[0, 1, 2], [0]]])
def test_a_space_smaller_than_the_population_is_exhausted(choices: list[list[int]]) -> None:
    points = search(
        choices,
        lambda c: float(sum(c)),
        lambda batch: [(1.0,)] * len(batch),
        population=20,
        generations=5,
        seed=0,
    )
    assert sorted(point.choices for point in points) == sorted(product(*choices))


def test_failures_are_kept_with_their_reason_and_do_not_end_the_search() -> None:
    problem = Additive(blocks=3, amount=6, seed=2)

    def costs(batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        return ["too big" if choices[1] == 3 else (problem.cost(choices),) for choices in batch]

    points = search(problem.choices, problem.loss, costs, population=12, generations=10, seed=0)
    failed = [point for point in points if point.reason is not None]
    assert failed
    assert {(point.choices[1], point.costs, point.reason) for point in failed} == {(3, None, "too big")}
    assert all(point.choices[1] != 3 for point in points if point.costs is not None)
    assert not set(failed) & set(pareto_front(points))


def test_a_search_in_which_everything_fails_says_why() -> None:
    points = search(
        [[0, 1], [0, 1]],
        lambda c: 0.0,
        lambda batch: ["no such operator"] * len(batch),
        population=4,
        generations=3,
        seed=0,
    )
    with pytest.raises(HwnasError, match="measured on the device: no such operator") as error:
        pareto_front(points)
    assert "search.json" in error.value.fix


def test_progress_is_told_after_each_generation() -> None:
    problem, told = Additive(blocks=3, amount=6, seed=0), []
    search(
        problem.choices,
        problem.loss,
        problem.costs,
        population=8,
        generations=4,
        seed=0,
        progress=lambda generation, seen: told.append((generation, seen)),
    )
    assert [generation for generation, _ in told] == [1, 2, 3, 4]
    assert told[-1][1] == len(problem.asked)


@pytest.mark.parametrize("random_state", [np.random.default_rng(0), np.random.RandomState(0)])
def test_guesses_vary_around_what_was_learned_and_less_the_more_was_seen(random_state: Any) -> None:
    tables = [np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 0.0]]), np.array([[-1.0, 0.5], [0.0, 0.0]])]
    seen, spread = [np.array([0, 3, 99]), np.array([8, 1])], np.array([2.0, 0.1])
    learned = FittedSurrogate(tables, spread, seen)
    guesses = [np.concatenate(learned.sample(random_state)) for _ in range(4000)]
    noise = np.array(guesses) - np.concatenate(tables)
    expected = np.array([[spread[k] / (1 + n) ** 0.5 for k in range(2)] for of in seen for n in of.tolist()])
    np.testing.assert_allclose(noise.std(axis=0), expected, rtol=0.06)
    np.testing.assert_allclose(noise.mean(axis=0) / expected, 0, atol=0.08)
    related = np.corrcoef(noise.reshape(4000, -1).T)
    np.testing.assert_allclose(related, np.eye(10), atol=0.08)  # no two values share their noise


@pytest.mark.parametrize("seed", range(3))
def test_a_choice_beyond_all_measure_does_not_decide_what_the_others_add(seed: int) -> None:
    """One such choice in the loss and another one in the cost; nothing is known beforehand."""
    generator = np.random.default_rng(seed)
    truth = generator.random((4, 10, 2))
    beyond = [(0, 3), (1, 5)]
    for k, (part, choice) in enumerate(beyond):
        truth[part, choice, k] = 1e4

    def value(choices: Choices, k: int) -> float:
        return float(sum(truth[n, m, k] for n, m in enumerate(choices)))

    evaluate = Evaluator(lambda c: value(c, 0), lambda batch: [(value(c, 1),) for c in batch])
    evaluate([tuple(row) for row in generator.integers(0, 10, (200, 4)).tolist()])
    learned = np.array(Surrogate([range(10)] * 4, evaluate, None, 1).fit().tables)
    assert learned.shape == truth.shape
    for k, (part, choice) in enumerate(beyond):
        others = np.ones((4, 10), dtype=bool)
        others[part, choice] = False
        for n in range(4):
            found, true = learned[n, others[n], k], truth[n, others[n], k]
            np.testing.assert_allclose(found - found.mean(), true - true.mean(), atol=0.3)
        assert learned[part, choice, k] > learned[part, others[part], k].max() + 1


@pytest.mark.parametrize("objectives", [1, 2])
@given(st.data())
def test_the_front_is_what_nothing_beats(objectives: int, data: st.DataObject) -> None:
    costs_of = st.none() | st.tuples(*[st.integers(0, 8).map(float)] * objectives)
    values = data.draw(st.lists(st.tuples(st.integers(0, 8).map(float), costs_of), min_size=1, max_size=40))
    points = [
        Point(choices=(i,), loss=loss, costs=costs, reason=None if costs is not None else "broken")
        for i, (loss, costs) in enumerate(values)
    ]
    known = {(p.loss, *p.costs) for p in points if p.costs is not None}
    if not known:
        with pytest.raises(HwnasError):
            pareto_front(points)
        return
    expected = {
        a for a in known if not any(b != a and all(y <= x for x, y in zip(a, b, strict=True)) for b in known)
    }
    front = pareto_front(points)
    assert {(p.loss, *(p.costs or ())) for p in front} == expected
    assert len(front) == len(expected)
    costs = [p.costs or () for p in front]
    assert costs == sorted(costs)
    assert set(front) <= set(points)


def make_front(*values: tuple[float, float]) -> list[Point]:
    return [Point(choices=(i,), loss=loss, costs=(cost,)) for i, (loss, cost) in enumerate(values)]


LATENCY: tuple[Objective, ...] = ("latency",)
FRONT = make_front((9.0, 0.2), (2.0, 0.4), (1.0, 0.5), (0.5, 0.8), (0.0, 1.0))


def test_the_knee_is_farthest_below_the_line_between_the_ends() -> None:
    distances = [(9 - p.loss) / 9 * 0.8 - ((p.costs or (0.0,))[0] - 0.2) for p in FRONT]
    assert pick(FRONT, "knee", LATENCY, 10.0) == FRONT[distances.index(max(distances))] == FRONT[1]
    assert pick(FRONT[:1], "knee", ("macs",), None) == FRONT[0]
    assert pick(make_front((1.0, 0.5), (1.0, 0.5)), "knee", ("macs",), None).costs == (0.5,)


@pytest.mark.parametrize(
    ("rule", "index"),
    [
        ("speedup=2", 2),
        ("speedup=2.01", 1),
        ("speedup=5", 0),
        ("speedup=1", 4),
        ("speedup=0.5", 4),
        ("latency-ms=5", 2),
        ("latency-ms=4.9", 1),
        ("latency-ms=2", 0),
        ("latency-ms=1e3", 4),
    ],
)
def test_a_bound_gets_the_least_loss_within_it(rule: str, index: int) -> None:
    assert pick(FRONT, rule, LATENCY, 10.0) == FRONT[index]


@pytest.mark.parametrize("rule", ["speedup=5.1", "latency-ms=1.9", "speedup=1000"])
def test_a_bound_that_nothing_reaches_is_told_with_one_that_is(rule: str) -> None:
    with pytest.raises(InputError, match=f"no architecture of the front reaches {rule}") as error:
        pick(FRONT, rule, LATENCY, 10.0)
    asked = float(error.value.fix.split("--speedup ")[1].split(",")[0])
    assert pick(FRONT, f"speedup={asked}", LATENCY, 10.0) == FRONT[0]


@given(st.floats(0.01, 0.999))
def test_the_speedup_that_is_proposed_is_reached(cost: float) -> None:
    front = make_front((1.0, cost), (0.0, 1.0))
    with pytest.raises(InputError) as error:
        pick(front, "speedup=1e6", LATENCY, 10.0)
    asked = float(error.value.fix.split("--speedup ")[1].split(",")[0])
    assert pick(front, f"speedup={asked}", LATENCY, 10.0).costs == pytest.approx((cost,)) or asked == 1


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "fastest",
        "speedup",
        "speedup=",
        "speedup=x",
        "speedup=0",
        "speedup=-1",
        "speedup=nan",
        "latency-ms=inf",
        "latency=3",
        "knee=2",
    ],
)
def test_unknown_picks_are_told(rule: str) -> None:
    for check in (lambda: check_rule(rule, LATENCY), lambda: pick(FRONT, rule, LATENCY, 10.0)):
        with pytest.raises(InputError, match="unknown pick") as error:
            check()
        assert "--pick knee" in error.value.fix


def test_a_latency_needs_the_objective_latency() -> None:
    with pytest.raises(InputError, match="--latency-ms needs the objective latency"):
        pick(FRONT, "latency-ms=3", ("macs", "params"), None)
    with pytest.raises(InputError, match="--latency-ms needs the objective latency"):
        check_rule("latency-ms=3", ("macs",))
    assert check_rule("latency-ms=3", ("params", "latency")) == 3
    assert check_rule("speedup=4", ("macs",)) == 0.25
    assert check_rule("knee", ("macs",)) is None


def test_a_speedup_is_of_the_time_wherever_it_stands_among_the_objectives() -> None:
    front = [
        Point(choices=(0,), loss=0.1, costs=(0.3, 0.9)),
        Point(choices=(1,), loss=0.2, costs=(0.9, 0.4)),
        Point(choices=(2,), loss=0.2, costs=(0.8, 0.5)),
    ]
    assert pick(front, "speedup=2", ("params", "latency"), 10.0) == front[2]
    assert pick(front, "latency-ms=4", ("params", "latency"), 10.0) == front[1]
    assert pick(front, "speedup=2", ("params", "energy"), None) == front[0]
    with pytest.raises(InputError, match="how long the reference takes is not known"):
        pick(front, "latency-ms=4", ("params", "latency"), None)


def test_three_objectives_give_the_front_of_all_three() -> None:
    problem = Additive(blocks=3, amount=4, seed=0)
    sizes = [[7.0, 1.0, 3.0, 5.0, 1.0], [2.0, 3.0, 6.0, 1.0, 4.0], [5.0, 1.0, 4.0, 3.0, 2.0]]

    def costs(batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        return [(problem.cost(choices), sum(sizes[n][m] for n, m in enumerate(choices))) for choices in batch]

    def points(found: Sequence[Choices]) -> list[Point]:
        answers = zip(found, costs(found), strict=True)
        return [
            Point(choices=choices, loss=problem.loss(choices), costs=answer)
            for choices, answer in answers
            if not isinstance(answer, str)
        ]

    found = search(problem.choices, problem.loss, costs, 2, population=40, generations=40, seed=0)
    everything = points(list(product(*problem.choices)))
    assert set(pareto_front(found)) == set(pareto_front(everything))
