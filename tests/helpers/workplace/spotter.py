"""A detector of one level, which gives one map: logits of two classes at nine anchors, and their boxes."""

from __future__ import annotations

import torch
from tinynet import convolution  # type: ignore[import-not-found]  # found in a furnished folder
from torch import Tensor, nn

from hwnas.compress.tasks.anchors import anchor_loss, anchors, decoded
from hwnas.compress.tasks.detection import Maps, all_rows, best_boxes, detection

CLASSES, ANCHORS, SIZE = 2, 9, 1.5


class Spotter(nn.Module):
    """Images (B, 3, 64, 64) → (B, 9 · (2 + 4), 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 64, 64)
        self.stem = convolution(3, 16, stride=2)
        self.stages = nn.Sequential(
            nn.Sequential(convolution(16, 32, stride=2), convolution(32, 32)),
            nn.Sequential(convolution(32, 32, stride=2), convolution(32, 32)),
        )
        self.head = nn.Conv2d(32, ANCHORS * (CLASSES + 4), 1)
        nn.init.constant_(self.head.bias[: ANCHORS * CLASSES], -4.0)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.head(self.stages(self.stem(x)))
        return maps


def make() -> nn.Module:
    return Spotter()


def maps(output: Tensor) -> Maps:
    return [output[:, : ANCHORS * CLASSES]], [output[:, ANCHORS * CLASSES :]]


def decode(output: Tensor) -> Tensor:
    levels = maps(output)
    logits, codes = all_rows(levels)
    return best_boxes(logits.sigmoid(), decoded(codes, anchors(levels[0], SIZE)), (64.0, 64.0))


def loss(output: Tensor, targets: Tensor) -> Tensor:
    levels = maps(output)
    return anchor_loss(*all_rows(levels), anchors(levels[0], SIZE), targets)


DETECTION = detection(decode=decode, loss=loss, maps=maps)
BLIND = detection(decode=None, maps=maps)


def targets_of(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Red and blue squares on grey: pixels (N, 3, 64, 64) uint8, boxes (N, 3, 5)."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(100, 156, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)
    boxes = torch.full((count, 3, 5), -1.0)
    for image in range(count):
        for row in range(int(torch.randint(1, 3, (1,), generator=generator))):
            left, top, side, kind = (
                int(torch.randint(low, high, (1,), generator=generator))
                for low, high in ((0, 40), (0, 40), (10, 22), (0, 2))
            )
            area = pixels[image, :, top : top + side, left : left + side]
            area[:] = 0
            area[0 if kind == 0 else 2] = 255
            boxes[image, row] = torch.tensor([left, top, left + side, top + side, kind])
    return pixels, boxes
