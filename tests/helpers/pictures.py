"""Folders of small images for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def squares(folder: Path, count: int) -> None:
    """A folder in COCO's format of red and blue squares."""
    from workplace.spotter import targets_of

    pixels, boxes = targets_of(count, 0)
    (folder / "images").mkdir(parents=True)
    annotations: list[dict[str, Any]] = []
    for number, (image, found) in enumerate(zip(pixels, boxes, strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "images" / f"{number:04}.png")
        for left, top, right, bottom, kind in found[found[:, 4] >= 0].tolist():
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": number, "category_id": int(kind) + 1, "bbox": box})
    images = [
        {"id": number, "file_name": f"{number:04}.png", "width": 64, "height": 64} for number in range(count)
    ]
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
