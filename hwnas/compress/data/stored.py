"""Data that a program gives as objects, kept in the cache: other processes and later runs find them there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwnas.compress.data.dataset import Data, DataFacts, Images, split_images
from hwnas.compress.data.own import check_data
from hwnas.errors import InputError
from hwnas.files import (
    decode,
    encode,
    hwnas_cache,
    read_bytes,
    read_signed,
    sha256,
    write_bytes,
    write_signed,
)
from hwnas.measurement import STRICT

SCHEMA = "hwnas.data/2"
PREFIX = "stored:"
VAL_SHARE, TEST_SHARE = 0.1, 0.2
PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """`data.json`: what is known of stored data.

    Attributes:
        images_sha256: of the file with pixels and labels.
    """

    __pydantic_config__ = STRICT
    facts: DataFacts
    images_sha256: str


def store_data(data: Data) -> str:
    """Keep data in the cache, and return the name by which `load_data` finds them again.

    Raises:
        InputError: what is wrong with the data is named.
    """
    from safetensors.torch import save

    data = check_data(data)
    folder = hwnas_cache() / "data" / data.hash[:32]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for part in PARTS:
        images: Images = getattr(data, part)
        tensors[f"{part}.pixels"] = images.pixels.contiguous()
        if images.labels is not None:
            tensors[f"{part}.labels"] = images.labels.contiguous()
    content = save(tensors)
    write_bytes(folder / "images.safetensors", content)
    facts = DataFacts(**{field.name: getattr(data, field.name) for field in fields(DataFacts)})
    record = DataRecord(facts=facts, images_sha256=sha256(content))
    write_signed(folder / "data.json", {"schema": SCHEMA, **encode(record)})
    return f"{PREFIX}{folder}"


def load_stored(name: str) -> Data:
    """Load what `store_data` kept. Raises InputError: it is missing or damaged."""
    from safetensors.torch import load

    folder = Path(name.removeprefix(PREFIX))
    record = decode(DataRecord, read_signed(folder / "data.json", SCHEMA), folder / "data.json")
    content = read_bytes(folder / "images.safetensors")
    if sha256(content) != record.images_sha256:
        raise InputError(f"{folder}/images.safetensors is damaged", "give the data to hwnas.compress again")
    tensors = load(content)
    train, val, test = (
        Images(pixels=tensors[f"{part}.pixels"], labels=tensors.get(f"{part}.labels")) for part in PARTS
    )
    return Data(train=train, val=val, test=test, **vars(record.facts))


def as_data(given: Any, name: str = "data") -> Data:
    """Make data of a torch Dataset or of a pair of arrays (pixels, labels).

    A fixed tenth is set aside to choose by, a fixed fifth to test on. Pixels are uint8, or floats in 0 … 1.

    Args:
        given: a map-style `Dataset` of (image, class) with images of one size, or (N, 3, H, W) pixels and
            (N,) classes as arrays or tensors; labels None for none.

    Raises:
        InputError: it is something else, or holds other images.
    """
    if isinstance(given, Data):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        pixels, labels = given
    elif hasattr(given, "__len__") and hasattr(given, "__getitem__"):
        items = [given[n] for n in range(len(given))]
        pixels, labels = _columns(items)
    else:
        raise InputError(
            f"the data are a {type(given).__name__}",
            "give a name, a hwnas.Data, a torch Dataset, or a pair (pixels, labels)",
        )
    images = _uint8(_stacked(pixels))
    classes = None if labels is None else torch.as_tensor(np.asarray(labels)).long()
    train, val, test = split_images(images, classes, VAL_SHARE, TEST_SHARE)
    scaled = train.pixels.float().div_(255)
    names = getattr(given, "classes", None) or (
        () if classes is None else tuple(str(n) for n in range(int(classes.max()) + 1))
    )
    return check_data(
        Data(
            name=name,
            class_names=tuple(map(str, names)),
            train=train,
            val=val,
            test=test,
            mean=tuple(scaled.mean((0, 2, 3)).tolist()),
            std=tuple(scaled.std((0, 2, 3)).clamp(min=1 / 255).tolist()),
        )
    )


def _columns(items: Sequence[Any]) -> tuple[list[Any], list[Any] | None]:
    """Images and labels of a Dataset's items."""
    if items and isinstance(items[0], tuple | list):
        return [item[0] for item in items], [int(item[1]) for item in items]
    return list(items), None


def _stacked(pixels: Any) -> Tensor:
    if isinstance(pixels, Tensor):
        return pixels
    if isinstance(pixels, np.ndarray):
        return torch.from_numpy(pixels)
    images = [each if isinstance(each, Tensor) else _of_picture(each) for each in pixels]
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) != 1:
        raise InputError(
            f"the images have {len(shapes)} shapes, {', '.join(map(str, shapes[:3]))}",
            "resize them to one size, by the Dataset's transform",
        )
    return torch.stack(images)


def _of_picture(picture: Any) -> Tensor:
    """(C, H, W) of a PIL image or an array (H, W, C)."""
    array = np.asarray(picture.convert("RGB") if hasattr(picture, "convert") else picture)
    return (
        torch.from_numpy(array.copy()).permute(2, 0, 1) if array.ndim == 3 else torch.from_numpy(array.copy())
    )


def _uint8(pixels: Tensor) -> Tensor:
    """Pixels as uint8; floats in 0 … 1, as torchvision's ToTensor makes them, are multiplied by 255."""
    if pixels.is_floating_point() and pixels.numel() and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = pixels.mul(255).round().to(torch.uint8)
    if pixels.ndim == 4 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    return pixels.contiguous()
