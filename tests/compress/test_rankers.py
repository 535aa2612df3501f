"""Rankers against independent computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.compress.report.proxies import agreement, front_of, growth
from hwnas.compress.search.pareto import hypervolume

Network = tuple[float, float, float]
value = st.integers(1, 30).map(float)
networks = st.lists(st.tuples(st.integers(0, 30).map(float), value, value), min_size=1, max_size=25)


@given(networks)
def test_a_front_holds_what_nothing_dominates(points: list[Network]) -> None:
    losses, costs, _ = zip(*points, strict=True)
    front = {(losses[i], costs[i]) for i in front_of(losses, costs)}
    pairs = set(zip(losses, costs, strict=True))
    expected = {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    assert front == expected
    assert len(front_of(losses, costs)) == len(front)


@given(networks)
def test_agreement_against_counting(points: list[Network]) -> None:
    losses, measured, ranker = zip(*points, strict=True)
    found = agreement(losses, measured, ranker)
    slower = []
    for i in front_of(losses, ranker):
        fastest = min(m for loss, m in zip(losses, measured, strict=True) if loss <= losses[i])
        slower.append(measured[i] / fastest - 1)
    assert found.slower_largest == pytest.approx(max(slower))
    assert found.slower_largest >= found.slower_median >= 0
    assert 0 < found.hypervolume_ratio <= 1 + 1e-12
    pairs = list(itertools.combinations(zip(measured, ranker, strict=True), 2))
    signs = [((a[0] > b[0]) - (a[0] < b[0])) * ((a[1] > b[1]) - (a[1] < b[1])) for a, b in pairs]
    apart = [sum(a[k] != b[k] for a, b in pairs) for k in (0, 1)]
    if apart[0] and apart[1]:  # Kendall's tau-b
        assert found.kendall_tau == pytest.approx(sum(signs) / (apart[0] * apart[1]) ** 0.5)
    else:
        assert found.kendall_tau is None


@given(networks)
def test_the_latency_itself_is_the_best_ranker(points: list[Network]) -> None:
    losses, measured, _ = zip(*points, strict=True)
    found = agreement(losses, measured, measured)
    assert (found.hypervolume_ratio, found.slower_largest) == (1, 0)


def test_a_ranker_that_is_upside_down() -> None:
    found = agreement([0, 1, 2], [3, 2, 1], [1, 2, 3])
    assert found.kendall_tau == -1
    assert (found.networks, found.slower_largest) == (1, 0)
    # Corner (2.1, 3.15): the reference alone dominates 2.1 × 0.15, the whole front two steps more.
    assert found.hypervolume_ratio == pytest.approx(2.1 * 0.15 / (2.1 * 0.15 + 1.1 + 0.1))


def test_hypervolume_of_two_boxes() -> None:
    assert hypervolume(np.array([[0, 2], [1, 1]]), np.array([3, 3])) == pytest.approx(3 + 2)


@given(networks)
def test_the_front_only_grows(points: list[Network]) -> None:
    found = growth(points, steps=10)
    shares = [share for _, share in found]
    assert shares == sorted(shares)
    assert found[-1] == (len(points), 1)
