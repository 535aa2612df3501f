from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.compress.search.filter import ChoiceCost, filter_choices
from hwnas.compress.settings import check_threshold
from hwnas.errors import InputError

OWN = ChoiceCost(choice=0, name="reference", loss=0.0, cost=2.0, cost_ratio=1.0, other_costs=(50,))
STEPS = st.integers(0, 12).map(lambda n: n / 8)


def row(choice: int, loss: float, ratio: float | None, other: int = 10) -> ChoiceCost:
    cost = None if ratio is None else 2 * ratio
    return ChoiceCost(
        choice=choice, name=f"c{choice}", loss=loss, cost=cost, cost_ratio=ratio, other_costs=(other,)
    )


def rows(values: list[tuple[float, float | None, int]]) -> list[ChoiceCost]:
    return [OWN, *(row(choice, *value) for choice, value in enumerate(values, 1))]


def test_a_costlier_candidate_with_no_lower_loss_goes() -> None:
    found = filter_choices(rows([(0.3, 0.5, 10), (0.3, 0.56, 10), (0.4, 0.54, 10), (0.2, 0.9, 10)]), 0.05)
    assert [choice.kept for choice in found] == [True, True, False, True, True]
    assert [choice.beaten_by for choice in found] == [None, None, 1, None, None]


def test_what_costs_more_than_the_reference_goes_and_the_reference_stays() -> None:
    found = filter_choices(rows([(0.1, 1.2, 60), (0.0, 0.1, 60)]), 0.1)
    assert [choice.kept for choice in found] == [True, False, True]
    assert found[1].beaten_by == 2 or found[1].beaten_by == 0


def test_what_is_better_in_another_objective_stays() -> None:
    found = filter_choices(rows([(0.3, 0.5, 10), (0.4, 0.8, 9), (0.4, 0.8, 10)]), 0.05)
    assert [choice.kept for choice in found] == [True, True, True, False]


@given(
    st.lists(st.tuples(STEPS, st.none() | STEPS, st.integers(1, 3)), max_size=12),
    st.sampled_from([0.0, 0.125, 0.3, 1.0]),
)
def test_the_filter_is_what_the_rule_says(
    values: list[tuple[float, float | None, int]], threshold: float
) -> None:
    given = rows(values)
    found = filter_choices(given, threshold)
    assert [choice.choice for choice in found] == [choice.choice for choice in given]
    for before, after in zip(given, found, strict=True):
        beaten = any(
            other.loss <= before.loss
            and other.cost is not None
            and before.cost is not None
            and other.cost / 2 < before.cost / 2 - threshold
            and other.other_costs <= before.other_costs
            for other in given
        )
        assert after.kept == (not beaten or before.choice == 0 or before.cost is None)
        if not after.kept:
            winner = next(other for other in given if other.choice == after.beaten_by)
            assert winner.cost_ratio is not None and after.cost_ratio is not None
            assert winner.cost_ratio + threshold < after.cost_ratio
    costs = [choice for choice in given if choice.cost_ratio is not None]
    cheapest = min(costs, key=lambda choice: choice.cost_ratio or 0.0)
    assert found[cheapest.choice].kept


@given(st.lists(st.tuples(STEPS, STEPS, st.just(10)), max_size=12))
def test_without_a_threshold_only_the_front_is_left(values: list[tuple[float, float, int]]) -> None:
    given = rows([*values])
    kept = [choice for choice in filter_choices(given, 0.0) if choice.kept and choice.choice]
    for choice in kept:
        assert choice.cost_ratio is not None
        for other in kept:
            assert other.cost_ratio is not None
            assert not (other.loss <= choice.loss and other.cost_ratio < choice.cost_ratio)


@given(st.lists(st.tuples(STEPS, STEPS, st.just(10)), max_size=12), STEPS, STEPS)
def test_a_higher_threshold_keeps_no_less(
    values: list[tuple[float, float, int]], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    strict = {c.choice for c in filter_choices(rows([*values]), low) if c.kept}
    lenient = {c.choice for c in filter_choices(rows([*values]), high) if c.kept}
    assert strict <= lenient


@pytest.mark.parametrize("threshold", [-0.01, math.nan, math.inf])
def test_thresholds_without_meaning_are_told(threshold: float) -> None:
    with pytest.raises(InputError, match="threshold") as error:
        check_threshold(threshold)
    assert "--filter-threshold" in error.value.fix
