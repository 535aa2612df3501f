"""Boxes are mirrored and moved with their images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_data
from torch import Tensor

from hwnas.compress.data import Images
from hwnas.compress.data.augment import Moves, is_boxes
from hwnas.compress.data.stored import load_stored, store_data
from hwnas.errors import InputError

SIDE = 24


def painted(boxes: Tensor) -> Tensor:
    """Images (B, 1, SIDE, SIDE) that are 255 where their only box is."""
    pixels = torch.zeros(len(boxes), 1, SIDE, SIDE, dtype=torch.uint8)
    for image, row in zip(pixels, boxes[:, 0].long().tolist(), strict=True):
        left, top, right, bottom, _ = row
        image[:, top:bottom, left:right] = 255
    return pixels


def drawn(numbers: list[tuple[int, int, int, int]]) -> Tensor:
    rows = [(x, y, x + w, y + h, 1) for x, y, w, h in numbers]
    fill = [(-1,) * 5] * len(rows)
    return torch.tensor(list(zip(rows, fill, strict=True))).float()


@given(
    st.lists(st.tuples(*[st.integers(0, 15)] * 2, *[st.integers(1, 8)] * 2), min_size=1, max_size=6),
    st.integers(0, SIDE - 1),
    st.integers(0, 1000),
    st.booleans(),
)
@settings(deadline=None)
def test_a_box_is_where_its_pixels_are(numbers: Any, shift: int, seed: int, flip: bool) -> None:
    boxes = drawn(numbers)
    moves = Moves.draw(len(boxes), shift, torch.Generator().manual_seed(seed), flip=flip)
    pixels, moved = moves.images(painted(boxes)), moves.boxes(boxes, SIDE, SIDE)
    assert bool((moved[:, 1] == -1).all())
    for image, box in zip(pixels, moved[:, 0], strict=True):
        if not bool(image.any()):
            assert box.tolist() == [-1] * 5
            continue
        rows, columns = (image[0].any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, 1]


def test_training_is_given_boxes_of_moved_images() -> None:
    boxes = drawn([(3, 5, 4, 6)] * 32)
    images = Images(pixels=painted(boxes).expand(-1, 3, -1, -1).clone(), labels=boxes)
    data = replace(make_data(), train=images, val=images, test=images, class_names=(), flip=True, shift_px=4)
    data = load_stored(store_data(data))
    whole = set()
    for x, found in data.train_batches(8, 0, 0, augment=True):
        assert is_boxes(found)
        for image, box in zip(x, found[:, 0].long().tolist(), strict=True):
            left, top, right, bottom, _ = box
            painted_there = image[0] == image[0].max()
            assert bool(painted_there[top:bottom, left:right].all())
            assert int(painted_there.sum()) == (right - left) * (bottom - top)
            whole.add(tuple(box))
    assert len(whole) > 16
    (_, plain), *_ = data.train_batches(8, 0, 0, augment=False)
    assert torch.equal(plain, boxes[:8])
    (_, judged), *_ = data.batches(data.test, 8)
    assert torch.equal(judged, boxes[:8])


def test_other_targets_still_do_not_move() -> None:
    masks = Images(pixels=torch.zeros(8, 3, 16, 16, dtype=torch.uint8), labels=torch.zeros(8, 16, 16).long())
    data = replace(make_data(), train=masks, val=masks, test=masks, class_names=(), flip=True, shift_px=0)
    with pytest.raises(InputError, match="no classes or boxes do not move"):
        store_data(data)
