"""What a run has spent, step by step: seconds, images, epochs, and the arithmetic of training."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.locks import locked
from hwnas.measurement import STRICT
from hwnas.ranges import Count, Operations, Ratio, Seconds

SCHEMA = "hwnas.account/1"

Step = Literal[
    "reference training",
    "distillation",
    "predictor networks",
    "block costs",
    "search",
    "finetuning",
    "report measurements",
]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The sum over one step.

    Attributes:
        device: for which the step was done; None where it serves all devices.
        seconds: wall-clock time.
        images: passes of an image through a network that learns from it.
        epochs: images / size of the training part, summed over all networks (the papers' unit of cost).
        training_flops: 3 × 2 × MACs × images; the teacher's forward passes are not in it.
    """

    __pydantic_config__ = STRICT
    step: Step
    device: str | None
    seconds: Seconds
    images: Count
    epochs: Ratio
    training_flops: Operations


class CostLog:
    """`account.json` of a run directory. It goes on over kills and resumes, and several processes may record.

    Work is recorded when it is on disk, so work that a kill destroyed is not in the log, and neither is its
    time.

    Raises:
        RunDirectoryError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        read_costs(path)
        self._since_s = time.perf_counter()

    def record(
        self, step: Step, device: str | None = None, *, images: int = 0, of: int = 1, macs: int = 0
    ) -> None:
        """Record the time since the last entry, or since the log was opened, as spent on a step.

        Args:
            images: that a network was trained on,
            of: the size of the training part,
            macs: of the network, for one image.
        """
        now_s = time.perf_counter()
        nothing = Cost(step=step, device=device, seconds=0.0, images=0, epochs=0.0, training_flops=0)
        with locked(self.path.parent):  # searches of several devices record side by side
            spent = {(entry.step, entry.device): entry for entry in read_costs(self.path)}
            before = spent.get((step, device), nothing)
            spent[step, device] = replace(
                before,
                seconds=before.seconds + now_s - self._since_s,
                images=before.images + images,
                epochs=before.epochs + images / of,
                training_flops=before.training_flops + 3 * 2 * macs * images,
            )
            entries = sorted(spent.values(), key=lambda e: (STEPS.index(e.step), e.device or ""))
            write_signed(self.path, {"schema": SCHEMA, "spent": [encode(entry) for entry in entries]})
        self._since_s = now_s


def read_costs(path: Path) -> list[Cost]:
    """What `account.json` says; nothing where there is none. Raises RunDirectoryError where it is damaged."""
    if not path.exists():
        return []
    try:
        plain = read_signed(path, SCHEMA)
        return decode(list[Cost], plain.get("spent"), f"{path}: spent")
    except InputError as error:
        raise RunDirectoryError(
            error.cause, f"restore {path}, or remove it: only what the run has spent so far is forgotten"
        ) from None
