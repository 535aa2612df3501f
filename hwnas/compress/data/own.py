"""Data that a function of one's own makes."""

from __future__ import annotations

from dataclasses import replace

import torch

from hwnas.compress.data.dataset import Data, Images
from hwnas.compress.imports import call_function
from hwnas.errors import InputError


def call_for_data(text: str) -> Data:
    """Call `module:function` for a data set, and check it.

    Raises:
        InputError: it fails, or gives something else than sound data; what is wrong is named.
    """
    fix = "let it build and return a hwnas.Data (docs/data.md)"
    data = call_function(text, fix)
    if not isinstance(data, Data):
        raise InputError(f"{text} gave a {type(data).__name__}, not a hwnas.Data", fix)
    try:
        _check(data)
    except ValueError as error:
        raise InputError(f"{text}: {error}", fix) from None
    return replace(data, name=text)


def _check(data: Data) -> None:
    parts = {"train": data.train, "val": data.val, "test": data.test}
    for name, part in parts.items():
        pixels, labels = part.pixels, part.labels
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype != torch.uint8 or not len(pixels):
            raise ValueError(
                f"{name}.pixels are {pixels.dtype} {tuple(pixels.shape)}, they must be uint8 (N, 3, H, W)"
            )
        if pixels.shape[1:] != data.train.pixels.shape[1:]:
            raise ValueError(f"{name}.pixels have another size than those of train")
        if (labels is None) != (data.train.labels is None):
            raise ValueError(f"some parts have labels, {name} has {'none' if labels is None else 'some'}")
        _check_labels(name, part, data.class_names)
    for key in ("mean", "std"):
        values = getattr(data, key)
        if len(values) != 3 or (key == "std" and min(values) <= 0):
            raise ValueError(f"{key} is {values}, it must be three numbers, and std above 0")
    if data.train.labels is not None and not data.class_names and (data.flip or data.shift_px):
        raise ValueError(
            "flip or shift_px is set, but targets that are no classes do not move with their image"
        )


def _check_labels(name: str, part: Images, class_names: tuple[str, ...]) -> None:
    labels = part.labels
    if labels is None:
        if class_names:
            raise ValueError(f"there are class_names, but {name}.labels are None")
        return
    if len(labels) != len(part.pixels):
        raise ValueError(f"{name} has {len(part.pixels)} images and {len(labels)} labels")
    if labels.is_floating_point() and not labels.isfinite().all():
        raise ValueError(f"{name}.labels hold NaN or infinity")
    if class_names and (
        labels.dtype != torch.int64
        or labels.ndim != 1
        or not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names)
    ):
        raise ValueError(
            f"{name}.labels must be int64 (N,), from 0 to {len(class_names) - 1} as class_names say"
        )
