"""A schedule's stacks, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Choice:
    """One stack of a schedule.

    Attributes:
        start, end: its first and last layer.
        input_on_chip, output_on_chip: whether the map before, after it stays on chip.
        tile: (rows, columns) of the output of its last layer that makes a map.
        mode: an overlap mode, as forced.MODE_NAMES names it.
    """

    start: int
    end: int
    input_on_chip: bool
    output_on_chip: bool
    tile: tuple[int, int]
    mode: str


@dataclass(frozen=True)
class Detail:
    """What one stack costs, layer by layer.

    Attributes:
        rows: (1 + layers, COSTS): what bringing its sources in costs, then every layer.
        total: their sum.
        live_bits, cache_bits: most bits of maps and of overlap caches that one tile holds.
    """

    rows: NDArray[np.float64]
    total: NDArray[np.float64]
    live_bits: int
    cache_bits: int
