"""A finished tiny run, of which tests spoil copies, and the command that goes on with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tiny

from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.progress import Progress

LIBRARY = LibrarySettings(
    model=tiny.MODEL,
    weights="none",
    data="digits",
    cuts=(),
    space="compression",
    per_block=3,
    loss="nsr",
    train_epochs=2,
    epochs=1,
    steps=4,
    batch_size=256,
    slice_size=2,
    seed=0,
    threads=1,
)
SEARCH = SearchSettings(
    device=tiny.DEVICE,
    objectives=("latency",),
    filter="device",
    filter_threshold=0.1,
    protocol="quick",
    population=6,
    generations=3,
    finetune_epochs=2,
    picks=("knee",),
)


class Said(Progress):
    """What a run told, and how often each step advanced."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.said: list[str] = []

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        self.steps.append(step)

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass
class Place:
    """A furnished folder, with the run `whole` that nothing happened to."""

    folder: Path
    whole: Path
    result: dict[str, Any]


def go_on(out: Path, said: Said | None = None, library: LibrarySettings = LIBRARY, **changed: Any) -> Any:
    """The command that made the finished run, in this process."""
    return tiny.run_job(library, replace(SEARCH, **changed), out, "hwnas compress …", said or Said())
