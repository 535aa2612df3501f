"""Batches: each image once an epoch, moved and mirrored as a whole."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny import make_data
from torch import Tensor
from torch.nn import functional

from hwnas.compress.data import Data


def candidates(data: Data, image: Tensor) -> Tensor:
    """Every way in which augmentation may leave an image (C, H, W)."""
    height, width = image.shape[1:]
    found = []
    for source in (image, image.flip(2)) if data.flip else (image,):
        padded = functional.pad(source, (data.shift_px,) * 4)
        steps = range(2 * data.shift_px + 1)
        found += [padded[:, y : y + height, x : x + width] for y in steps for x in steps]
    return torch.stack(found)


def test_augmented_images_are_padded_mirrored_and_cropped() -> None:
    data = replace(make_data(train=24), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    ways = [candidates(data, image) for image in data.train.pixels]
    used = set()
    for x, _ in data.train_batches(24, 0, 0, augment=True):
        assert x.is_contiguous(memory_format=torch.channels_last)
        for image in x.round().to(torch.uint8):
            (match,) = [n for n, way in enumerate(ways) if (way == image).flatten(1).all(1).any()]
            used.add(match)
    assert used == set(range(24))


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    data = make_data()

    def epoch(seed: int, number: int) -> Tensor:
        return torch.cat([x for x, _ in data.train_batches(16, seed, number, augment=True)])

    assert torch.equal(epoch(1, 2), epoch(1, 2))
    assert not torch.equal(epoch(1, 2), epoch(1, 3))
    assert not torch.equal(epoch(1, 2), epoch(2, 2))
