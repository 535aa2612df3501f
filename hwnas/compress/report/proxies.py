"""How well cheap figures (sums of block costs, MACs, parameters) stand for the measured latency."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 1.05


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A ranker's standing against the measured latencies of the same networks.

    Attributes:
        kendall_tau: of the two orders; None where it is not defined (fewer than two different values).
        hypervolume_ratio: of the front that the ranker chooses, its networks taken at their measured latency,
            to the front by measured latency. 1: nothing is lost.
        slower_median, slower_largest: how much more latency a network of the ranker's front has than the
            fastest one that loses no more, as a share of that one's.
    """

    kendall_tau: float | None
    hypervolume_ratio: float
    slower_median: float
    slower_largest: float
    networks: int


def agreement(losses: Sequence[float], measured: Sequence[float], ranker: Sequence[float]) -> Agreement:
    """Compare a ranker with the measured latency over the networks of a search.

    Args:
        losses, measured, ranker: of each network, in the same order; at least one network.
    """
    from scipy.stats import kendalltau

    best = front_of(losses, measured)
    chosen = front_of(losses, ranker)
    slower = []
    for i in chosen:
        fastest = min(measured[j] for j in best if losses[j] <= losses[i])
        slower.append(measured[i] / fastest - 1)
    corner = _corner([(losses[i], measured[i]) for i in {*best, *chosen}])
    of_best, of_chosen = (
        hypervolume([(losses[i], measured[i]) for i in front], corner) for front in (best, chosen)
    )
    tau = float(kendalltau(measured, ranker).statistic) if len(measured) > 1 else float("nan")
    return Agreement(
        kendall_tau=None if np.isnan(tau) else tau,
        hypervolume_ratio=of_chosen / of_best,
        slower_median=statistics.median(slower),
        slower_largest=max(slower),
        networks=len(chosen),
    )


def front_of(losses: Sequence[float], costs: Sequence[float]) -> list[int]:
    """The networks that no other one beats in loss and cost, by rising cost."""
    front: list[int] = []
    for i in sorted(range(len(losses)), key=lambda i: (costs[i], losses[i])):
        if not front or losses[i] < losses[front[-1]]:
            front.append(i)
    return front


def hypervolume(points: Sequence[Sequence[float]], corner: Sequence[float]) -> float:
    """What the points dominate up to a corner, all axes to be lowered."""
    from pymoo.indicators.hv import HV

    return float(HV(ref_point=np.array(corner))(np.array(points)))


def _corner(points: Iterable[Sequence[float]]) -> list[float]:
    """A little beyond the worst of some points on every axis, so that each of them counts."""
    return [MARGIN * max(axis) or 1.0 for axis in zip(*points, strict=True)]


def growth(points: Sequence[Sequence[float]], steps: int = 100) -> list[tuple[int, float]]:
    """How the hypervolume grew with the networks that were evaluated, as shares of its end.

    Args:
        points: loss and costs of each network, in the order of the search, the reference first.
        steps: at most so many figures.
    """
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    last = NonDominatedSorting().do(np.array(points), only_non_dominated_front=True)
    corner = _corner([points[0], *(points[i] for i in last)])
    at = sorted({round(n) for n in np.linspace(1, len(points), min(steps, len(points)))})
    volumes = [hypervolume(points[:n], corner) for n in at]
    return [(n, volume / volumes[-1]) for n, volume in zip(at, volumes, strict=True)]
