"""One image of any kind to uint8 pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.compress.data.images import is_image, to_pixels

RED, WHITE = [255, 0, 0], [255, 255, 255]


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def corner(raw: bytes | Image.Image) -> list[int]:
    pixels = to_pixels(raw, 4, "RGB")
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == np.uint8
    found: list[int] = pixels[:, 0, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 7, [7, 7, 7]),
        ("LA", (7, 255), [7, 7, 7]),
        ("LA", (7, 0), WHITE),
        ("RGB", (255, 0, 0), RED),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 51), [255, 204, 204]),
        ("1", 1, WHITE),
        ("I;16", 0xABCD, [0xAB] * 3),
        ("I;16", 0xFF00, WHITE),
    ],
)
def test_png_modes(mode: str, colour: int | tuple[int, ...], expected: list[int]) -> None:
    assert corner(png(Image.new(mode, (4, 4), colour))) == expected


def test_cmyk_is_a_photograph_for_printing() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(buffer, "JPEG", quality=100)
    assert np.abs(np.array(corner(buffer.getvalue())) - RED).max() <= 3


def test_a_palette_may_have_a_transparent_colour() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    assert corner(png(image)) == RED
    assert corner(png(image, transparency=1)) == WHITE
    grey = Image.new("RGB", (4, 4), (5, 5, 5))
    assert corner(png(grey, transparency=(5, 5, 5))) == WHITE


def test_the_orientation_of_a_photograph_is_respected() -> None:
    image = Image.new("RGB", (4, 4))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    pixels = to_pixels(png(image, exif=exif), 4, "RGB")
    assert pixels[0, 0].tolist() == [0, 0, 0, 255]
    assert pixels[0, 1:].max() == 0


@pytest.mark.parametrize("shape", [(12, 4), (4, 12)])
def test_the_centre_is_taken_at_the_scale_of_the_shorter_side(shape: tuple[int, int]) -> None:
    pixels = np.zeros((shape[1], shape[0], 3), dtype=np.uint8)
    pixels[shape[1] // 2 - 2 : shape[1] // 2 + 2, shape[0] // 2 - 2 : shape[0] // 2 + 2] = 255
    image = Image.fromarray(pixels)
    assert to_pixels(image, 4, "RGB").min() == 255
    assert to_pixels(image, 8, "RGB")[:, 3:5, 3:5].min() == 255


def test_pixels_of_the_right_size_stay_what_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert (to_pixels(png(Image.fromarray(pixels)), 9, "RGB") == pixels.transpose(2, 0, 1)).all()
    assert (to_pixels(png(Image.fromarray(pixels[:, :, 0])), 9, "L") == pixels[None, :, :, 0]).all()


def test_hidden_files_are_no_images() -> None:
    assert is_image("a/b.JPG")
    assert not any(map(is_image, ("a/.b.jpg", ".a/b.jpg", "__MACOSX/b.jpg", "b.txt", "jpg")))


def test_a_file_and_its_content_give_the_same(tmp_path: Path) -> None:
    content = png(Image.effect_noise((20, 30), 90))
    (tmp_path / "a.png").write_bytes(content)
    assert (to_pixels(tmp_path / "a.png", 8, "RGB") == to_pixels(content, 8, "RGB")).all()
