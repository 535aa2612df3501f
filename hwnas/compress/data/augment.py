"""Images that are mirrored and moved for training, and boxes with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NO_BOX = -1.0


@dataclass(frozen=True, kw_only=True)
class Moves:
    """What is done to each image of a batch.

    Attributes:
        mirrored: left and right change places; before it is moved.
        offsets: by which it is moved, pixels down and to the right.
    """

    mirrored: list[bool]
    offsets: list[tuple[int, int]]

    @staticmethod
    def draw(count: int, shift_px: int, generator: torch.Generator, *, flip: bool) -> Moves:
        """Mirror every second image, where `flip` is set, and move each by up to `shift_px` pixels."""
        mirrored = (torch.rand(count, generator=generator) < 0.5).tolist() if flip else [False] * count
        drawn = torch.randint(0, 2 * shift_px + 1, (count, 2), generator=generator).tolist()
        return Moves(mirrored=mirrored, offsets=[(shift_px - y, shift_px - x) for y, x in drawn])

    def images(self, pixels: Tensor) -> Tensor:
        """Move images (B, C, H, W); what moves in is black."""
        moved = torch.zeros_like(pixels)
        for image, target, mirror, (down, right) in zip(
            pixels, moved, self.mirrored, self.offsets, strict=True
        ):
            source = image.flip(2) if mirror else image
            (to_y, from_y), (to_x, from_x) = _overlap(down), _overlap(right)
            target[:, to_y, to_x] = source[:, from_y, from_x]
        return moved

    def boxes(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Move boxes (B, K, 5) with their images: left, top, right, bottom in pixels, class; −1 fills.

        They end where the image does; of those that are outside nothing is left.
        """
        left, top, right, bottom, kind = boxes.unbind(2)
        mirrored = torch.tensor(self.mirrored)[:, None]
        left, right = torch.where(mirrored, width - right, left), torch.where(mirrored, width - left, right)
        down, across = (torch.tensor(each)[:, None] for each in zip(*self.offsets, strict=True))
        x = [(side + across).clamp(0, width) for side in (left, right)]
        y = [(side + down).clamp(0, height) for side in (top, bottom)]
        moved = torch.stack([x[0], y[0], x[1], y[1], kind], 2)
        is_there = (kind >= 0) & (x[0] < x[1]) & (y[0] < y[1])
        return torch.where(is_there[:, :, None], moved, NO_BOX)


def is_boxes(targets: object) -> bool:
    """Whether targets are boxes (N, K, 5) and nothing else."""
    return (
        isinstance(targets, Tensor)
        and targets.ndim == 3
        and targets.shape[2] == 5
        and targets.is_floating_point()
    )


def _overlap(offset: int) -> tuple[slice, slice]:
    """Where something moved by `offset` pixels lands, and which part of it still does."""
    if offset > 0:
        return slice(offset, None), slice(None, -offset)
    return slice(None, offset or None), slice(-offset, None)
