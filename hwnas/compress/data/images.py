"""One image file to one array of uint8, whatever its mode, size and orientation."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hwnas.files import LFS_POINTER

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What a file may hold, whatever its name ends in; Pillow's others run programs or are no photographs."""

GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
COLOURS = ("1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
"""Pillow's modes of 8 bits a channel that it converts to RGB."""

PACKED_GREY = {"L;2": 3, "L;4": 15}
"""Grey pixels of less than 8 bits as PNG files hold them, and their highest value."""

TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_SAMPLE_FORMAT = 258, 262, 339
TIFF_WHITE_IS_ZERO = 0

HEAD_BYTES = 64

Mode = Literal["L", "RGB"]


class Fit(NamedTuple):
    """How an image becomes a square.

    kind: `cut` scales the shorter side and cuts out the centre, `pad` scales the longer side and fills up
        with black at the right or the bottom, `crop` cuts out the centre without scaling.
    grid: of `crop`, the place of the cut is a multiple of so many pixels.
    """

    kind: Literal["cut", "pad", "crop"] = "cut"
    grid: int = 1


CUT, CROP = Fit(), Fit("crop")

Raw = Path | bytes | Image.Image
"""A file, the content of one, or an image that is decoded already."""


def is_image(name: str) -> bool:
    """Whether a path inside of a folder or archive is an image's, hidden files and folders apart."""
    return name.lower().endswith(SUFFIXES) and not any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/")
    )


def to_pixels(raw: Raw, size: int | None, mode: Mode, fit: Fit = CUT) -> np.ndarray:
    """Decode an image: turned as its EXIF says, and made a square of `size` pixels.

    Transparent parts become white, 9 … 16 bits a channel become 8, of a file's frames the first is taken.

    Args:
        size: None leaves the image at its own.
        fit: how it becomes a square.

    Returns:
        (C, H, W) uint8, C 1 or 3 by the mode.

    Raises:
        Exception: whatever Pillow raises for what it cannot decode, and ValueError for what is no image and
            for pixels of a kind whose range or colours are not known.
    """
    # What somebody else opened stays open.
    with nullcontext(raw) if isinstance(raw, Image.Image) else _opened(raw) as opened:
        _check_kind(opened)
        key = _transparent_grey(opened)
        upright = ImageOps.exif_transpose(opened)
        if key is not None:
            upright.info["transparency"] = key
        image = _fit(_flat(upright, opened).convert(mode), size, fit)
    array = np.asarray(image)
    return np.ascontiguousarray(array[None] if mode == "L" else array.transpose(2, 0, 1))


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _opened(raw: Path | bytes) -> Image.Image:
    try:
        return Image.open(raw if isinstance(raw, Path) else io.BytesIO(raw), formats=_formats())
    except UnidentifiedImageError:
        raise ValueError(_no_image(raw)) from None


def _no_image(raw: Path | bytes) -> str:
    head = raw[:HEAD_BYTES] if isinstance(raw, bytes) else _head(raw)
    if not head:
        return "an empty file"
    if head.startswith(LFS_POINTER):
        return "a Git LFS pointer, its image was never fetched: git lfs pull"
    return "no image, or pixels of a kind that is not read"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _check_kind(image: Image.Image) -> None:
    """Refuse pixels that would become 8 bits by a guess. Raises ValueError that names their kind."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    layout = _layout(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known; save them with 8 or 16 bits")
    if image.mode in GREY_16:
        return
    if image.mode == "I" and image.format == "PPM":  # Pillow brings its 16 bits to 0 … 65,535
        return
    if image.mode.startswith("I"):
        raise ValueError("signed or 32-bit pixels, whose range is not known; save them with 8 or 16 bits")
    if set(tags.get(TIFF_SAMPLE_FORMAT, (1,))) - {1}:
        raise ValueError("signed pixels, whose range is not known; save them as unsigned ones")
    if image.mode not in COLOURS:
        raise ValueError(f"pixels in {image.mode}, which have no exact RGB; save them as RGB")
    key = image.info.get("transparency") if image.mode == "RGB" else None
    if isinstance(key, tuple) and (";16" in layout or (not layout and max(key) > 255)):
        raise ValueError("a transparent colour of 16 bits a channel; save the image with an alpha channel")


def _layout(image: Image.Image) -> str:
    """How a file holds its pixels, in Pillow's words; empty once they have been read."""
    return str(image.tile[0].args) if isinstance(image, ImageFile.ImageFile) and image.tile else ""


def _transparent_grey(image: Image.Image) -> int | None:
    """The transparent value of a grey PNG of 2 or 4 bits, whose pixels Pillow brings to 0 … 255; else None.

    Raises:
        ValueError: the image has been read before, and nothing says of how many bits the value is.
    """
    key = image.info.get("transparency")
    if image.mode != "L" or not isinstance(key, int):
        return None
    if (layout := _layout(image)) in PACKED_GREY:
        highest = PACKED_GREY[layout]
        return (key & highest) * (255 // highest)
    if not layout and 0 < key < 16:
        values = np.asarray(image)
        as_stored = [key * (255 // highest) for highest in PACKED_GREY.values() if key <= highest]
        if not (values % 17).any() and np.isin(values, as_stored).any():
            raise ValueError(
                "a transparent grey of a number of bits that is not known any more; give the image as "
                "Image.open returns it, or convert the file to RGBA"
            )
    return None


def _flat(image: Image.Image, opened: Image.Image) -> Image.Image:
    """8 bits a channel and nothing transparent. opened: the image before it was turned, with its tags."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int32)
        transparent = values == image.info.get("transparency", -1)
        tags: Mapping[int, Any] = getattr(opened, "tag_v2", {})
        values <<= 16 - tags.get(TIFF_BITS, (16,))[0]
        seen = values[~transparent]
        if seen.any() and seen.max() < 256:
            raise ValueError(
                f"pixels of 16 bits whose highest is {seen.max()} of 65,535: black; save them with 8 "
                "bits, or stretched to 0 … 65,535"
            )
        if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:
            values = 65535 - values
        return Image.fromarray(np.where(transparent, 255, values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _fit(image: Image.Image, size: int | None, fit: Fit) -> Image.Image:
    if size is None or image.size == (size, size):
        return image
    width, height = image.size
    if fit.kind == "pad":
        scaled = tuple(max(1, round(side * size / max(width, height))) for side in (width, height))
        square = Image.new(image.mode, (size, size))
        square.paste(image.resize((scaled[0], scaled[1]), Image.Resampling.BICUBIC))
        return square
    if fit.kind == "crop":
        if min(width, height) < size:
            raise ValueError(f"{width} × {height} pixels, {size} × {size} are cut out of each image")
        left, top = ((side - size) // (2 * fit.grid) * fit.grid for side in (width, height))
        return image.crop((left, top, left + size, top + size))
    # `fit` scales the square in the middle, which is what scaling the shorter side and cutting gives.
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
