"""What a run directory says of its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.measurement import Interval
from hwnas.networks.architecture import Candidate
from hwnas.networks.partition import Shared, counted_again
from hwnas.ranges import Count


@dataclass(frozen=True, kw_only=True)
class ReferenceRecord:
    """`reference.json`, as far as the report needs it.

    Attributes:
        macs, params: of each part.
        shared: weights that several parts hold, in the params of each of them.
    """

    accuracy: Interval | None
    trained_epochs: Count
    parts: tuple[str, ...]
    macs: tuple[Count, ...]
    params: tuple[Count, ...]
    shared: tuple[Shared, ...] = ()

    def counts(self, candidates: Sequence[Candidate | None]) -> tuple[int, int]:
        """MACs and parameters of an architecture.

        Args:
            candidates: chosen for each part; None is the reference's own.
        """
        macs = [c.macs if c else own for c, own in zip(candidates, self.macs, strict=True)]
        params = [c.params if c else own for c, own in zip(candidates, self.params, strict=True)]
        choices = [c.choice if c else 0 for c in candidates]
        return sum(macs), sum(params) - counted_again(self.shared, choices)
