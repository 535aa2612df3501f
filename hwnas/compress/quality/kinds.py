"""What a quality model is, and what is known of one before it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.stitch import Choices
from hwnas.errors import HwnasError
from hwnas.plugins import Registry


class QualityModel(Protocol):
    """Stands for the accuracy of the networks of one run. What it gives is to be lowered.

    Attributes:
        metric: of the blocks, by which the filter compares them: `nsr`, `mse` or `relative_l1`.
    """

    metric: str

    def loss(self, choices: Choices) -> float:
        """Return what a search lowers beside the costs."""

    def predicted(self, choices: Choices) -> tuple[float, bool] | None:
        """Return the predicted accuracy, as a share, and whether it extrapolates; None without one."""

    def part_losses(self, choices: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return what each choice adds to the loss, (M_n,) of each part, up to a constant."""


@dataclass(frozen=True, kw_only=True)
class QualityKind:
    """A quality model that tells of itself before it is made.

    Attributes:
        make: makes it for a search.
        axis: what its loss is called.
        sentence: what its loss is; `{block_loss}` stands for the loss of the library's blocks.
        expects_share: its networks have to be judged by a share of right answers.
        prepares: making it trains or asks networks of the run, which of searches side by side only one has to
            do.
    """

    make: Callable[[DeviceRun], QualityModel]
    axis: str
    sentence: str
    expects_share: bool = False
    prepares: bool = False

    def __call__(self, device: DeviceRun) -> QualityModel:
        """Make the model of a search."""
        return self.make(device)


QUALITY_MODELS = Registry("hwnas.quality_models", "quality model", "give one of them: --quality loss")
"""Each is a `QualityKind`, or a function of the `DeviceRun` of a search that returns a `QualityModel`."""


def quality_kind(name: str) -> QualityKind:
    """Find a quality model by its name. Raises InputError: there is none, or it cannot be imported."""
    found = QUALITY_MODELS.load(name)
    return found if isinstance(found, QualityKind) else _plain(name, found)


def described_quality(name: str) -> QualityKind:
    """The same for a report, whose reader may not have the package that the search had."""
    try:
        return quality_kind(name)
    except HwnasError:

        def make(device: DeviceRun) -> QualityModel:
            return quality_kind(name)(device)

        return _plain(name, make)


def _plain(name: str, make: Callable[[DeviceRun], QualityModel]) -> QualityKind:
    sentence = f"The loss is what the quality model {name} makes of a network."
    return QualityKind(make=make, axis=f"loss by {name}", sentence=sentence)
