"""How well cheap figures (sums of block costs, MACs, parameters) stand for the measured latency."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.compress.search.pareto import hypervolume, non_dominated

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
    values = np.column_stack([losses, measured])
    corner = _corner(values[[*best, *chosen]])
    of_best, of_chosen = (hypervolume(values[front], corner) for front in (best, chosen))
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
    return [int(i) for i in non_dominated(np.column_stack([costs, losses]))]


def _corner(values: np.ndarray) -> np.ndarray:
    """A twentieth of the worst figure beyond it on every axis. values: (N, K)."""
    return np.where(values.max(0) > 0, MARGIN * values.max(0), 1.0)


def growth(points: Sequence[Sequence[float]], steps: int = 100) -> list[tuple[int, float]]:
    """How the hypervolume grew with the networks that were evaluated, as shares of its end.

    Args:
        points: loss and costs of each network, in the order of the search, the reference first.
        steps: at most so many figures.
    """
    values = np.array(points)
    corner = _corner(values[[0, *non_dominated(values)]])
    at = sorted({round(n) for n in np.linspace(1, len(points), min(steps, len(points)))})
    volumes = [hypervolume(values[:n], corner) for n in at]
    return [(n, volume / volumes[-1]) for n, volume in zip(at, volumes, strict=True)]
