"""Grey and coloured images for networks that take either."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hwnas.compress.data.dataset import Data, Pixels


def with_channels(data: Data, channels: int) -> Data:
    """Grey data for a network of one or of three channels: three equal ones are one.

    Other data stay as they are.
    """
    parts = [data.train, data.val, data.test]
    own = {image.shape[0] for part in parts for image in part.pixels[:1]}
    if own == {1} and channels == 3:
        change, statistics = _as_three, (data.mean * 3, data.std * 3)
    elif own == {3} and channels == 1 and all(_is_grey(part.pixels) for part in parts):
        change, statistics = _as_one, (data.mean[:1], data.std[:1])
    else:
        return data
    train, val, test = (
        replace(
            part,
            pixels=change(part.pixels)
            if isinstance(part.pixels, Tensor)
            else tuple(map(change, part.pixels)),
        )
        for part in parts
    )
    return replace(data, train=train, val=val, test=test, mean=statistics[0], std=statistics[1])


def _as_three(pixels: Tensor) -> Tensor:
    return pixels.expand(*pixels.shape[:-3], 3, -1, -1)


def _as_one(pixels: Tensor) -> Tensor:
    return pixels[..., :1, :, :]


def _is_grey(pixels: Pixels) -> bool:
    images = [pixels] if isinstance(pixels, Tensor) else pixels
    return all(
        torch.equal(each[..., channel, :, :], each[..., 0, :, :]) for each in images for channel in (1, 2)
    )
