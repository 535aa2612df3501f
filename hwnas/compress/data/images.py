"""One image file to one array of uint8, whatever its mode, size and orientation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

Mode = Literal["L", "RGB"]

Raw = Path | bytes | Image.Image
"""A file, the content of one, or an image that is decoded already."""


def is_image(name: str) -> bool:
    """Whether a path inside of a folder or archive is an image's, hidden files and folders apart."""
    return name.lower().endswith(SUFFIXES) and not any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/")
    )


def to_pixels(raw: Raw, size: int, mode: Mode) -> np.ndarray:
    """Decode an image: turned as its EXIF says, its shorter side resized to `size`, the centre cut out.

    Transparent parts become white, 16 bits a channel become 8, of an animation the first frame is taken.

    Returns:
        (C, size, size) uint8, C 1 or 3 by the mode.

    Raises:
        Exception: whatever Pillow raises for what it cannot decode, and ValueError for floating-point pixels.
    """
    with _opened(raw) as opened:
        image = _fit(_flat(ImageOps.exif_transpose(opened)).convert(mode), size)
    array = np.asarray(image)
    return np.ascontiguousarray(array[None] if mode == "L" else array.transpose(2, 0, 1))


def _opened(raw: Raw) -> Image.Image:
    if isinstance(raw, Image.Image):
        return raw
    return Image.open(raw if isinstance(raw, Path) else io.BytesIO(raw))


def _flat(image: Image.Image) -> Image.Image:
    """8 bits a channel and nothing transparent."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _fit(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    # `fit` scales the square in the middle, which is what scaling the shorter side and cutting gives.
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
