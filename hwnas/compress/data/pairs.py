"""Pairs of images: what a network is given in `input/`, what it shall give in `target/`, by equal names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hwnas.compress.data.dataset import Data
from hwnas.compress.data.images import CROP, Fit, Mode
from hwnas.compress.data.listed import ListedSource, data_of, flat
from hwnas.compress.data.sources import FolderSource, printable
from hwnas.compress.data.splits import PARTS
from hwnas.compress.data.store import decoded
from hwnas.errors import InputError
from hwnas.files import sha256_of_plain
from hwnas.progress import Progress

INPUT, TARGET = "input", "target"


def pair_folders(folder: Path) -> dict[str, Path]:
    """The folders that hold `input/` and `target/`, by part; one, by an empty name, without parts.

    Raises:
        InputError: the folder itself and its parts hold them.
    """
    places = {PARTS[path.name.lower()]: path for path in _folders(folder) if path.name.lower() in PARTS}
    found = {
        part: place
        for part, place in ({"": folder} | places).items()
        if (place / INPUT).is_dir() and (place / TARGET).is_dir()
    }
    if "" in found and len(found) > 1:
        raise InputError(
            f"{printable(str(folder))} holds {INPUT}/ and {TARGET}/, and parts that hold them as well",
            "move them into train/, val/ and test/",
        )
    return found


def load_pairs(
    name: str,
    places: Mapping[str, Path],
    size: int,
    mode: Mode,
    enlarges: int,
    progress: Progress,
) -> Data:
    """Load pairs of images: the targets are uint8 (N, C, size, size).

    Squares are cut out of the middle of both, at the same place: nothing is scaled.

    Args:
        size: side of the targets in pixels.
        enlarges: how often it is that of the inputs.

    Raises:
        InputError: an image without its partner, of other proportions, too small, or not to be read.
    """
    inputs: dict[str, Path] = {}
    targets: dict[str, Path] = {}
    for part, place in places.items():
        found, wanted = (_by_stem(place / which) for which in (INPUT, TARGET))
        alone = sorted(found.keys() ^ wanted.keys())
        if alone:
            has = INPUT if alone[0] in found else TARGET
            raise InputError(
                f"{printable(str(place))}: {printable(alone[0])} is in {has}/ alone, and so are "
                f"{len(alone) - 1} others",
                "give each image of input/ one in target/, by the same name",
            )
        for stem, path in found.items():
            key = f"{part}/{flat(stem)}".lstrip("/")
            inputs[key], targets[key] = path, wanted[stem]
    _check_sizes(inputs, targets, enlarges)
    given = ListedSource(f"{name}: {INPUT}/", inputs)
    index, pixels = decoded(given, size // enlarges, mode, progress, CROP)
    wished = ListedSource(f"{name}: {TARGET}/", targets)
    of_targets, images = decoded(wished, size, mode, progress, Fit("crop", enlarges))
    progress.say(
        f"{name}: {index.parts[0]:,} pairs to train on, {index.parts[1]:,} to choose by, {index.parts[2]:,} "
        f"to test, inputs of {size // enlarges} × {size // enlarges} pixels, targets of {size} × {size}"
    )
    digest = sha256_of_plain([index.digest, of_targets.digest])
    return data_of(name, index, torch.from_numpy(pixels), torch.from_numpy(images), digest)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _by_stem(folder: Path) -> dict[str, Path]:
    """Image files by their paths without endings. Raises InputError: two have the same."""
    source = FolderSource(folder)
    found: dict[str, Path] = {}
    for name in source.names:
        stem = name.rpartition(".")[0]
        if stem in found:
            raise InputError(
                f"{source.text} holds {printable(found[stem].name)} and {printable(name)}: which is meant?",
                "give each image a name of its own",
            )
        found[stem] = folder / name
    return found


def _check_sizes(inputs: Mapping[str, Path], targets: Mapping[str, Path], enlarges: int) -> None:
    """Refuse pairs whose sizes do not have the task's ratio. Raises InputError."""
    from PIL import Image, ImageOps

    for key, path in inputs.items():
        try:
            with Image.open(path) as image, Image.open(targets[key]) as target:
                small, large = (ImageOps.exif_transpose(each).size for each in (image, target))
        except Exception:  # noqa: S112  # told where it is decoded
            continue
        if large != (small[0] * enlarges, small[1] * enlarges):
            raise InputError(
                f"{printable(str(path))} has {small[0]} × {small[1]} pixels, its target {large[0]} × "
                f"{large[1]}, not {enlarges} times as many a side",
                "name the task by the scale of the pairs: --task super-resolution:N; denoising has 1",
            )
