"""DONNA's accuracy predictor: second-order ridge regression on block metrics, whatever made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hwnas.errors import InputError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import STRICT
from hwnas.ranges import Count, Figure, Position

SCHEMA = "hwnas.predictor/1"
PENALTIES = np.logspace(-4, 4, 33)
MIN_NETWORKS = 4


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How good predictions are.

    Attributes:
        mse_points2: mean squared error in squared percentage points (DONNA's figure 4: 0.2).
        kendall_tau: of the two orders (published: 0.91); None where it is not defined.
        networks: that were predicted.
    """

    __pydantic_config__ = STRICT
    mse_points2: Figure
    kendall_tau: Figure | None
    networks: Count


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Accuracy as a quadratic function of block metrics. N parts, of which some vary; T terms.

    Attributes:
        parts: how many metrics a network has (N).
        varying: the parts whose metric differs among the fitted networks.
        mean, scale: by which each varying part's metric is standardised.
        coefficients: (T,) of the terms: the standardised metrics, then their products, i ≤ j.
        lowest, highest: (N,), the range of each part's metric among the fitted networks.
        spread: (T, T); t · spread · t is the leverage of a network with centred terms t.
        center: (T,), the mean of the terms.
        max_leverage: the largest that a fitted network has in a fit to all others.
        penalty: of the ridge, chosen by leave-one-out.
        epochs: for which the networks were finetuned; None where nobody said.
        left_out: scores on networks that were not fitted: each one is predicted by a fit to all others, whose
            penalty was chosen without it too.
        mean_mse_points2: the error where each network is predicted by the mean accuracy of all others.
        blocks_sha256: of the block metrics of the library that it was fitted to; None where nobody said.
        fitted_to: the networks, each record's SHA-256 by the network's name; empty where nobody said.
    """

    __pydantic_config__ = STRICT
    parts: Count
    varying: tuple[Position, ...]
    mean: tuple[Figure, ...]
    scale: tuple[Figure, ...]
    coefficients: tuple[Figure, ...]
    intercept: Figure
    lowest: tuple[Figure, ...]
    highest: tuple[Figure, ...]
    center: tuple[Figure, ...]
    spread: tuple[tuple[Figure, ...], ...]
    max_leverage: Figure
    penalty: Figure
    networks: Count
    left_out: Scores
    mean_mse_points2: Figure
    epochs: Count | None = None
    blocks_sha256: str | None = None
    fitted_to: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        varying = len(self.varying)
        terms = varying + varying * (varying + 1) // 2
        shapes = {
            (len(self.lowest), self.parts),
            (len(self.highest), self.parts),
            (len(self.mean), varying),
            (len(self.scale), varying),
            (len(self.coefficients), terms),
            (len(self.center), terms),
            *((len(row), terms) for row in (self.spread, *self.spread)),
        }
        if any(has != wants for has, wants in shapes) or not set(self.varying) <= set(range(self.parts)):
            raise ValueError("its figures are not of one predictor")

    @property
    def is_useful(self) -> bool:
        """Whether networks that were not fitted are predicted better than by their mean."""
        return self.left_out.mse_points2 < self.mean_mse_points2

    def predict(self, metrics: np.ndarray) -> np.ndarray:
        """Accuracies (S,), as shares; not bounded to 0 … 1. metrics: (S, N)."""
        return np.asarray(self._terms(metrics) @ np.array(self.coefficients) + self.intercept)

    def extrapolates(self, metrics: np.ndarray) -> np.ndarray:
        """Which networks (S,) are beyond what was fitted.

        A metric is out of range, or the leverage is higher than that of any fitted network would be, had it
        been left out.
        """
        metrics = np.asarray(metrics, dtype=float)
        out = (metrics < np.array(self.lowest)) | (metrics > np.array(self.highest))
        centred = self._terms(metrics) - np.array(self.center)
        leverage = np.einsum(
            "si,ij,sj->s", centred, np.array(self.spread).reshape(2 * centred.shape[1:]), centred
        )
        return np.asarray(out.any(1) | (leverage > self.max_leverage * (1 + 1e-9)))

    def save(self, path: Path) -> None:
        """Write `predictor.json`."""
        write_signed(path, {"schema": SCHEMA, **encode(self)})

    @staticmethod
    def read(path: Path) -> Predictor:
        """Read `predictor.json`. Raises InputError naming what is wrong in it."""
        return decode(Predictor, read_signed(path, SCHEMA), path)

    def _terms(self, metrics: np.ndarray) -> np.ndarray:
        varying = np.asarray(metrics, dtype=float)[:, list(self.varying)]
        return second_order((varying - np.array(self.mean)) / np.array(self.scale))


def fit_predictor(metrics: np.ndarray, accuracies: np.ndarray) -> Predictor:
    """Fit a predictor to finetuned networks.

    Args:
        metrics: (S, N), each network's block metric in each part; 0 for the reference's own.
        accuracies: (S,), as shares, on held-out data.

    Raises:
        InputError: fewer than four networks, figures that are not finite, or shapes that do not fit.
    """
    metrics, accuracies = np.asarray(metrics, dtype=float), np.asarray(accuracies, dtype=float)
    if metrics.ndim != 2 or accuracies.shape != metrics.shape[:1]:
        raise InputError(
            f"metrics {metrics.shape} and accuracies {accuracies.shape} do not belong together",
            "give (networks, parts) and (networks,)",
        )
    if len(metrics) < MIN_NETWORKS:
        raise InputError(
            f"{len(metrics)} finetuned networks are too few for a predictor",
            f"finetune {MIN_NETWORKS} or more, 20 to 30 are advised: --predictor-networks 20",
        )
    if not (np.isfinite(metrics).all() and np.isfinite(accuracies).all()):
        raise InputError("metrics or accuracies are not finite", "leave out the networks without them")
    others = (accuracies.sum() - accuracies) / (len(accuracies) - 1)
    return replace(
        _fit(metrics, accuracies),
        left_out=score(leave_one_out(metrics, accuracies), accuracies),
        mean_mse_points2=score(others, accuracies).mse_points2,
    )


def leave_one_out(metrics: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The prediction (S,) of each network by a fit to all others, the choice of the penalty included."""
    found = []
    for left in range(len(metrics)):
        others = np.arange(len(metrics)) != left
        predictor = _fit(metrics[others], accuracies[others])
        found.append(predictor.predict(metrics[left : left + 1])[0])
    return np.array(found)


def score(predicted: np.ndarray, actual: np.ndarray) -> Scores:
    """Compare predicted accuracies with actual ones, both (S,) as shares."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(predicted, actual).statistic) if len(actual) > 1 else float("nan")
    return Scores(
        mse_points2=float(np.mean((100 * (np.asarray(predicted) - np.asarray(actual))) ** 2)),
        kendall_tau=None if np.isnan(tau) else tau,
        networks=len(actual),
    )


def second_order(x: np.ndarray) -> np.ndarray:
    """The columns of x (S, V) and the products of any two of them: (S, V + V (V + 1) / 2)."""
    i, j = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, i] * x[:, j]], axis=1)


def _fit(metrics: np.ndarray, accuracies: np.ndarray) -> Predictor:
    """A predictor that was not scored yet."""
    from sklearn.linear_model import RidgeCV

    varying = np.flatnonzero(np.ptp(metrics, axis=0) > 0)
    mean, scale = metrics[:, varying].mean(0), metrics[:, varying].std(0)
    terms = second_order((metrics[:, varying] - mean) / scale)
    center, deviation = terms.mean(0), terms.std(0)
    deviation[deviation == 0] = 1.0
    scaled = (terms - center) / deviation
    if len(varying):
        ridge = RidgeCV(alphas=PENALTIES).fit(scaled, accuracies)
        coefficients, penalty = ridge.coef_ / deviation, float(ridge.alpha_)
    else:
        coefficients, penalty = np.zeros(0), float(PENALTIES[-1])
    gram = scaled.T @ scaled + penalty * np.eye(len(center))
    spread = np.linalg.inv(gram) / np.outer(deviation, deviation)
    centred = terms - center
    leverage = np.einsum("si,ij,sj->s", centred, spread, centred)
    left_out = leverage / (1 - leverage)  # Sherman and Morrison: without the network's own terms
    return Predictor(
        parts=metrics.shape[1],
        varying=tuple(int(part) for part in varying),
        mean=_floats(mean),
        scale=_floats(scale),
        coefficients=_floats(coefficients),
        intercept=float(accuracies.mean() - coefficients @ center),
        lowest=_floats(metrics.min(0)),
        highest=_floats(metrics.max(0)),
        center=_floats(center),
        spread=tuple(_floats(row) for row in spread),
        max_leverage=float(left_out.max()),
        penalty=penalty,
        networks=len(metrics),
        left_out=Scores(mse_points2=0.0, kendall_tau=None, networks=0),
        mean_mse_points2=0.0,
    )


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
