"""From the name of a data set to its images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.nn import functional

from hwnas.compress.data.coco import instance_files, load_coco
from hwnas.compress.data.dataset import Data, Images, split_images
from hwnas.compress.data.download import downloads, fetch
from hwnas.compress.data.images import CUT, Fit, Mode
from hwnas.compress.data.own import call_for_data
from hwnas.compress.data.pairs import load_pairs, pair_folders
from hwnas.compress.data.sets import SETS
from hwnas.compress.data.sources import FolderSource, Source, printable
from hwnas.compress.data.store import decoded
from hwnas.compress.data.stored import PREFIX, load_stored
from hwnas.errors import InputError
from hwnas.progress import Progress
from hwnas.spelling import did_you_mean

DEBIAN = Path("/usr/share/datasets")


def load_data(
    name: str,
    image_size: int = 0,
    model_size: Callable[[], int] | None = None,
    progress: Progress | None = None,
    *,
    channels: int = 3,
    enlarges: int = 1,
    fit: Fit = CUT,
) -> Data:
    """Load a data set: `digits`, a named one, `folder:PATH`, or one's own by `module:function`.

    Args:
        image_size: side of the images in pixels; 0 takes the data's own, for a folder the model's.
        model_size: tells the model's, where a folder needs it.
        progress: hears of downloads and decoding.
        channels: that the network takes: 1 reads image files as grey.
        enlarges: how often the side of an image is that of what the network is given of it.
        fit: how an image file of another size becomes a square.

    Raises:
        InputError: unknown, not found, not readable, or no data set.
    """
    progress = progress or Progress()
    if name.startswith(PREFIX):
        return load_stored(name)
    if name.startswith("folder:"):
        if printable(name) != name:
            raise InputError(
                f"{printable(name)} is no UTF-8, which a run directory cannot keep",
                "reach the folder by a link with another name: ln -s FOLDER LINK",
            )
        if name == "folder:":
            raise InputError("folder: names no folder", "name it: --data folder:PATH")
        folder = Path(name.removeprefix("folder:")).expanduser()
        source: Source = FolderSource(folder)
        size = image_size or (model_size() * enlarges if model_size else 0)
        if not size:
            raise InputError(f"nobody says how large the images of {name} shall be", "give --image-size N")
        if size % enlarges:
            raise InputError(
                f"images of {size} pixels cannot be {enlarges} times as large as what the network is given",
                f"give a multiple: --image-size {size // enlarges * enlarges or enlarges}",
            )
        mode: Mode = "L" if channels == 1 else "RGB"
        if files := instance_files(folder):
            return load_coco(name, folder, files, size, mode, progress)
        if places := pair_folders(folder):
            return load_pairs(name, places, size, mode, enlarges, progress)
        return _load(name, source, size, mode, channels, progress, fit)
    if ":" in name:
        data = call_for_data(name)
        if image_size not in (0, *data.image_shape[1:]):
            raise InputError(
                f"{name} makes images of {data.image_shape[2]} × {data.image_shape[1]} pixels",
                "leave --image-size out, or let the function make others",
            )
        return data
    if name == "digits":
        if image_size not in (0, 32):
            raise InputError("digits are 32 pixels large", "leave --image-size out, or take other data")
        return _digits()
    if name in SETS:
        known = SETS[name]
        mode = "L" if channels == 1 else known.mode
        return _load(name, _find(name, progress), image_size or known.size, mode, channels, progress, fit)
    hint = did_you_mean(name, ["digits", *SETS], 3)
    prefixed = f"did you mean folder:{name}? " if Path(name).is_dir() else ""
    raise InputError(
        f"unknown data {name!r}",
        f"{hint or prefixed}known data: digits, {', '.join(SETS)}, folder:PATH, module:function",
    )


def _load(
    name: str, source: Source, size: int, mode: Mode, channels: int, progress: Progress, fit: Fit
) -> Data:
    index, array = decoded(source, size, mode, progress, fit)
    channels = 1 if channels == 1 else 3  # grey images are read by three channels as well
    pixels = torch.from_numpy(array).expand(-1, channels, -1, -1)
    labels = None if index.labels is None else torch.tensor(index.labels)
    first, second = index.parts[0], index.parts[0] + index.parts[1]
    train, val, test = (
        Images(pixels=pixels[part], labels=None if labels is None else labels[part])
        for part in (slice(first), slice(first, second), slice(second, None))
    )
    names, imagenet = _class_names(index.classes, source.titles)
    classes = f"{len(names)} classes" if names else "no labels"
    progress.say(
        f"{name}: {len(train):,} images to train on, {len(val):,} to choose by, {len(test):,} to test, "
        f"{classes}, {size} × {size} pixels"
    )
    for alike in _alike(index.classes):
        progress.say(f"{' and '.join(alike)} are {len(alike)} classes: their names differ in capitals only")
    repeated = channels // len(index.mean)
    return Data(
        name=name,
        class_names=names,
        train=train,
        val=val,
        test=test,
        mean=index.mean * repeated,
        std=index.std * repeated,
        shift_px=size // 8,
        flip=True,
        imagenet=imagenet,
        is_measured=True,
        digest=index.digest,
    )


def _alike(classes: tuple[str, ...]) -> list[list[str]]:
    """Classes whose names differ in capitals only: meant by nobody, or letters to be read."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _class_names(
    folders: tuple[str, ...], titles: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names for people; and indices among ImageNet's classes, where all folders are WordNet ids of it."""
    if folders and all(folder[:1] == "n" and folder[1:].isdigit() for folder in folders):
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        indices = {wordnet_id: number for number, wordnet_id in enumerate(info.label_names())}
        if all(folder in indices for folder in folders):
            numbers = tuple(indices[folder] for folder in folders)
            return tuple(info.index_to_description(number).split(",")[0] for number in numbers), numbers
    return tuple(titles.get(folder, folder) for folder in folders), ()


def _find(name: str, progress: Progress) -> Source:
    """The named data in `HWNAS_DATA_DIR`, in Debian's place, in the cache, or downloaded."""
    known = SETS[name]
    places = [DEBIAN, downloads()]
    if given := os.environ.get("HWNAS_DATA_DIR"):
        places.insert(0, Path(given))
        if not places[0].is_dir():
            raise InputError(f"HWNAS_DATA_DIR is {given}, which is no folder", "correct or unset it")
    for place in places:
        if (source := known.find(place)) is not None:
            return source
    for file in known.files:
        fetch(file, progress)
    source = known.find(downloads())
    assert source is not None
    return source


def _digits() -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 × 8 and 17 grey levels, enlarged to 32 × 32 RGB."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float().div_(16.0)[:, None]
    large = functional.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    pixels = large.mul_(255.0).round_().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(bunch.target).long()
    train, val, test = split_images(pixels, labels, val_share=0.1, test_share=0.2)
    return Data(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=train,
        val=val,
        test=test,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        shift_px=4,
        flip=False,
        is_measured=True,
    )
