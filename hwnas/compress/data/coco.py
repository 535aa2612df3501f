"""Detection data in COCO's format: a folder of images, and a JSON file of boxes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch
from pydantic import ConfigDict
from torch import Tensor

from hwnas.compress.data.dataset import Data
from hwnas.compress.data.images import Fit, Mode
from hwnas.compress.data.listed import ListedSource, data_of, flat
from hwnas.compress.data.sources import printable
from hwnas.compress.data.splits import PARTS, arrange
from hwnas.compress.data.store import decoded
from hwnas.errors import InputError
from hwnas.files import decode, read_json, sha256
from hwnas.progress import Progress
from hwnas.ranges import Count, Figure, Size

FILE = re.compile(r"instances(?:_([a-z]+)[0-9]*)?\.json")
OTHERS_TOO = ConfigDict(extra="ignore")
FILL = -1.0
"""In the place of boxes where an image has fewer than another."""


@dataclass(frozen=True, kw_only=True)
class _Image:
    __pydantic_config__ = OTHERS_TOO
    id: Count
    file_name: str
    width: Size
    height: Size


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    __pydantic_config__ = OTHERS_TOO
    image_id: Count
    category_id: Count
    bbox: tuple[Figure, Figure, Figure, Figure]
    iscrowd: Count = 0


@dataclass(frozen=True, kw_only=True)
class _Category:
    __pydantic_config__ = OTHERS_TOO
    id: Count
    name: str


@dataclass(frozen=True, kw_only=True)
class _Instances:
    """What is read of `instances.json`."""

    __pydantic_config__ = OTHERS_TOO
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]
    categories: tuple[_Category, ...]


def instance_files(folder: Path) -> dict[str, Path]:
    """The COCO files of a folder by part; of a folder without parts one, by an empty name.

    They are `instances.json`, `instances_train.json` (or `instances_train2017.json`) and so on, in the folder
    or its `annotations/`; or `instances.json` in the folders `train`, `val` and `test`.

    Raises:
        InputError: several for one part.
    """
    found: dict[str, Path] = {}
    places = [folder, folder / "annotations", *(folder / part for part in PARTS)]
    for place in (place for place in places if place.is_dir()):
        for path in sorted(place.iterdir()):
            match = FILE.fullmatch(path.name)
            part = PARTS.get(match[1] if match and match[1] else place.name) or ""
            if match is None or (match[1] and not part):
                continue
            if part in found:
                raise InputError(
                    f"{printable(str(folder))} holds two lists of boxes for one part: "
                    f"{found[part].name} and {path.name}",
                    "keep one for each of train, val and test",
                )
            found[part] = path
    return found


def load_coco(
    name: str, folder: Path, files: Mapping[str, Path], size: int, mode: Mode, progress: Progress
) -> Data:
    """Load images with their boxes: (N, K, 5) of left, top, right, bottom in pixels, and class from 0.

    Each image is scaled to `size` by its longer side; what is left over at the right or the bottom is black.
    Rows behind an image's boxes are −1. Crowds are left out, and boxes without an area, which is said.

    Raises:
        InputError: a file cannot be read, or does not hold together; names where.
    """
    if "" in files and len(files) > 1:
        raise InputError(
            f"{printable(str(folder))} holds {files[''].name} beside lists of boxes for its parts",
            "keep it, or those of train, val and test",
        )
    read = {part: _read(path) for part, path in files.items()}
    classes = _classes(files, read)
    images: dict[str, Path] = {}
    sizes: dict[str, tuple[int, int]] = {}
    boxes: dict[str, list[list[float]]] = {}
    dropped = 0
    for part, instances in read.items():
        names = {}
        for image in instances.images:
            names[image.id] = key = f"{part}/{flat(image.file_name)}".lstrip("/")
            if key in images:
                raise InputError(f"{files[part]}: {image.file_name} is listed twice", "list each image once")
            images[key] = _path(files[part], image.file_name)
            sizes[key] = image.width, image.height
            boxes[key] = []
        for number, annotation in enumerate(instances.annotations):
            key = _known(files[part], number, annotation, names, classes)
            box = _box(annotation, sizes[key], size)
            if box is None:
                dropped += 1
            else:
                boxes[key].append([*box, float(classes[annotation.category_id])])
    source = ListedSource(printable(str(folder)), images, sizes)
    index, array = decoded(source, size, mode, progress, Fit("pad"))
    order = _order(source)
    labels = _filled([boxes[source.names[position]] for position in order])
    if dropped:
        progress.say(f"{name}: {dropped:,} boxes without an area or of crowds are left out")
    count = int((labels[..., 4] >= 0).sum())
    progress.say(
        f"{name}: {index.parts[0]:,} images to train on, {index.parts[1]:,} to choose by, {index.parts[2]:,} "
        f"to test, {count:,} boxes of {len(classes)} classes, {size} × {size} pixels"
    )
    digest = sha256(index.digest.encode() + labels.numpy().tobytes())
    data = data_of(name, index, torch.from_numpy(array), labels, digest)
    return replace(data, flip=True, shift_px=size // 8)  # boxes move with their image


def _order(source: ListedSource) -> Sequence[int]:
    arrangement = arrange(source)
    return [*arrangement.train, *arrangement.val, *arrangement.test]


def _read(path: Path) -> _Instances:
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise InputError(
            f"{path} is no COCO file: it holds a {type(plain).__name__}", "give images and boxes"
        )
    missing = [key for key in ("images", "annotations", "categories") if key not in plain]
    if missing:
        raise InputError(
            f"{path} is no COCO file with boxes: it has no {', '.join(missing)}",
            "give the file of instances, with images, annotations and categories",
        )
    instances = decode(_Instances, plain, path)
    for kind, ids in (
        ("images", [image.id for image in instances.images]),
        ("categories", [category.id for category in instances.categories]),
    ):
        if len(set(ids)) < len(ids):
            twice = next(each for each in ids if ids.count(each) > 1)
            raise InputError(f"{path}: two {kind} have the id {twice}", "give each an id of its own")
    if not instances.images or not instances.categories:
        raise InputError(f"{path} lists no {'categories' if instances.images else 'images'}", "fill it")
    return instances


def _classes(files: Mapping[str, Path], read: Mapping[str, _Instances]) -> dict[int, int]:
    """Index of each category, in the order of the ids; all parts must have the same."""
    first = next(iter(read))
    known = {category.id: category.name for category in read[first].categories}
    for part, instances in read.items():
        other = {category.id: category.name for category in instances.categories}
        if other != known:
            apart = sorted({*other.items()} ^ {*known.items()})[0]
            raise InputError(
                f"{files[part]} and {files[first]} have other categories: {apart[0]} is {apart[1]!r} in one "
                "of them",
                "give all parts the same categories",
            )
    return {category: index for index, category in enumerate(sorted(known))}


def _path(file: Path, name: str) -> Path:
    """Where an image lies: beside its file in `images/`, or in a folder with the name of the file's part."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.name:
        raise InputError(
            f"{file}: the image {json.dumps(name)} leads out of the folder", "give the path within images/"
        )
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    part = file.stem.removeprefix("instances").removeprefix("_")
    places = [folder / "images", *([folder / part] if part else []), folder]
    return next((place / name for place in places if (place / name).is_file()), folder / "images" / name)


def _known(
    file: Path,
    number: int,
    annotation: _Annotation,
    names: Mapping[int, str],
    classes: Mapping[int, int],
) -> str:
    """The name of an annotation's image. Raises InputError: its image or category is not listed."""
    if annotation.category_id not in classes:
        raise InputError(
            f"{file}: annotation {number} has the category {annotation.category_id}, which is not listed",
            "list the category, or remove the annotation",
        )
    if annotation.image_id not in names:
        raise InputError(
            f"{file}: annotation {number} is of the image {annotation.image_id}, which is not listed",
            "list the image, or remove the annotation",
        )
    return names[annotation.image_id]


def _box(
    annotation: _Annotation, image_size: tuple[int, int], size: int
) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom within the scaled image; None for a crowd and for a box without an area."""
    left, top, width, height = annotation.bbox
    scale = size / max(image_size)
    left, right = (min(max(x, 0.0), image_size[0]) * scale for x in (left, left + width))
    top, bottom = (min(max(y, 0.0), image_size[1]) * scale for y in (top, top + height))
    return None if annotation.iscrowd or right <= left or bottom <= top else (left, top, right, bottom)


def _filled(boxes: Sequence[Sequence[Sequence[float]]]) -> Tensor:
    """Boxes of each image, (N, K, 5), K of the image with the most."""
    labels = torch.full((len(boxes), max(1, *map(len, boxes)), 5), FILL)
    for row, found in zip(labels, boxes, strict=True):
        if found:
            row[: len(found)] = torch.tensor(found)
    return labels
