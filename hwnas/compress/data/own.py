"""Data that a function of one's own makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hwnas.compress.data.augment import is_boxes
from hwnas.compress.data.dataset import Data, Images
from hwnas.compress.data.labels import check_labels, check_plain
from hwnas.errors import InputError
from hwnas.networks.user_code import call_function

IMAGENET_CLASSES = 1000
LOWEST, HIGHEST = -0.5, 1.5
BUILD = "let it build and return a hwnas.Data (docs/data.md)"


def call_for_data(text: str) -> Data:
    """Call `module:function` for a data set, and check it.

    Raises:
        InputError: it fails, or gives something else than sound data; what is wrong is named.
    """
    data = call_function(text, BUILD)
    if not isinstance(data, Data):
        raise InputError(
            f"{text} gave a {type(data).__name__}, not a hwnas.Data",
            "let it make one of uint8 images (N, 3, H, W) and their labels; those of a torch Dataset or "
            "DataLoader are put together by torch.stack (docs/data.md)",
        )
    try:
        return replace(check_data(data), name=text, digest=None)
    except InputError as error:
        raise InputError(f"{text}: {error.cause}", f"{error.fix} (docs/data.md)") from None


def check_data(data: Data) -> Data:
    """Return the data with plain values for their lists. Raises InputError, without the data's name."""
    names = data.class_names
    if isinstance(names, str) or not _is_list_of(names, str):
        raise InputError(f"class_names is {names!r:.80}", "give a tuple of one text a class")
    parts = {"train": data.train, "val": data.val, "test": data.test}
    for name, part in parts.items():
        if not isinstance(part, Images):
            raise InputError(
                f"{name} is a {type(part).__name__}", "give hwnas.Images(pixels=…, labels=…) for each part"
            )
    data = replace(data, class_names=tuple(names), test=_with_sizes(data.test))
    parts["test"] = data.test
    for name, part in parts.items():
        check_pixels(f"{name}.pixels", part.pixels)
    data = replace(data, mean=_of_channels("mean", data), std=_of_channels("std", data))
    for name, part in parts.items():
        _check_likeness(name, part, data.train)
        check_labels(name, part, data)
    _check_settings(data)
    return data


def _with_sizes(test: Images) -> Images:
    """The test part; a list of images of several sizes, and of their targets, as tuples.

    Raises:
        InputError: one of the images is none.
    """
    pixels = test.pixels
    if not isinstance(pixels, list | tuple) or not pixels or not all(isinstance(x, Tensor) for x in pixels):
        return test
    for number, image in enumerate(pixels):
        check_pixels(f"test.pixels, image {number}", image[None] if image.ndim == 3 else image)
    labels = tree_map(
        lambda each: tuple(each) if isinstance(each, list) else each,
        test.labels,
        is_leaf=lambda each: isinstance(each, list | tuple),
    )
    return replace(test, pixels=tuple(pixels), labels=labels)


def _is_list_of(values: object, kind: type) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, kind) for value in values)


def _of_channels(key: str, data: Data) -> tuple[float, ...]:
    given = getattr(data, key)
    try:
        values = tuple(float(value) for value in given)
    except (TypeError, ValueError, RuntimeError):
        values = ()
    least = 0.0 if key == "mean" else math.ulp(0.0)
    channels = data.train.pixels.shape[1]
    if len(values) != channels or not all(least <= value <= 1 for value in values):  # NaN is in no range
        raise InputError(
            f"{key} is {given!r:.80}, it must be {'one number' if channels == 1 else 'three numbers'} "
            f"up to 1, {'0 at least' if key == 'mean' else 'and std above 0'}",
            "give it per channel for pixels in 0 … 1: what is meant for 0 … 255 divided by 255",
        )
    return values


def check_pixels(
    name: str,
    pixels: object,
    wanted: str = "they must be one uint8 tensor (N, 3, H, W), or float32 in 0 … 1, or of one channel",
    *,
    floats: bool = True,
) -> None:
    """Refuse what is no tensor of images. Raises InputError with a way to convert it.

    Args:
        wanted: what the message says of the form that is taken.
        floats: float32 in 0 … 1 are taken.
    """
    if isinstance(pixels, tuple) and pixels and all(isinstance(each, Tensor) for each in pixels):
        return  # of the test part, looked at one by one
    if isinstance(pixels, list | tuple):
        shapes = sorted({tuple(getattr(image, "shape", ())) for image in pixels})
        several = f" of {len(shapes)} sizes, {', '.join(map(str, shapes[:3]))}" if len(shapes) > 1 else ""
        raise InputError(
            f"{name} are a list of {len(pixels)} images{several}, {wanted}",
            "resize the images to one size and put them together: torch.stack(images); a folder of image "
            "files is resized by hwnas: --data folder:PATH",
        )
    if not isinstance(pixels, Tensor):
        kind = f"{type(pixels).__module__}.{type(pixels).__name__}"
        raise InputError(f"{name} are a {kind}, {wanted}", "of a numpy array: torch.from_numpy(array)")
    check_plain(name, pixels)
    if pixels.dtype != torch.uint8 and not (floats and _is_unit(pixels)):
        held, fix = _range(pixels)
        raise InputError(f"{name} are {pixels.dtype}{held}, {wanted}", fix)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        fix = "put the channels second: pixels.permute(0, 3, 1, 2), or pixels[:, None] of grey images"
        if pixels.ndim == 4 and pixels.shape[3] == 3:
            fix = "put the channels second: pixels.permute(0, 3, 1, 2)"
        elif pixels.ndim == 4 and pixels.shape[1] == 4:
            fix = "leave out the fourth channel, transparency is not read: pixels[:, :3]"
        raise InputError(f"{name} have the shape {tuple(pixels.shape)}, {wanted}", fix)
    if not pixels.numel():
        raise InputError(f"{name} are empty: {tuple(pixels.shape)}", "give each part one image at least")


def _is_unit(pixels: Tensor) -> bool:
    """Whether pixels are float32 about 0 … 1: noise may go beyond, what is normalised goes further."""
    if pixels.dtype != torch.float32 or not pixels.numel():
        return False
    low, high = torch.aminmax(pixels)
    return bool(low >= LOWEST) and bool(high <= HIGHEST)


def _range(pixels: Tensor) -> tuple[str, str]:
    """What values pixels of another type hold, and how they become uint8."""
    if not pixels.numel() or pixels.is_complex():
        return "", "give what the image files hold"
    if pixels.is_floating_point() and not pixels.isfinite().all():
        return " and hold NaN or infinity", "correct the values, then (pixels * 255).round().to(torch.uint8)"
    images = pixels if pixels.ndim else pixels[None]
    low = min(float(image.double().min()) for image in images)
    high = max(float(image.double().max()) for image in images)
    held = f" from {low:g} to {high:g}"
    if low < 0:
        return held, "undo their normalisation: hwnas does it by mean and std"
    if (pixels.is_floating_point() or pixels.dtype == torch.bool) and high <= 1:
        return held, "convert them: (pixels * 255).round().to(torch.uint8)"
    if high <= 255:
        return held, "convert them: pixels.to(torch.uint8)"
    return held, "bring them to 0 … 255; of 16 bits: (pixels.long() >> 8).to(torch.uint8)"


def _check_likeness(name: str, part: Images, train: Images) -> None:
    images = part.pixels if isinstance(part.pixels, tuple) else part.pixels[:1]
    kinds = {(each.shape[0], each.dtype) for each in images}
    if kinds != {(train.pixels.shape[1], train.pixels.dtype)}:
        raise InputError(
            f"{name}.pixels have other channels or another type than those of train: "
            f"{', '.join(sorted(f'{channels} of {dtype}' for channels, dtype in kinds))} and "
            f"{train.pixels.shape[1]} of {train.pixels.dtype}",
            "give images of one kind in all parts",
        )
    if isinstance(part.pixels, Tensor) and part.sizes != train.sizes:
        raise InputError(
            f"{name}.pixels have another size than those of train: {_size(part)} and {_size(train)}",
            "resize all parts to one size; only test may be a list of images of several sizes",
        )
    if (part.labels is None) != (train.labels is None):
        has = "none" if part.labels is None else "some"
        raise InputError(f"some parts have labels, {name} has {has}", "give all parts labels, or none")


def _size(images: Images) -> str:
    return f"{images.pixels.shape[3]} × {images.pixels.shape[2]}"


def _check_settings(data: Data) -> None:
    shift, side = data.shift_px, min(data.train.pixels.shape[2:])
    if isinstance(shift, bool) or not isinstance(shift, int) or not 0 <= shift < side:
        raise InputError(f"shift_px is {shift!r}", f"give whole pixels below the image's side, {side}")
    if not isinstance(data.flip, bool):
        raise InputError(f"flip is {data.flip!r}", "give True or False")
    targets = data.train.labels
    moves = targets is None or bool(data.class_names) or is_boxes(targets)
    if not moves and (data.flip or shift):
        raise InputError(
            "flip or shift_px is set, but targets that are no classes or boxes do not move with their image",
            "leave both out",
        )
    rows = data.imagenet
    if rows and not (
        _is_list_of(rows, int)
        and len(rows) == len(data.class_names)
        and all(0 <= row < IMAGENET_CLASSES for row in rows)
    ):
        raise InputError(
            f"imagenet is {rows!r:.80}",
            "give the index among ImageNet's classes of each class, or leave it out",
        )
