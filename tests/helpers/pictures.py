"""Folders of small images for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hwnas.compress.data import Data, load_data
from hwnas.progress import Progress


class Heard(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        assert 0 <= done <= total
        self.steps.append(step)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Path:
    """Write noise as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(folder: Path, *groups: str, count: int = 4) -> Path:
    """Write some images into each of the named folders below `folder`."""
    for number, group in enumerate(groups):
        for index in range(count):
            picture(folder / group / f"{index}.png", seed=number * 1000 + index)
    return folder


def load(folder: Path, size: int = 32, progress: Progress | None = None) -> Data:
    """Load a folder as `--data folder:PATH` does."""
    return load_data(f"folder:{folder}", size, progress=progress)
