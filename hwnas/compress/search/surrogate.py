"""The additive surrogate of a search: tables of costs, fitted to what was measured (Thompson sampling)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.compress.library.stitch import Choices
from hwnas.compress.search.additive import evenly, exact_front, fit_tables
from hwnas.compress.search.points import Evaluator

PARTIAL = 150
"""Partial sums that proposals keep where there are more than two objectives."""
UNSEEN = 1e6
"""Stands for the value of a choice with which no network ever ran."""
AdditiveTables = list[np.ndarray]
"""(M_n, K) of each part: what each of its choices adds to the loss and each cost."""


class Surrogate:
    """What the networks so far say about each choice, under the assumption that loss and costs add up.

    Args:
        choices: what may stand in each part. A row is the position of a choice in its part's list.
        initial: tables, as for `search`; None starts from nothing.
    """

    def __init__(
        self,
        choices: Sequence[Sequence[int]],
        evaluate: Evaluator,
        initial: AdditiveTables | None,
        objectives: int,
    ) -> None:
        self.evaluate = evaluate
        self.choices = choices
        self.positions = [{choice: i for i, choice in enumerate(of_part)} for of_part in choices]
        self.initial = initial or [np.zeros((len(of_part), 1 + objectives)) for of_part in choices]

    def architecture(self, row: Sequence[int]) -> Choices:
        """The choices at some positions."""
        return tuple(of_part[int(i)] for of_part, i in zip(self.choices, row, strict=True))

    def row(self, architecture: Choices) -> list[int]:
        """The positions of some choices."""
        return [known[choice] for known, choice in zip(self.positions, architecture, strict=True)]

    def fit(self) -> FittedSurrogate:
        """Fit what is known now."""
        points = [point for point in self.evaluate.points if point.costs is not None]
        rows = np.array([self.row(point.choices) for point in points], dtype=int)
        if not points:
            none = [np.zeros(len(table)) for table in self.initial]
            return FittedSurrogate(self.initial, np.zeros(self.initial[0].shape[1]), none)
        values = np.array([[point.loss, *(point.costs or ())] for point in points])
        fits = []
        for k, column in enumerate(values.T):
            initial = [table[:, k] for table in self.initial]
            known = any(table.any() for table in initial)
            fits.append(fit_tables(initial, rows, column if known else _fenced(column)))
        tables = [np.column_stack(columns) for columns in zip(*(fit.tables for fit in fits), strict=True)]
        for part, barred in enumerate(self._never_ran(fits[0].seen)):
            tables[part][barred] = UNSEEN
        return FittedSurrogate(tables, np.array([fit.spread for fit in fits]), fits[0].seen)

    def propose(self, tables: AdditiveTables, amount: int, *, exact: bool = False) -> list[Choices]:
        """New architectures of the exact front under some tables, evenly spaced along it.

        Args:
            exact: all partial sums are kept even where there are more than two objectives.

        Raises:
            HwnasError: there are too many of them.
        """
        limit = None if exact or tables[0].shape[1] == 2 else PARTIAL
        rows, sums = exact_front(tables, limit)
        fresh = [i for i, row in enumerate(rows) if self.architecture(row) not in self.evaluate.seen]
        return [self.architecture(rows[fresh[i]]) for i in evenly(sums[fresh], amount)]

    def _never_ran(self, seen: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Which choices stood in failed networks, twice at least, and in no other."""
        failed = [self.row(point.choices) for point in self.evaluate.points if point.costs is None]
        found = []
        for part, ran in enumerate(seen):
            count = np.bincount([row[part] for row in failed], minlength=len(ran))
            found.append((count > 1) & (ran == 0))
        return found


def _fenced(values: np.ndarray) -> np.ndarray:
    """Values with the far ones on top drawn in (Tukey's outer fence).

    One choice that is beyond all measure, such as a candidate that was hardly trained, would otherwise decide
    the fit of every other one.
    """
    low, high = np.percentile(values, [25, 75])
    return np.asarray(np.minimum(values, high + 3 * (high - low)))


@dataclass(frozen=True)
class FittedSurrogate:
    """What each choice adds to loss and costs, and how sure that is.

    Attributes:
        spread: (K,) of the corrections to the initial tables.
        seen: in how many networks each choice stood.
    """

    tables: AdditiveTables
    spread: np.ndarray
    seen: Sequence[np.ndarray]

    def sample(self, random_state: Any) -> AdditiveTables:
        """One guess at the truth (Thompson sampling): the less a choice was seen, the wider."""
        return [
            table + random_state.normal(size=table.shape) * self.spread / np.sqrt(1.0 + seen)[:, None]
            for table, seen in zip(self.tables, self.seen, strict=True)
        ]
