"""Networks from image to image: for grey images, and as waifu2x's, which enlarges by two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import hwnas


class Denoiser(nn.Module):
    """Grey images (B, 1, H, W) in 0 … 1 and noise → the images."""

    def __init__(self, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.input_shape = (1, 32, 32)
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
                for _ in range(blocks)
            )
        )
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.head(self.stages(self.stem(x)))
        return image


class Enlarger(nn.Module):
    """RGB (B, 3, H, W) in 0 … 1 → (B, 3, 2H, 2W): convolutions and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 16, 16)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.1))
        self.stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.LeakyReLU(0.1)),
        )
        self.head = nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.head(self.stages(self.stem(x)))
        return image


def denoiser() -> nn.Module:
    return Denoiser()


def enlarger() -> nn.Module:
    return Enlarger()


def silent() -> nn.Module:
    """A denoiser that does not say what it takes."""
    module = Denoiser()
    del module.input_shape
    return module


def _smooth(count: int, channels: int, size: tuple[int, int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    image = functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return image.mul(255).round().to(torch.uint8)


def several_sizes() -> hwnas.Data:
    """Grey images without targets; those of the test part have two sizes."""
    return _of_sizes(1, [(40, 24), (24, 40), (40, 24)])


def odd_sizes() -> hwnas.Data:
    """Colour images of which one cannot be made half as large."""
    return _of_sizes(3, [(32, 32), (41, 25)])


def _of_sizes(channels: int, sizes: list[tuple[int, int]]) -> hwnas.Data:
    train, val = (
        hwnas.Images(pixels=_smooth(count, channels, (32, 32), count), labels=None) for count in (32, 16)
    )
    test = [_smooth(1, channels, size, number)[0] for number, size in enumerate(sizes)]
    images = hwnas.Images(pixels=test, labels=None)
    plain = (0.0,) * channels, (1.0,) * channels
    return hwnas.Data(name="sizes", train=train, val=val, test=images, mean=plain[0], std=plain[1])
