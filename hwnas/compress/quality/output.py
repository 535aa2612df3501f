"""The quality model `output`: how far the whole network's output moves where one choice alone stands in it.

Block losses weigh all parts alike, and parts differ by ten times and more in what the output feels of them.
Here the reference is asked, on images that nothing was trained on and without labels, once for each choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.stitch import Choices
from hwnas.compress.library.store import Entry
from hwnas.compress.quality.kinds import QualityKind, QualityModel
from hwnas.compress.quality.model import part_losses
from hwnas.compress.training import loop
from hwnas.errors import InputError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import STRICT
from hwnas.ranges import Figure

SCHEMA = "hwnas.output-rises/1"
FILE = "output.json"
KEPT_EACH = 16
"""After so many choices what is known is written."""
WORST = 1e6
"""Stands for an output that is no number."""


class OutputQuality:
    """Σ of the rises of the chosen parts.

    Args:
        rises: of the loss of distillation on `val`, by part and choice; the reference's own have none.
        metric: of the blocks, for the filter.
    """

    def __init__(self, rises: Mapping[tuple[int, int], float], metric: str) -> None:
        self.rises = rises
        self.metric = metric

    def loss(self, choices: Choices) -> float:
        """What a search lowers beside the costs."""
        return sum(self._rise(part, choice) for part, choice in enumerate(choices))

    def predicted(self, choices: Choices) -> tuple[float, bool] | None:
        """Return None: nothing is said of the accuracy."""
        return None

    def part_losses(self, choices: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """What each choice adds to the loss: (M_n,) of each part."""
        return part_losses(self.rises, choices, None)

    def _rise(self, part: int, choice: int) -> float:
        return self.rises[part, choice] if choice else 0.0


@dataclass(frozen=True, kw_only=True)
class _Known:
    """Rises by the hash of the weights that stood in the reference."""

    __pydantic_config__ = STRICT
    rises: dict[str, Figure] = field(default_factory=dict)


def _of_outputs(device: DeviceRun) -> QualityModel:
    """Ask the reference once for each choice of the library; what is known is kept beside it."""
    run, stitcher = device.run, device.stitcher
    reference, file = run.reference, run.directory.library / FILE
    teacher, data, task = reference.module(), reference.data, reference.task
    known = _read(file)
    missing = [entry for entry in stitcher.entries.values() if _key(entry) not in known]
    own = loop.distance_on_val(teacher, teacher, data, task) if missing else 0.0
    for done, entry in enumerate(missing, 1):
        part, choice = entry.candidate.part, entry.candidate.choice
        alone = tuple(choice if n == part else 0 for n in range(len(reference.parts.modules)))
        rise = loop.distance_on_val(stitcher.module(alone), teacher, data, task) - own
        known[_key(entry)] = min(rise, WORST) if math.isfinite(rise) else WORST
        remark = f"{entry.candidate.name} {rise:.3g}"
        run.progress.advance("output of each choice", done, len(missing), remark)
        if done % KEPT_EACH == 0 or done == len(missing):
            write_signed(file, {"schema": SCHEMA, **encode(_Known(rises=known))})
    rises = {key: known[_key(entry)] for key, entry in stitcher.entries.items()}
    return OutputQuality(rises, run.settings.loss)


def _read(file: Path) -> dict[str, float]:
    """What is known; nothing where the file is missing or damaged."""
    try:
        return decode(_Known, read_signed(file, SCHEMA), file).rises
    except InputError:
        return {}


def _key(entry: Entry) -> str:
    return f"{entry.candidate.part} {entry.weights_sha256}"


by_output = QualityKind(
    make=_of_outputs,
    prepares=True,
    axis="output loss: Σ of rises by single choices",
    sentence="The loss is Σ over the parts of how much the loss of distillation on val rises where the "
    "chosen block alone stands in the reference; 0 is the reference.",
)
