"""A quality model that counts the parts that are replaced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.stitch import Choices


class Replaced:
    """Its loss is the number of parts that are not the reference's own."""

    metric = "nsr"

    def loss(self, choices: Choices) -> float:
        return float(sum(choice != 0 for choice in choices))

    def predicted(self, choices: Choices) -> tuple[float, bool] | None:
        return None

    def part_losses(self, choices: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [np.array([float(choice != 0) for choice in of_part]) for of_part in choices]


def by_depth(device: DeviceRun) -> Replaced:
    """Make the quality model of a search."""
    return Replaced()
