"""Data of one's own in every wrong form: refused by cause, and what is right in other words is taken."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_data

import hwnas
from hwnas.compress.data import Data, Images, load_data
from hwnas.compress.tasks.checks import check_output
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.segmentation import SEGMENTATION
from hwnas.errors import InputError


def made(data: object) -> Data:
    """What `--data owndata:make` gives for what a function returns."""
    module = ModuleType("owndata")
    module.make = lambda: data  # type: ignore[attr-defined]
    sys.modules["owndata"] = module
    try:
        return load_data("owndata:make")
    finally:
        del sys.modules["owndata"]


def refusal(data: object) -> InputError:
    with pytest.raises(InputError) as caught:
        made(data)
    assert caught.value.cause.startswith("owndata:make")
    assert "docs/data.md" in caught.value.fix
    return caught.value


def pixels_are(pixels: Any, part: str = "train") -> Data:
    data = make_data()
    return replace(data, **{part: replace(getattr(data, part), pixels=pixels)})


def labels_are(labels: Any, part: str = "train", **changed: Any) -> Data:
    data = make_data()
    return replace(data, **{part: replace(getattr(data, part), labels=labels)}, **changed)


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.zeros(3, *size, dtype=torch.uint8) for size in sizes]


BYTES = torch.randint(0, 256, (72, 3, 32, 32), dtype=torch.uint8)

WRONG_PIXELS: dict[str, tuple[Any, str, str]] = {
    "no images": ([], "a list of 0 images", "torch.stack"),
    "paths": (["a.png", "b.png"], "a list of 2 images", "folder:PATH"),
    "numpy": (BYTES.numpy(), r"numpy\.ndarray", "torch.from_numpy"),
    "none": (None, "NoneType", "uint8"),
    "int8": (BYTES.to(torch.int8), r"torch\.int8 from -128 to 127", "normalisation"),
    "int16": (BYTES.short() * 100, r"torch\.int16 from 0 to 25500", "0 … 255"),
    "int32": (BYTES.int() * 257, "torch.int32 from 0 to 65535", ">> 8"),
    "int64": (BYTES.long(), "torch.int64 from 0 to 255", r"pixels.to\(torch.uint8\)"),
    "uint16": ((BYTES.int() * 257).to(torch.uint16), "torch.uint16 from 0 to 65535", ">> 8"),
    "bool": (BYTES > 100, "torch.bool from 0 to 1", "uint8"),
    "large floats": (BYTES * 2.0, "torch.float32 from 0 to 510", "0 … 255"),
    "normalised": (torch.linspace(-2, 2, BYTES.numel()).view(BYTES.shape), "from -2 to 2", "mean and std"),
    "half": ((BYTES / 255).half(), "torch.float16 from 0 to 1", r"\* 255"),
    "nan": (torch.full((72, 3, 32, 32), torch.nan), "hold NaN", "correct"),
    "complex": (torch.zeros(72, 3, 32, 32, dtype=torch.complex64), "torch.complex64", "files"),
    "sparse": (torch.zeros(72, 3, 32, 32, dtype=torch.uint8).to_sparse(), "are sparse", "dense"),
    "meta": (torch.empty(72, 3, 32, 32, dtype=torch.uint8, device="meta"), "without values", "dense"),
    "channels last": (BYTES.permute(0, 2, 3, 1), "the shape", r"permute\(0, 3, 1, 2\)"),
    "two channels": (BYTES[:, :2], "the shape", "channels second"),
    "flat": (BYTES.flatten(1), "the shape", "channels second"),
    "one image": (BYTES[0], "the shape", "channels second"),
    "none left": (BYTES[:0], "are empty", "one image at least"),
    "no rows": (BYTES[:, :, :0], "are empty", "one image at least"),
}


@pytest.mark.parametrize("name", WRONG_PIXELS)
def test_pixels_of_another_kind_are_refused(name: str) -> None:
    pixels, cause, fix = WRONG_PIXELS[name]
    for part in ("train", "test"):
        error = refusal(pixels_are(pixels, part))
        assert f"{part}.pixels " in error.cause
        with pytest.raises(InputError, match=cause):
            raise error
        with pytest.raises(InputError, match=fix):
            raise error


@pytest.mark.parametrize("part", ["train", "val"])
def test_images_of_several_sizes_are_for_testing_only(part: str) -> None:
    error = refusal(pixels_are(images((32, 48), (64, 64)), part))
    assert "a list of 2 images of 2 sizes, (3, 32, 48)" in error.cause
    assert "folder:PATH" in error.fix
    assert "torch.stack" in refusal(pixels_are(images((32, 32), (32, 32)), part)).fix


WRONG_LABELS: dict[str, tuple[Any, str]] = {
    "list": ([0] * 72, "labels are a list"),
    "numpy": (np.zeros(72, dtype=np.int64), "labels are a ndarray"),
    "scalar": (torch.tensor(3), "no list of labels"),
    "another length": (torch.zeros(71, dtype=torch.int64), "72 images and 71 labels"),
    "empty": (torch.zeros(0, dtype=torch.int64), "72 images and 0 labels"),
    "negative": (torch.arange(72) % 10 - 1, "from -1 to 8"),
    "too high": (torch.arange(72) % 11, "from 0 to 10"),
    "int32": ((torch.arange(72) % 10).int(), r"they are torch\.int32"),
    "floats": ((torch.arange(72) % 10).float(), r"they are torch\.float32"),
    "one-hot": (torch.eye(72, 10).long(), r"\(72, 10\)"),
    "nan": (torch.full((72,), torch.nan), "NaN or infinity"),
    "sparse": (torch.zeros(72, dtype=torch.int64).to_sparse(), "are sparse"),
    "meta": (torch.zeros(72, dtype=torch.int64, device="meta"), "without values"),
    "gradient": (torch.zeros(72, requires_grad=True), r"part of a gradient"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_of_another_kind_are_refused(name: str) -> None:
    labels, cause = WRONG_LABELS[name]
    with pytest.raises(InputError, match=cause):
        raise refusal(labels_are(labels))


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"class_names": "0123456789"}, "class_names is '0123456789'"),
        ({"class_names": None}, "class_names is None"),
        ({"class_names": tuple(range(10))}, "class_names is"),
        ({"mean": (0.5,)}, "mean is"),
        ({"mean": 0.5}, "mean is 0.5"),
        ({"mean": (123.7, 116.3, 103.5)}, "mean is .* up to 1"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean is"),
        ({"std": (58.4, 57.1, 57.4)}, "std is"),
        ({"std": (float("nan"),) * 3}, "std above 0"),
        ({"std": (float("inf"),) * 3}, "std above 0"),
        ({"std": (0.5, -0.5, 0.5)}, "std above 0"),
        ({"std": None}, "std is None"),
        ({"shift_px": -1}, "shift_px is -1"),
        ({"shift_px": 32}, "shift_px is 32"),
        ({"shift_px": 2.0}, "shift_px is 2.0"),
        ({"flip": "no"}, "flip is 'no'"),
        ({"imagenet": (1, 2)}, "imagenet is"),
        ({"imagenet": tuple(range(995, 1005))}, "imagenet is"),
        ({"val": None}, "val is a NoneType"),
        ({"train": (BYTES, torch.zeros(72))}, "train is a tuple"),
    ],
)
def test_other_nonsense_is_refused(changed: dict[str, Any], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        raise refusal(replace(make_data(), **changed))


@pytest.mark.parametrize("given", [3, None, (BYTES, BYTES, BYTES), torch.utils.data.TensorDataset(BYTES)])
def test_what_is_no_data_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"not a hwnas\.Data"):
        raise refusal(given)


def test_targets_of_one_part_must_be_like_those_of_the_others() -> None:
    plain: dict[str, Any] = {"class_names": (), "flip": False, "shift_px": 0}
    values = replace(labels_are(torch.zeros(72, 3)), **plain)
    with pytest.raises(InputError, match=r"val.labels are torch.int64 \(\) an image, those of train"):
        raise refusal(values)
    data = make_data()
    parts: dict[str, Any] = {
        name: replace(part, labels=torch.zeros(len(part.pixels), 16 if name == "test" else 32, 32).long())
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    with pytest.raises(InputError, match=r"test.labels are torch.int64 \(16, 32\)"):
        raise refusal(replace(data, **parts, **plain))


@given(
    st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.bool]),
    st.lists(st.integers(0, 4), max_size=5),
    st.booleans(),
)
def test_any_tensor_is_taken_or_refused(dtype: torch.dtype, shape: list[int], as_labels: bool) -> None:
    tensor = torch.zeros(shape, dtype=dtype)
    data = labels_are(tensor) if as_labels else pixels_are(tensor)
    with pytest.raises(InputError):
        raise refusal(data)


def test_what_is_right_in_other_words_is_taken() -> None:
    data = make_data()
    plain = made(data)
    parts: dict[str, Any] = {
        name: Images(
            pixels=part.pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), labels=part.labels
        )
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    assert not parts["train"].pixels.is_contiguous()
    other = made(
        replace(
            data,
            **parts,
            class_names=list("0123456789"),  # type: ignore[arg-type]
            mean=torch.tensor(data.mean),  # type: ignore[arg-type]
            std=np.array(data.std),  # type: ignore[arg-type]
        )
    )
    assert other.class_names == plain.class_names
    assert other.mean == pytest.approx(plain.mean)
    assert (other.name, other.hash) == (plain.name, plain.hash)
    assert made(replace(data, digest="a lie")).hash == plain.hash


def test_the_same_bytes_in_other_parts_or_shapes_are_other_data() -> None:
    data = make_data(train=40, val=20, test=20)
    moved = replace(
        data,
        train=Images(
            pixels=torch.cat([data.train.pixels, data.val.pixels[:10]]), labels=torch.zeros(50).long()
        ),
        val=Images(pixels=data.val.pixels[10:], labels=torch.zeros(10).long()),
    )
    zeros: dict[str, Any] = {
        name: replace(part, labels=torch.zeros(len(part.pixels)).long())
        for name, part in (("train", data.train), ("val", data.val))
    }
    assert replace(data, **zeros).hash != moved.hash
    reshaped = replace(data, train=replace(data.train, pixels=data.train.pixels.view(40, 3, 64, 16)))
    assert reshaped.hash != data.hash


def masks_are(masks: Any) -> Data:
    parts: dict[str, Any] = {
        name: Images(pixels=torch.zeros(4, 3, 32, 48, dtype=torch.uint8), labels=masks)
        for name in ("train", "val", "test")
    }
    return hwnas.Data(name="m", **parts, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("masks", "cause"),
    [
        (torch.zeros(4, 32, 32).long(), "masks of train are 32 × 32 pixels, the images 48 × 32"),
        (torch.zeros(4, 48, 32).long(), "masks of train are 32 × 48 pixels"),
        (torch.zeros(4, 32, 48), "masks of train are torch.float32"),
        (torch.zeros(4, 32, 48).bool(), "masks of train are torch.bool"),
        (torch.full((4, 32, 48), -1), "hold the class -1, net tells 5 apart"),
        (torch.full((4, 32, 48), 5), "hold the class 5, net tells 5 apart"),
        (torch.full((4, 32, 48), 256), "hold the class 256"),
    ],
)
def test_masks_that_do_not_lie_over_their_images(masks: torch.Tensor, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as caught:
        check_output(SEGMENTATION, torch.zeros(2, 5, 32, 48), made(masks_are(masks)), "net")
    assert caught.value.fix


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_masks_that_do(dtype: torch.dtype) -> None:
    masks = (torch.arange(4 * 32 * 48) % 5).view(4, 32, 48).to(dtype)
    masks[0] = 255
    for right in (masks, masks[:, ::2, ::2], masks[:, :11, :16]):
        check_output(SEGMENTATION, torch.zeros(2, 5, 32, 48), made(masks_are(right)), "net")


def test_a_mask_of_a_later_part_is_looked_at_too() -> None:
    data = masks_are(torch.zeros(4, 32, 48).long())
    late = torch.zeros(4, 32, 48).long()
    late[3, 5, 5] = 9
    data = replace(data, test=replace(data.test, labels=late))
    with pytest.raises(InputError, match="masks of test hold the class 9"):
        check_output(SEGMENTATION, torch.zeros(2, 5, 32, 48), data, "net")


def test_integer_values_are_targets_of_regression() -> None:
    plain: dict[str, Any] = {"class_names": (), "flip": False, "shift_px": 0}
    check_output(REGRESSION, torch.zeros(2, 1), made(replace(make_data(), **plain)), "net")
