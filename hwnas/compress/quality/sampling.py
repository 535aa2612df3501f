"""Random architectures whose scores reach all of the range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hwnas.compress.library.stitch import Choices


def sample_networks(scores: Sequence[Mapping[int, float]], amount: int, seed: int) -> list[Choices]:
    """FinetunedNetworks spread uniformly over the range of a score that adds up over parts (DONNA 3.2.2).

    The first two are the ends of the range, so that no metric of the space is beyond what a predictor is
    fitted to. The others follow a low-discrepancy sequence, so a shorter sample is the beginning of a
    longer one.

    Args:
        scores: of each part, by choice: the DNA score.
        amount: how many; fewer where there are no more.
    """
    from scipy.stats import qmc

    choices = [np.array(list(of_part)) for of_part in scores]
    values = [np.array(list(of_part.values())) for of_part in scores]
    total = int(np.prod([float(len(of_part)) for of_part in choices], dtype=float).clip(max=2**53))
    ends = [tuple(int(c[v.argmin()]) for c, v in zip(choices, values, strict=True))]
    ends.append(tuple(int(c[v.argmax()]) for c, v in zip(choices, values, strict=True)))
    found = list(dict.fromkeys(ends))
    generator = np.random.default_rng(seed)
    drawn, reached = _tilted(values, generator)
    targets = _without_gaps(reached, qmc.Halton(1, rng=seed).random(4 * amount + 16)[:, 0])
    left = np.ones(len(drawn), dtype=bool)
    for target in targets:
        if len(found) >= min(amount, total) or not left.any():
            break
        nearest = int(np.where(left, np.abs(reached - target), np.inf).argmin())
        left[nearest] = False
        network = tuple(int(c[i]) for c, i in zip(choices, drawn[nearest], strict=True))
        if network not in found:
            found.append(network)
    return found[:amount]


def _without_gaps(reached: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The scores at some shares of the range; stretches that no architecture reaches count as a hundredth."""
    ordered = np.unique(reached)
    steps = np.minimum(np.diff(ordered), np.ptp(ordered) / 100)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(np.interp(shares * along[-1], along, ordered))


def _tilted(values: Sequence[np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random architectures whose scores reach all of the range, as rows, and their scores.

    Uniform ones crowd in the middle. Here an architecture draws how strongly it prefers high or low scores.
    """
    tilts = np.concatenate([generator.normal(0, 6, 8_000), np.zeros(2_000)])
    rows = []
    for value in values:
        span = np.ptp(value) or 1.0
        weight = np.exp(np.outer(tilts, (value - value.mean()) / span))
        cumulated = np.cumsum(weight / weight.sum(1, keepdims=True), axis=1)
        drawn = (generator.random((len(tilts), 1)) > cumulated).sum(1)
        rows.append(drawn.clip(max=len(value) - 1))
    drawn_rows = np.unique(np.column_stack(rows), axis=0)
    shuffled = generator.permutation(drawn_rows)
    return shuffled, np.asarray(sum(value[shuffled[:, n]] for n, value in enumerate(values)))
