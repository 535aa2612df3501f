"""Tasks on real images that do not classify them: which digit each pixel is ink of, and where the ink is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from tinynet import convolution  # type: ignore[import-not-found]  # found in a furnished folder
from torch import Tensor, nn

import hwnas
from hwnas.compress.data import load_data
from hwnas.compress.tasks.regression import REGRESSION

CLASSES = 11  # the background and ten digits
INK = 100  # grey level


class Mapper(nn.Module):
    """Images (B, 3, 32, 32) → logits (B, 11, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem = convolution(3, 16, stride=2)
        self.stages = nn.Sequential(
            nn.Sequential(convolution(16, 32, stride=2), convolution(32, 32)),
            nn.Sequential(convolution(32, 32), convolution(32, 32)),
        )
        self.head = nn.Sequential(nn.Conv2d(32, CLASSES, 1), nn.Upsample(scale_factor=2, mode="nearest"))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(x)))
        return logits


class Finder(nn.Module):
    """Images (B, 3, 32, 32) → the centre of the ink (B, 2) in 0 … 1."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem = convolution(3, 16, stride=2)
        self.layer1 = nn.Sequential(convolution(16, 32, stride=2), convolution(32, 32))
        self.layer2 = nn.Sequential(convolution(32, 32, stride=2), convolution(32, 32))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 16, 2))

    def forward(self, x: Tensor) -> Tensor:
        centre: Tensor = self.head(self.layer2(self.layer1(self.stem(x))))
        return centre


def mapper() -> nn.Module:
    return Mapper()


def finder() -> nn.Module:
    return Finder()


def masks() -> hwnas.Data:
    """The digits; each pixel of ink has its digit's class."""
    return _relabelled(lambda images: torch.where(_ink(images) > INK, _labels(images)[:, None, None] + 1, 0))


def centres() -> hwnas.Data:
    """The digits; rows and columns of the centre of the ink."""

    def centre(images: hwnas.Images) -> Tensor:
        ink, places = _ink(images).float(), torch.arange(32) / 31
        rows, columns = ink.sum(2) @ places, ink.sum(1) @ places
        return torch.stack([rows, columns], 1) / ink.sum((1, 2))[:, None]

    return _relabelled(centre)


def _ink(images: hwnas.Images) -> Tensor:
    ink: Tensor = images.pixels[:, 0]
    return ink


def _labels(images: hwnas.Images) -> Tensor:
    assert isinstance(images.labels, Tensor)
    return images.labels


def _relabelled(make: Callable[[hwnas.Images], Tensor]) -> hwnas.Data:
    data = load_data("digits")
    train, val, test = (
        hwnas.Images(pixels=part.pixels, labels=make(part)) for part in (data.train, data.val, data.test)
    )
    return hwnas.Data(name="ink", train=train, val=val, test=test, mean=data.mean, std=data.std)


def no_data() -> int:
    return 3


def unequal() -> hwnas.Data:
    data = centres()
    return replace(data, train=replace(data.train, labels=data.train.labels[:-1]))


def median_error() -> None:
    raise RuntimeError("never called")


OWN = replace(REGRESSION, name="finding the ink")
MISSES = replace(OWN, metric=hwnas.Metric(name="share of misses", share=True, higher_is_better=False))
