from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.compress.search.additive import evenly, exact_front, fit_tables, sum_of
from hwnas.compress.search.pareto import non_dominated
from hwnas.errors import HwnasError


def brute_force(values: np.ndarray) -> set[tuple[float, ...]]:
    """The rows that no other one beats, by comparing all pairs."""
    rows = {tuple(row) for row in values.tolist()}
    return {
        a for a in rows if not any(b != a and all(y <= x for x, y in zip(a, b, strict=True)) for b in rows)
    }


@pytest.mark.parametrize("values", [1, 2, 3, 4])
@given(st.data())
def test_non_dominated_is_what_comparing_all_pairs_gives(values: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*[st.integers(0, 6).map(float)] * values), min_size=1, max_size=60))
    table = np.array(rows)
    kept = table[non_dominated(table)]
    assert len(kept) == len({tuple(row) for row in kept.tolist()})
    assert {tuple(row) for row in kept.tolist()} == brute_force(table)
    assert kept.tolist() == sorted(kept.tolist())


def test_chunks_do_not_matter() -> None:
    table = np.random.default_rng(0).integers(0, 40, (1500, 3)).astype(float)
    assert {tuple(row) for row in table[non_dominated(table)].tolist()} == brute_force(table)


@pytest.mark.parametrize("values", [2, 3])
@given(st.data())
def test_the_exact_front_is_that_of_every_architecture(values: int, data: st.DataObject) -> None:
    """Whole numbers, so that sums are exact and ties occur."""
    of_part = st.lists(st.tuples(*[st.integers(0, 9).map(float)] * values), min_size=1, max_size=6)
    tables = [np.array(rows) for rows in data.draw(st.lists(of_part, min_size=1, max_size=4))]
    everything = np.array(list(product(*(range(len(table)) for table in tables))))
    rows, sums = exact_front(tables)
    assert {tuple(row) for row in sums.tolist()} == brute_force(sum_of(tables, everything))
    assert len(sums) == len({tuple(row) for row in sums.tolist()})
    np.testing.assert_array_equal(sum_of(tables, rows), sums)


def test_a_limit_thins_the_front_and_keeps_its_points_true() -> None:
    generator = np.random.default_rng(1)
    tables = [generator.random((60, 3)) for _ in range(5)]
    rows, sums = exact_front(tables, limit=40)
    assert 20 < len(sums) <= 40
    np.testing.assert_allclose(sum_of(tables, rows), sums)
    assert len(non_dominated(sums)) == len(sums)


def test_too_many_partial_sums_are_refused_with_a_way_out() -> None:
    t = np.linspace(0, 1, 600)
    table = np.column_stack([t, 1 - t, np.sin(37 * t)])
    with pytest.raises(HwnasError, match="too many partial sums") as error:
        exact_front([table, table, table])
    assert "--strategy nsga2" in error.value.fix


def test_tables_learn_what_whole_networks_cost() -> None:
    """Sums that are off by a fifth and by corrections of their own are put right by enough networks."""
    generator = np.random.default_rng(2)
    prior = [generator.uniform(0.1, 0.3, 8) for _ in range(4)]
    truth = [0.8 * table + generator.normal(0, 0.02, 8) for table in prior]
    rows = generator.integers(0, 8, (200, 4))
    unseen = generator.integers(0, 8, (200, 4))
    errors = {}
    for amount in (0, 20, 200):
        tables = (
            fit_tables(prior, rows[:amount], sum_of(truth, rows[:amount])).tables if amount else list(prior)
        )
        errors[amount] = np.abs(sum_of(tables, unseen) - sum_of(truth, unseen)).mean()
    assert errors[200] < 0.1 * errors[20] < 0.1 * errors[0]


def test_what_was_never_seen_stays_at_its_scaled_prior() -> None:
    prior = [np.array([0.2, 0.4, 0.6]), np.array([0.1, 0.3, 0.5])]
    rows = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    fitted = fit_tables(prior, rows, 2 * sum_of(prior, rows))
    assert [seen.tolist() for seen in fitted.seen] == [[2, 2, 0], [2, 2, 0]]
    assert sum_of(fitted.tables, np.array([[2, 2]]))[0] == pytest.approx(2 * 1.1)
    assert fitted.spread == pytest.approx(0, abs=1e-6)


def test_positions_are_spread_over_the_whole_front() -> None:
    t = np.linspace(0, 1, 1000) ** 4  # crowded at one end
    front = np.column_stack([t, 100 * (1 - t)])
    found = t[evenly(front, 11)]
    np.testing.assert_allclose(found, np.linspace(0, 1, 11), atol=0.01)
    assert evenly(front[:3], 5).tolist() == [0, 1, 2]
    assert evenly(front[:1], 1).tolist() == [0]
