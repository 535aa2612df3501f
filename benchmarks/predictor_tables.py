"""What the figures of `predictor_quality.py` say: tables, intervals, and which goals are met. No script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import kendalltau

PUBLISHED_TAU = 0.91  # DONNA: the predictor; the DNA score 0.75
CEILING_SHARE = 0.95
RESAMPLES = 500
PREDICTOR = "accuracy predictor"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Figures of one seed. S held-out networks, F fitted ones; accuracies as shares.

    Attributes:
        accuracies, again: (S,) after one finetuning and after another.
        predicted: (S,), by the predictor.
        extrapolated: how many of the predictions carry the mark.
        errors, fitted_errors: (S,) and (F,) of each other ranker; the lower, the better it should be.
        reference: its accuracy; None where it is not known.
    """

    seed: int
    accuracies: np.ndarray
    again: np.ndarray
    predicted: np.ndarray
    extrapolated: int
    errors: dict[str, np.ndarray]
    fitted_accuracies: np.ndarray
    fitted_errors: dict[str, np.ndarray]
    reference: float | None = None

    def estimates(self) -> dict[str, np.ndarray]:
        """Accuracies (S,) that each ranker expects: an error's are on a line through the fitted networks."""
        lines = {
            name: np.polyval(np.polyfit(self.fitted_errors[name], self.fitted_accuracies, 1), values)
            for name, values in self.errors.items()
        }
        return {PREDICTOR: self.predicted} | lines

    def orders(self) -> dict[str, np.ndarray]:
        """(S,) each: the higher, the better a network should be. No sign is taken from any accuracy."""
        return {PREDICTOR: self.predicted} | {name: -values for name, values in self.errors.items()}


def tau(order: np.ndarray, accuracies: np.ndarray) -> float:
    """Kendall's tau-b; 0 where either is constant."""
    return float(np.nan_to_num(kendalltau(order, accuracies).statistic))


def ceiling(found: Found) -> float:
    """Tau between two finetunings of the same networks."""
    return tau(found.accuracies, found.again)


def errors_of(estimates: np.ndarray, accuracies: np.ndarray) -> tuple[float, float]:
    """Mean squared error in points², and what of it is one offset common to all networks."""
    difference = 100 * (estimates - accuracies)
    return float(np.mean(difference**2)), float(np.mean(difference) ** 2)


def interval(found: Sequence[Found], figure: Callable[[Found, np.ndarray], float]) -> tuple[float, float]:
    """95 % interval of a figure's mean over the seeds, by drawing each seed's networks anew.

    Args:
        figure: of a seed and the positions (S,) of the networks that were drawn.
    """
    generator = np.random.default_rng(0)
    means = [
        np.mean([figure(f, generator.integers(0, len(f.accuracies), len(f.accuracies))) for f in found])
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _drawn_tau(name: str, found: Found, drawn: np.ndarray) -> float:
    return tau(found.orders()[name][drawn], found.accuracies[drawn])


def table(found: Sequence[Found]) -> str:
    """Kendall's tau and the mean squared error of each ranker, as Markdown."""
    seeds = [f"tau, seed {f.seed}" for f in found]
    lines = [
        " | ".join(["| networks ranked by", *seeds, "mean tau [95 %]", "MSE, points²", "of it offset |"]),
        "|---" * (len(seeds) + 4) + "|",
    ]
    for name in found[0].orders():
        taus = [tau(f.orders()[name], f.accuracies) for f in found]
        squares = np.mean([errors_of(f.estimates()[name], f.accuracies) for f in found], axis=0)
        bounds = interval(found, partial(_drawn_tau, name))
        lines.append(_row(name, taus, bounds, f"{squares[0]:.2f}", f"{squares[1]:.2f}"))
    bounds = interval(found, lambda f, drawn: tau(f.again[drawn], f.accuracies[drawn]))
    squares = np.mean([errors_of(f.again, f.accuracies) for f in found], axis=0)
    taus = [ceiling(f) for f in found]
    lines.append(_row("ceiling: finetuned again", taus, bounds, f"{squares[0]:.2f}", f"{squares[1]:.2f}"))
    return "\n".join(lines)


def _row(name: str, taus: Sequence[float], bounds: tuple[float, float], *more: str) -> str:
    mean = f"{np.mean(taus):.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return " | ".join([f"| {name}", *(f"{value:.3f}" for value in taus), mean, *more]) + " |"


def verdict(found: Sequence[Found]) -> str:
    """Which goals are met, in words made from the figures alone."""
    means = {
        name: float(np.mean([tau(f.orders()[name], f.accuracies) for f in found]))
        for name in found[0].orders()
    }
    own, top = means.pop(PREDICTOR), float(np.mean([ceiling(f) for f in found]))
    best = max(means, key=lambda name: means[name])

    def lead(f: Found, drawn: np.ndarray) -> float:
        actual = f.accuracies[drawn]
        return tau(f.predicted[drawn], actual) - tau(f.orders()[best][drawn], actual)

    low, high = interval(found, lead)
    near = top > 0 and own >= CEILING_SHARE * top
    good = (own >= PUBLISHED_TAU or near) and own > means[best]
    return "\n".join(
        [
            _networks(found),
            f"- tau ≥ {PUBLISHED_TAU}, as published: {_met(own >= PUBLISHED_TAU)} ({own:.3f})",
            f"- tau ≥ {CEILING_SHARE:.0%} of the ceiling: {_met(near)} "
            f"({own:.3f} of {top:.3f}{f', {own / top:.1%}' if top > 0 else ''})",
            f"- better than all others: {_met(own > means[best])} (the best other is {best} with "
            f"{means[best]:.3f}; ahead by {own - means[best]:+.3f} [{low:+.3f}, {high:+.3f}])",
            f"- the goal, one of the first two and the third: {_met(good)}",
        ]
    )


def _networks(found: Sequence[Found]) -> str:
    values = 100 * np.concatenate([f.accuracies for f in found])
    counts = ", ".join(f"{len(f.accuracies)} held out and {len(f.fitted_accuracies)} fitted" for f in found)
    references = ", ".join("–" if f.reference is None else f"{f.reference:.1%}" for f in found)
    marked = sum(f.extrapolated for f in found)
    return (
        f"Networks by seed: {counts}. Accuracies of the held-out ones: {values.min():.1f} to "
        f"{values.max():.1f} %, standard deviation {values.std():.1f} points; the references': {references}. "
        f"Predictions marked as extrapolating: {marked} of {len(values)}."
    )


def _met(good: bool) -> str:
    return "met" if good else "**missed**"
