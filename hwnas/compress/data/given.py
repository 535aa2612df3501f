"""Data that a program gives as objects: a torch Dataset, or arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hwnas.compress.data.dataset import Data, split_images
from hwnas.compress.data.images import to_pixels
from hwnas.compress.data.labels import check_plain
from hwnas.compress.data.own import check_data, check_pixels
from hwnas.errors import HwnasError, InputError, first_line

VAL_SHARE, TEST_SHARE = 0.1, 0.2
LEAST_IMAGES = 10

MAX_CLASSES = 100_000
"""Numbers beyond are an image's own, no class of it; ImageNet-21k has 21,841 classes."""

PIXELS = "they must be (N, 3, H, W), uint8 or floats from 0 to 1"
NUMBER_THEM = "names, labels = numpy.unique(labels, return_inverse=True)"
OTHER_TARGETS = "values and masks are given by a hwnas.Data, with their task (docs/tasks.md)"


def as_data(given: Any, name: str = "data") -> Data:
    """Make data of a torch Dataset or of a pair of arrays (pixels, labels).

    A fixed tenth is set aside to choose by, a fixed fifth to test on. Pixels are uint8, or floats in 0 … 1.
    Pillow's images become pixels as a folder's do, at their own size.

    Args:
        given: a map-style `Dataset` of (image, class), or of images alone, which have one size and are
            tensors (C, H, W), arrays (H, W), (H, W, C) or (C, H, W), or Pillow's; or a pair of (N, 3, H, W)
            pixels and (N,) classes as arrays or tensors, labels None for none. A Dataset's `classes` name
            them.

    Raises:
        InputError: it is something else, or holds other images or labels; what is wrong is named.
    """
    if isinstance(given, Data):
        return given
    names: tuple[str, ...] = ()
    if isinstance(given, tuple) and len(given) == 2:
        pixels, labels = _of_pixels(given[0]), given[1]
    elif hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, Mapping):
        pixels, labels = _of_dataset(given)
        names = _names(given)
    else:
        raise InputError(
            f"the data are a {type(given).__name__}",
            "give a name (folder:PATH), a hwnas.Data, a map-style torch Dataset (loader.dataset of a "
            "DataLoader), or a pair (pixels, labels)",
        )
    images = _uint8(pixels)
    classes = _classes(labels, len(images), names)
    if len(images) < LEAST_IMAGES:
        raise InputError(
            f"the data hold too few images to set some aside: {len(images)}",
            f"give {LEAST_IMAGES} at least, or a hwnas.Data that says its parts itself",
        )
    train, val, test = split_images(images, classes, VAL_SHARE, TEST_SHARE)
    scaled = train.pixels.float().div_(255)
    return check_data(
        Data(
            name=name,
            class_names=() if classes is None else names or _numbered(classes),
            train=train,
            val=val,
            test=test,
            mean=tuple(scaled.mean((0, 2, 3)).tolist()),
            std=tuple(scaled.std((0, 2, 3)).clamp(min=1 / 255).tolist()),
            is_measured=True,
        )
    )


def _of_dataset(dataset: Any) -> tuple[Tensor, list[Any] | None]:
    """Images and labels of a Dataset's items: (image, label, …), (image,) or image."""
    images, labels = [], []
    for number, item in enumerate(_items(dataset)):
        if isinstance(item, Mapping):
            raise InputError(
                f"item {number} of the data is a {type(item).__name__} of {', '.join(map(str, item))!s:.80}",
                "let the Dataset give pairs: (item[…], item[…]) of image and class",
            )
        parts = item if isinstance(item, tuple | list) else (item,)
        if not parts:
            raise InputError(f"item {number} of the data is empty", "let the Dataset give (image, class)")
        images.append(_image(number, parts[0]))
        labels.append(parts[1] if len(parts) > 1 else None)
    return _together(images), None if all(label is None for label in labels) else labels


def _items(dataset: Any) -> Iterator[Any]:
    number: int | None = None
    try:
        for number in range(len(dataset)):
            yield dataset[number]
    except HwnasError:
        raise
    except Exception as error:  # whatever the user's Dataset raises
        what = "the data cannot be counted" if number is None else f"item {number} of the data cannot be read"
        raise InputError(
            f"{what}: {type(error).__name__}: {first_line(error)}",
            "mend the Dataset: hwnas takes len(dataset), and dataset[n] for each n below it",
        ) from error


def _names(dataset: Any) -> tuple[str, ...]:
    given = getattr(dataset, "classes", None)
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        raise InputError(
            f"`classes` of the Dataset is {given!r:.80}",
            "let it be a list of names, in the order of the labels",
        )
    return tuple(map(str, given))


def _of_pixels(given: Any) -> Tensor:
    """(N, C, H, W) or (N, H, W)."""
    if isinstance(given, list | tuple):
        return _together([_image(number, image) for number, image in enumerate(given)])
    return _tensor("the pixels", given, PIXELS)


def _image(number: int, given: Any) -> Tensor:
    """(C, H, W) or (H, W)."""
    name = f"image {number} of the data"
    if isinstance(given, Image.Image):
        try:
            return torch.from_numpy(to_pixels(given, None, "RGB"))
        except Exception as error:  # Pillow's decoders raise whatever they meet
            raise InputError(
                f"{name} cannot be read: {first_line(error)}", "correct it, or leave it out"
            ) from error
    image = _tensor(name, given, "it must be a tensor, an array or one of Pillow's")
    return image.permute(2, 0, 1) if not isinstance(given, Tensor) and _channels_last(image.shape) else image


def _channels_last(shape: Sequence[int]) -> bool:
    """Whether an array is (H, W, C), as most programs have it, and not (C, H, W)."""
    return len(shape) == 3 and (shape[2] in (1, 3) or (shape[2] in (2, 4) and shape[0] not in (1, 3)))


def _together(images: Sequence[Tensor]) -> Tensor:
    if not images:
        raise InputError("the data hold no images", f"give {LEAST_IMAGES} at least")
    for what, kinds, fix in (
        ("shapes", {str(tuple(image.shape)) for image in images}, "resize them to one size"),
        ("types", {str(image.dtype) for image in images}, "convert them to one"),
    ):
        if len(kinds) > 1:
            raise InputError(
                f"the images have {len(kinds)} {what}, {', '.join(sorted(kinds)[:3])}",
                f"{fix}, by the Dataset's transform",
            )
    return torch.stack(list(images))


def _tensor(name: str, given: Any, wanted: str) -> Tensor:
    """Make a tensor of numbers, whatever holds them. Raises InputError."""
    if isinstance(given, Tensor):
        check_plain(name, given)
        return given.detach()
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biufc":
            raise TypeError
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(np.require(native, requirements=["C", "W"]))
    except Exception:  # whatever numpy, torch or the object raise
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
        raise InputError(f"{name}: {kind}, {wanted}", "give numbers, in an array or a tensor") from None


def _uint8(pixels: Tensor) -> Tensor:
    """Pixels as uint8; floats in 0 … 1, as torchvision's ToTensor makes them, are multiplied by 255."""
    unit = pixels.is_floating_point() and pixels.itemsize > 1 and pixels.numel()
    if unit and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = pixels.mul(255).round().to(torch.uint8)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    check_pixels("the pixels", pixels, PIXELS, floats=False)
    return pixels.contiguous()


def _classes(given: Any, count: int, names: Sequence[str]) -> Tensor | None:
    """Class indices (N,) int64. Raises InputError: the labels are none, or not as many as images."""
    if given is None:
        return None
    labels = _numbers(given)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 0 or len(labels) != count:
        held = f"{len(labels)} labels" if labels.ndim else "one label"
        raise InputError(f"the data have {count} images and {held}", "give each image its label, in order")
    if labels.ndim > 1:
        raise InputError(
            f"the labels have the shape {tuple(labels.shape)}, they must be one class an image, (N,)",
            f"one-hot or probabilities: labels.argmax(1); {OTHER_TARGETS}",
        )
    if labels.is_floating_point() or labels.is_complex():
        _refuse_real(labels)
    array = labels.numpy()
    _check_range(int(array.min()), int(array.max()), names)
    return labels.long()


def _numbers(given: Any) -> Tensor:
    """Labels as a tensor; of what is no number the first is named."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "USO":
        given = given.tolist()
    if isinstance(given, list | tuple):
        given = [_number(position, label) for position, label in enumerate(given)]
    return _tensor("the labels", given, "they must be one class an image, (N,)")


def _number(position: int, label: Any) -> Any:
    """A label as numpy takes it. Raises InputError."""
    name = f"the label of image {position}"
    if isinstance(label, Tensor):
        check_plain(name, label, "is")
        label = label.detach()
        return (label.double() if label.is_floating_point() else label).numpy()
    if isinstance(label, np.character):
        label = label.item()
    if isinstance(label, str | bytes):
        raise InputError(
            f"{name} is {label!r:.80}, it must be the number of its class",
            f"number the classes from 0: {NUMBER_THEM}",
        )
    if label is None or isinstance(label, Mapping | Image.Image):
        raise InputError(
            f"{name} is {'none' if label is None else f'a {type(label).__name__}'}, it must be the number of "
            "its class",
            f"give each image one; {OTHER_TARGETS}",
        )
    if isinstance(label, int):
        _check_range(label, label, ())
    return label


def _refuse_real(labels: Tensor) -> None:
    kind = str(labels.dtype).removeprefix("torch.")
    if labels.is_complex():
        raise InputError(f"the labels are {kind}, they must be the numbers of classes", "give integers")
    values = labels.double()
    if not values.isfinite().all():
        raise InputError("the labels hold NaN or infinity", "leave those images out, or correct them")
    fractions = values[values != values.round()]
    if len(fractions):
        raise InputError(
            f"the labels are {kind} such as {fractions[0]:g}, which is no class",
            f"number the classes from 0, by integers; {OTHER_TARGETS}",
        )
    raise InputError(
        f"the labels are {kind}, classes are numbered by integers",
        "convert them: labels.astype(int) of an array, labels.long() of a tensor, int(label) in a Dataset",
    )


def _numbered(classes: Tensor) -> tuple[str, ...]:
    """Names of classes that nobody named. Raises InputError: there is one."""
    if not classes.any():
        raise InputError("all labels are 0: one class", "give images of two classes at least, or no labels")
    return tuple(str(number) for number in range(int(classes.max()) + 1))


def _check_range(low: int, high: int, names: Sequence[str]) -> None:
    if low < 0:
        raise InputError(
            f"the labels hold {low}, classes are counted from 0",
            "number the classes from 0, and leave images without one out",
        )
    if names and high >= len(names):
        raise InputError(
            f"the labels hold {high}, `classes` of the Dataset names {len(names)}: 0 … {len(names) - 1}",
            "count classes from 0, and name all of them",
        )
    if high >= MAX_CLASSES:
        raise InputError(
            f"the labels hold {high}, which would make {high + 1:,} classes; {MAX_CLASSES:,} are the most",
            f"number them without gaps: {NUMBER_THEM}",
        )
