"""Objectives that add up over the parts: the exact front, and costs of parts fitted to whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.compress.search.pareto import non_dominated
from hwnas.errors import HwnasError

PENALTY = 0.1
MAX_POINTS = 300_000
"""Partial sums that are compared at once where there are more than two values."""


def exact_front(tables: Sequence[np.ndarray], limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Every Pareto-optimal sum of one row from each table, by dynamic programming over the tables.

    What is dominated among the partial sums cannot become optimal: whatever is added to it can be added to
    the sum that dominates it. Where several selections have the same sum, one of them is given.

    Args:
        tables: of each part, the values (M_n, K) of its choices, all K to be lowered.
        limit: keep so many choices of a part and so many partial sums at most, evenly spread; the front is
            then no longer exact.

    Returns:
        rows: (P, N), the row taken from each table; sums: (P, K), in lexicographic order.

    Raises:
        HwnasError: too many partial sums; with two values (K = 2) there never are.
    """
    rows, sums = np.zeros((1, 0), dtype=np.int32), np.zeros((1, tables[0].shape[1]))
    for table in tables:
        own = non_dominated(table)
        if limit is not None:
            own = own[evenly(table[own], limit)]
        elif len(sums) * len(own) > MAX_POINTS and table.shape[1] > 2:
            raise HwnasError(
                f"the exact front has too many partial sums: {len(sums):,} times {len(own):,}",
                "take fewer objectives or --strategy nsga2",
            )
        whole = (sums[:, None, :] + table[own][None, :, :]).reshape(-1, table.shape[1])
        kept = non_dominated(whole)
        if limit is not None:
            kept = kept[evenly(whole[kept], limit)]
        rows = np.column_stack([rows[kept // len(own)], own[kept % len(own)]])
        sums = whole[kept]
    return rows, sums


@dataclass(frozen=True)
class Fitted:
    """What each choice adds to a network's value.

    Attributes:
        tables: (M_n,) of each part; the sum of the chosen rows is a network's value.
        spread: standard deviation of what the measured networks changed in the choices that they held.
        seen: (M_n,) of each part: in how many measured networks a choice stood.
    """

    tables: list[np.ndarray]
    spread: float
    seen: list[np.ndarray]


def fit_tables(
    prior: Sequence[np.ndarray], rows: np.ndarray, values: np.ndarray, penalty: float = PENALTY
) -> Fitted:
    """Correct the values of choices by those of whole networks.

    A network's value is modelled as offset + scale · Σ prior + Σ correction. Offset and scale are least
    squares (blocks timed alone overestimate the whole by a fifth or so, all alike); the corrections are
    what ridge regression makes of the rest, so a choice that was hardly seen stays near its prior.

    Args:
        prior: (M_n,) of each part: what each choice costs on its own; zeros where nothing is known.
        rows: (S, N), the choices of the measured networks.
        values: (S,), their measured values.
        penalty: of the ridge regression: so many observations weigh as much as the prior.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import Ridge

    sums = sum_of(prior, rows)
    scale, offset = 1.0, float(np.mean(values - sums))
    if len(values) > 2 and np.ptp(sums) > 0:
        slope, intercept = np.polyfit(sums, values, 1)
        if slope > 0:
            scale, offset = float(slope), float(intercept)
    starts = np.concatenate([[0], np.cumsum([len(table) for table in prior])])
    columns = (rows + starts[:-1]).ravel()
    held = csr_matrix(
        (np.ones(columns.size), columns, np.arange(0, columns.size + 1, rows.shape[1])),
        shape=(len(values), starts[-1]),
    )
    ridge = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-6)
    ridge.fit(held, values - offset - scale * sums)
    seen = np.bincount(columns, minlength=starts[-1])
    shift = (offset + float(ridge.intercept_)) / len(prior)
    corrections = np.split(ridge.coef_, starts[1:-1])
    return Fitted(
        [scale * table + shift + extra for table, extra in zip(prior, corrections, strict=True)],
        float(np.std(ridge.coef_[seen > 0])),
        np.split(seen, starts[1:-1]),
    )


def sum_of(tables: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The sum over parts of each network's choices. tables: (M_n,) or (M_n, K) each; rows: (S, N)."""
    return np.asarray(sum(table[rows[:, n]] for n, table in enumerate(tables)))


def evenly(sums: np.ndarray, amount: int) -> np.ndarray:
    """Positions of at most `amount` rows of a front, evenly spaced along it. sums: (P, K), in order."""
    if len(sums) <= amount:
        return np.arange(len(sums))
    span = np.ptp(sums, axis=0)
    steps = np.linalg.norm(np.diff(sums / np.where(span > 0, span, 1.0), axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    return np.unique(np.searchsorted(along, np.linspace(0, along[-1], amount)).clip(max=len(sums) - 1))
