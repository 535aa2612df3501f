"""Whether the targets that a function of one's own gives are those of its images."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.compress.data.dataset import Data, Images
from hwnas.errors import InputError
from hwnas.networks.tensors import unusual


def check_labels(name: str, part: Images, data: Data) -> None:
    """Refuse what are no targets of the images of a part. Raises InputError."""
    labels, first = part.labels, data.train.labels
    if labels is None:
        if data.class_names:
            raise InputError(
                f"there are class_names, but {name}.labels are None", "give labels, or leave class_names out"
            )
        return
    if not isinstance(labels, dict) and not isinstance(first, dict):
        _check_tensor(f"{name}.labels", labels, part, first)
        if data.class_names and isinstance(labels, Tensor):
            _check_classes(f"{name}.labels", labels, len(data.class_names))
        return
    if not (isinstance(labels, dict) and isinstance(first, dict)) or first.keys() != labels.keys():
        raise InputError(
            f"{name}.labels are {_kind(labels)}, those of train {_kind(first)}",
            "give targets by the same names in all parts",
        )
    if data.class_names:
        raise InputError(
            f"there are class_names, but {name}.labels are a dictionary",
            "leave class_names out: targets by name are not the classes of images",
        )
    for key, value in labels.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise InputError(f"{name}.labels have the name {key!r:.40}", "name targets by words: boxes")
        _check_tensor(f"{name}.labels[{key!r}]", value, part, first[key])


def _kind(labels: object) -> str:
    if isinstance(labels, dict):
        return f"a dictionary of {', '.join(map(str, labels)) or 'nothing'}"
    return f"a {type(labels).__name__}"


def _check_tensor(name: str, labels: object, part: Images, first: object) -> None:
    """One tensor of targets. first: that of train."""
    if isinstance(labels, tuple) and isinstance(part.pixels, tuple) and isinstance(first, Tensor):
        if len(labels) != len(part):
            raise InputError(
                f"{name}: {len(labels)} targets for {len(part)} images", "give each image its targets"
            )
        for number, each in enumerate(labels):
            whole = Images(pixels=part.pixels[number][None], labels=None)
            if not isinstance(each, Tensor) or (each.ndim, each.dtype) != (first.ndim - 1, first.dtype):
                raise InputError(
                    f"{name}: those of image {number} are not like those of train, {first.dtype} of "
                    f"{first.ndim - 1} dimensions",
                    "give targets of one kind in all parts",
                )
            _check_tensor(f"{name}, image {number}", each[None], whole, each[None])
        return
    if not isinstance(labels, Tensor):
        raise InputError(
            f"{name} are a {type(labels).__name__}", "make them a tensor: torch.as_tensor(labels)"
        )
    check_plain(name, labels)
    if labels.requires_grad:
        raise InputError(f"{name} are part of a gradient", "give plain values: labels.detach()")
    if labels.ndim == 0 or len(labels) != len(part.pixels):
        count = len(labels) if labels.ndim else "no list of"
        raise InputError(
            f"{name.replace('.labels', ' has', 1)} {len(part.pixels)} images and {count} labels",
            "give each image its label, in order",
        )
    if labels.is_floating_point() and not labels.isfinite().all():
        raise InputError(f"{name} hold NaN or infinity", "leave those images out, or correct them")
    if isinstance(first, Tensor) and (labels.shape[1:], labels.dtype) != (first.shape[1:], first.dtype):
        raise InputError(
            f"{name} are {labels.dtype} {tuple(labels.shape[1:])} an image, those of train "
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


def check_plain(name: str, tensor: Tensor, verb: str = "are") -> None:
    """Refuse a tensor without plain values in the CPU's memory. Raises InputError."""
    kind = unusual(tensor)
    if kind is None and tensor.device.type != "cpu":
        kind = f"on {tensor.device}"
    if kind is not None:
        raise InputError(f"{name} {verb} {kind}", "give dense tensors in the CPU's memory: tensor.cpu()")
