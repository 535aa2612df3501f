"""Whole networks of the blocks in `reference_blocks`: EDSR, NAFNet, and one with three heads as YOLOP's."""

from __future__ import annotations

import torch
from reference_blocks import C3, EdsrBlock, NafBlock
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE = (3, 32, 32)


class Edsr(nn.Module):
    """Lim et al. 2017, figure 3: residual blocks with a skip around all of them, an end that enlarges."""

    def __init__(self, width: int = 16, blocks: int = 6) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            *(EdsrBlock(width, 1.0) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)
        )
        enlarge = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.tail = nn.Sequential(enlarge, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        larger: Tensor = self.tail(self.body(y) + y)
        return larger


class NafNet(nn.Module):
    """Chen et al. 2022, section 3: gated blocks down and up again, sums in the place of concatenations."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.intro, self.ending = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        widths = (width, 2 * width)
        self.encoders = nn.ModuleList(nn.Sequential(NafBlock(each), NafBlock(each)) for each in widths)
        self.downs = nn.ModuleList(nn.Conv2d(each, 2 * each, 2, 2) for each in widths)
        self.middle = nn.Sequential(NafBlock(4 * width), NafBlock(4 * width))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * each, 4 * each, 1, bias=False), nn.PixelShuffle(2))
            for each in reversed(widths)
        )
        self.decoders = nn.ModuleList(nn.Sequential(NafBlock(each)) for each in reversed(widths))

    def forward(self, x: Tensor) -> Tensor:
        y, kept = self.intro(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            y = encoder(y)
            kept.append(y)
            y = down(y)
        y = self.middle(y)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(kept), strict=True):
            y = decoder(up(y) + skip)
        restored: Tensor = self.ending(y) + x
        return restored


class Yolop(nn.Module):
    """As YOLOP: a backbone of CSP blocks, a pyramid of two levels, boxes on both, two maps of the road."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.enter = nn.Conv2d(3, width, 3, 2, 1)
        self.c2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), C3(2 * width, 2 * width, 2))
        self.c3 = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), C3(4 * width, 4 * width, 2))
        self.neck, self.top = nn.Conv2d(4 * width, 2 * width, 1), C3(4 * width, 2 * width, 1)
        self.down = nn.Conv2d(2 * width, 2 * width, 3, 2, 1)
        self.bottom = C3(4 * width, 4 * width, 1)
        self.boxes = nn.ModuleList(nn.Conv2d(each, 18, 1) for each in (2 * width, 4 * width))
        self.drivable, self.lanes = (
            nn.Sequential(C3(2 * width, width, 1), nn.Conv2d(width, 2, 3, padding=1)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> list[object]:
        fine = self.c2(self.enter(x))
        neck = self.neck(self.c3(fine))
        top = self.top(torch.cat([F.interpolate(neck, scale_factor=2.0), fine], 1))
        bottom = self.bottom(torch.cat([self.down(top), neck], 1))
        boxes = [head(y) for head, y in zip(self.boxes, (top, bottom), strict=True)]
        roads = [F.interpolate(road(top), size=x.shape[2:]) for road in (self.drivable, self.lanes)]
        return [boxes, *roads]
