"""Fronts of figures that are all to be lowered, and what they dominate."""

from __future__ import annotations

import numpy as np

CHUNK = 256


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Which rows of (N, K) no other one beats, in lexicographic order; one of those that are equal."""
    order = np.lexsort(values.T[::-1])
    ordered = values[order]
    if values.shape[1] == 2:
        lowest = np.minimum.accumulate(ordered[:, 1])
        keep = np.ones(len(order), dtype=bool)
        keep[1:] = ordered[1:, 1] < lowest[:-1]
        return np.asarray(order[keep])
    # In this order a row can only be dominated by one before it.
    found = np.zeros((0, values.shape[1]))
    kept: list[int] = []
    for start in range(0, len(order), CHUNK):
        chunk = ordered[start : start + CHUNK]
        beaten = np.asarray((found[None] <= chunk[:, None]).all(2)).any(axis=1)
        within = np.asarray((chunk[None] <= chunk[:, None]).all(2))
        beaten |= np.tril(within, -1).any(axis=1)
        kept += [start + int(i) for i in np.flatnonzero(~beaten)]
        found = ordered[kept]
    return np.asarray(order[kept], dtype=int)


def hypervolume(values: np.ndarray, corner: np.ndarray) -> float:
    """What the rows of (N, K) dominate up to a corner (K,)."""
    from pymoo.indicators.hv import HV

    return float(HV(ref_point=corner)(values[non_dominated(values)]))


def corner_beyond(values: np.ndarray) -> np.ndarray:
    """A twentieth of the range beyond the worst of the rows of (N, K), so that each of them counts."""
    span = np.ptp(values, axis=0)
    return np.asarray(values.max(0) + 0.05 * np.where(span > 0, span, 1.0))
