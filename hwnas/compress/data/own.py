"""Data that a function of one's own makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hwnas.compress.data.dataset import Data, Images
from hwnas.errors import InputError
from hwnas.networks.tensors import unusual
from hwnas.networks.user_code import call_function

IMAGENET_CLASSES = 1000
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
    data = replace(data, class_names=tuple(names), mean=_three("mean", data), std=_three("std", data))
    parts = {"train": data.train, "val": data.val, "test": data.test}
    for name, part in parts.items():
        if not isinstance(part, Images):
            raise InputError(
                f"{name} is a {type(part).__name__}", "give hwnas.Images(pixels=…, labels=…) for each part"
            )
        check_pixels(f"{name}.pixels", part.pixels)
    for name, part in parts.items():
        _check_likeness(name, part, data.train)
        _check_labels(name, part, data.class_names, data.train)
    _check_settings(data)
    return data


def _is_list_of(values: object, kind: type) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, kind) for value in values)


def _three(key: str, data: Data) -> tuple[float, ...]:
    given = getattr(data, key)
    try:
        values = tuple(float(value) for value in given)
    except (TypeError, ValueError, RuntimeError):
        values = ()
    least = 0.0 if key == "mean" else math.ulp(0.0)
    if len(values) != 3 or not all(least <= value <= 1 for value in values):  # NaN is in no range
        raise InputError(
            f"{key} is {given!r:.80}, it must be three numbers up to 1, "
            f"{'0 at least' if key == 'mean' else 'and std above 0'}",
            "give it per channel for pixels in 0 … 1: what is meant for 0 … 255 divided by 255",
        )
    return values


def check_pixels(
    name: str, pixels: object, wanted: str = "they must be one uint8 tensor (N, 3, H, W)"
) -> None:
    """Refuse what is no tensor of images. Raises InputError with a way to convert it.

    Args:
        wanted: what the message says of the form that is taken.
    """
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
    if pixels.dtype != torch.uint8:
        held, fix = _range(pixels)
        raise InputError(f"{name} are {pixels.dtype}{held}, {wanted}", fix)
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        fix = "put the channels second, and give grey images three equal ones: pixels.expand(-1, 3, -1, -1)"
        if pixels.ndim == 4 and pixels.shape[3] == 3:
            fix = "put the channels second: pixels.permute(0, 3, 1, 2)"
        elif pixels.ndim == 4 and pixels.shape[1] == 4:
            fix = "leave out the fourth channel, transparency is not read: pixels[:, :3]"
        raise InputError(f"{name} have the shape {tuple(pixels.shape)}, {wanted}", fix)
    if not pixels.numel():
        raise InputError(f"{name} are empty: {tuple(pixels.shape)}", "give each part one image at least")


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


def check_plain(name: str, tensor: Tensor, verb: str = "are") -> None:
    """Refuse a tensor without plain values in the CPU's memory. Raises InputError."""
    kind = unusual(tensor)
    if kind is None and tensor.device.type != "cpu":
        kind = f"on {tensor.device}"
    if kind is not None:
        raise InputError(f"{name} {verb} {kind}", "give dense tensors in the CPU's memory: tensor.cpu()")


def _check_likeness(name: str, part: Images, train: Images) -> None:
    if part.pixels.shape[1:] != train.pixels.shape[1:]:
        raise InputError(
            f"{name}.pixels have another size than those of train: {_size(part)} and {_size(train)}",
            "resize all parts to one size",
        )
    if (part.labels is None) != (train.labels is None):
        has = "none" if part.labels is None else "some"
        raise InputError(f"some parts have labels, {name} has {has}", "give all parts labels, or none")


def _size(images: Images) -> str:
    return f"{images.pixels.shape[3]} × {images.pixels.shape[2]}"


def _check_labels(name: str, part: Images, class_names: tuple[str, ...], train: Images) -> None:
    labels: object = part.labels
    if labels is None:
        if class_names:
            raise InputError(
                f"there are class_names, but {name}.labels are None", "give labels, or leave class_names out"
            )
        return
    if not isinstance(labels, Tensor):
        raise InputError(
            f"{name}.labels are a {type(labels).__name__}", "make them a tensor: torch.as_tensor(labels)"
        )
    check_plain(f"{name}.labels", labels)
    if labels.requires_grad:
        raise InputError(f"{name}.labels are part of a gradient", "give plain values: labels.detach()")
    if labels.ndim == 0 or len(labels) != len(part.pixels):
        count = len(labels) if labels.ndim else "no list of"
        raise InputError(
            f"{name} has {len(part.pixels)} images and {count} labels", "give each image its label, in order"
        )
    if labels.is_floating_point() and not labels.isfinite().all():
        raise InputError(f"{name}.labels hold NaN or infinity", "leave those images out, or correct them")
    if class_names:
        _check_classes(f"{name}.labels", labels, len(class_names))
    first = train.labels
    if isinstance(first, Tensor) and (labels.shape[1:], labels.dtype) != (first.shape[1:], first.dtype):
        raise InputError(
            f"{name}.labels are {labels.dtype} {tuple(labels.shape[1:])} an image, those of train "
            f"{first.dtype} {tuple(first.shape[1:])}",
            "give targets of one kind and size in all parts",
        )


def _check_classes(name: str, labels: Tensor, classes: int) -> None:
    wanted = f"{name} must be int64 (N,), from 0 to {classes - 1} as class_names say"
    if labels.dtype != torch.int64 or labels.ndim != 1:
        fix = "one-hot or probabilities: labels.argmax(1)" if labels.ndim == 2 else "labels.long()"
        raise InputError(f"{wanted}; they are {labels.dtype} {tuple(labels.shape)}", fix)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"{wanted}; they go from {low} to {high}", "count classes from 0, and name all of them"
        )


def _check_settings(data: Data) -> None:
    shift, side = data.shift_px, min(data.image_shape[1:])
    if isinstance(shift, bool) or not isinstance(shift, int) or not 0 <= shift < side:
        raise InputError(f"shift_px is {shift!r}", f"give whole pixels below the image's side, {side}")
    if not isinstance(data.flip, bool):
        raise InputError(f"flip is {data.flip!r}", "give True or False")
    if data.train.labels is not None and not data.class_names and (data.flip or shift):
        raise InputError(
            "flip or shift_px is set, but targets that are no classes do not move with their image",
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
