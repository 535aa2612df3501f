"""Two tasks on one network, whose outputs lie in one tensor: which digit, and where its ink is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tinynet import convolution  # type: ignore[import-not-found]  # found in a furnished folder
from torch import Tensor, nn

import hwnas
from hwnas.compress.data import load_data
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.several import several


class Twofold(nn.Module):
    """Images (B, 3, 32, 32) → (B, 12): ten logits, row and column of the centre of the ink."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem = convolution(3, 16, stride=2)
        self.layer1 = nn.Sequential(convolution(16, 32, stride=2), convolution(32, 32))
        self.layer2 = nn.Sequential(convolution(32, 32, stride=2), convolution(32, 32))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 16, 12))

    def forward(self, x: Tensor) -> Tensor:
        both: Tensor = self.head(self.layer2(self.layer1(self.stem(x))))
        return both


def make() -> nn.Module:
    return Twofold()


def digits() -> hwnas.Data:
    """The digits, with their class and the centre of their ink."""
    data = load_data("digits")

    def part(images: hwnas.Images) -> hwnas.Images:
        ink, places = images.pixels[:, 0].float(), torch.arange(32) / 31
        rows, columns = ink.sum(2) @ places, ink.sum(1) @ places
        centre = torch.stack([rows, columns], 1) / ink.sum((1, 2))[:, None]
        return hwnas.Images(pixels=images.pixels, labels={"digit": images.labels, "centre": centre})

    train, val, test = map(part, (data.train, data.val, data.test))
    return hwnas.Data(name="both", train=train, val=val, test=test, mean=data.mean, std=data.std)


BOTH = several({"digit": CLASSIFICATION, "centre": REGRESSION}, weights={"centre": 10.0})


def split(output: Any) -> Any:
    return {"digit": output[:, :10], "centre": output[:, 10:]} if isinstance(output, Tensor) else output


def _apart(function: Any) -> Any:
    return lambda output, other: function(split(output), split(other))


TASK = replace(
    BOTH,
    loss=_apart(BOTH.loss),
    distill=_apart(BOTH.distill),
    score=_apart(BOTH.score),
    agreement=_apart(BOTH.agreement),
    check=lambda output, data, model: BOTH.check(split(output), data, model),
)
