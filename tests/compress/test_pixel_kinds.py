"""Pixels of every kind that files hold: converted as computed independently, or refused with the kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from handmade import (
    ALPHA,
    BLACK_IS_ZERO,
    COLOURS,
    REFUSED,
    SEPARATED,
    SIDE,
    WHITE_IS_ZERO,
    png,
    random_values,
    tiff,
)
from hypothesis import given
from hypothesis import strategies as st
from pictures import load, pictures
from PIL import Image

from hwnas.compress.data.images import Mode, to_pixels
from hwnas.errors import InputError


def expected_of(values: np.ndarray, bits: int) -> np.ndarray:
    """(C, H, W) of 0 … 255 by real numbers: L and RGB, with alpha over white."""
    share = values.astype(np.float64) / (2**bits - 1)
    channels = values.shape[2]
    if channels in (2, 4):
        share = share[..., :-1] * share[..., -1:] + (1 - share[..., -1:])
    return np.broadcast_to(share * 255, (SIDE, SIDE, 3)).transpose(2, 0, 1)


def assert_close(raw: bytes | Image.Image, expected: np.ndarray) -> None:
    found = to_pixels(raw, SIDE, "RGB")
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1.5  # cut off or rounded, once or twice


PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


@given(st.integers(0, 2**16), st.sampled_from([1, 2, 3, 4]), st.sampled_from([8, 16]))
def test_png_of_8_and_16_bits(seed: int, channels: int, bits: int) -> None:
    values = random_values(seed, channels, bits)
    assert_close(png(values, PNG_COLOUR_TYPES[channels]), expected_of(values, bits))


@given(st.integers(0, 2**16), st.sampled_from([1, 2, 3, 4]), st.sampled_from([8, 16]))
def test_tiff_of_8_and_16_bits(seed: int, channels: int, bits: int) -> None:
    if (channels, bits) == (2, 16):
        return  # Pillow does not read it
    values = random_values(seed, channels, bits)
    extra = ALPHA if channels in (2, 4) else 0
    photometric = BLACK_IS_ZERO if channels < 3 else COLOURS
    raw = tiff(values.astype(f"<u{bits // 8}").tobytes(), [bits] * channels, photometric, extra=extra)
    assert_close(raw, expected_of(values, bits))


@given(st.integers(0, 2**16), st.sampled_from([8, 16]))
def test_tiff_whose_zero_is_white(seed: int, bits: int) -> None:
    values = random_values(seed, 1, bits)
    raw = tiff(values.astype(f"<u{bits // 8}").tobytes(), [bits], WHITE_IS_ZERO)
    assert_close(raw, 255 - expected_of(values, bits))


@given(st.integers(0, 2**16))
def test_tiff_of_12_bits(seed: int) -> None:
    values = random_values(seed, 1, 12)
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    assert_close(tiff(packed.astype(np.uint8).tobytes(), [12], BLACK_IS_ZERO), expected_of(values, 12))


@given(st.integers(0, 2**16), st.sampled_from([100, 255, 1023, 4095, 65535]), st.sampled_from([1, 3]))
def test_portable_maps_of_any_maximum(seed: int, maximum: int, channels: int) -> None:
    values = np.random.default_rng(seed).integers(0, maximum + 1, (SIDE, SIDE, channels))
    header = f"P{5 if channels == 1 else 6} {SIDE} {SIDE} {maximum}\n".encode()
    raw = header + values.astype("u1" if maximum < 256 else ">u2").tobytes()
    expected = np.broadcast_to(values / maximum * 255, (SIDE, SIDE, 3)).transpose(2, 0, 1)
    assert_close(raw, expected)


@given(st.integers(0, 2**16), st.sampled_from([1, 2, 4, 8, 16]))
def test_one_transparent_grey(seed: int, bits: int) -> None:
    values = random_values(seed, 1, bits)
    chosen = values[1, 2, 0]
    expected = expected_of(values, bits).copy()
    expected[:, values[..., 0] == chosen] = 255
    assert_close(png(values, 0, [int(chosen)], bits), expected)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_grey_of_unknown_bits_is_refused(bits: int) -> None:
    values = random_values(0, 1, bits)
    image = Image.open(io.BytesIO(png(values, 0, [1], bits)))
    image.load()  # Pillow forgets the bits
    with pytest.raises(ValueError, match="number of bits that is not known"):
        to_pixels(image, SIDE, "RGB")


def test_a_transparent_colour_of_unknown_bits_is_refused() -> None:
    image = Image.open(io.BytesIO(png(random_values(0, 3, 16), 2, [300, 7, 7])))
    image.load()
    with pytest.raises(ValueError, match="transparent colour of 16 bits"):
        to_pixels(image, SIDE, "RGB")


@given(st.integers(1, 255), st.sampled_from([WHITE_IS_ZERO, BLACK_IS_ZERO]))
def test_16_bits_that_would_become_black_are_refused(highest: int, photometric: int) -> None:
    values = np.full((SIDE, SIDE, 1), highest, dtype=np.uint16)
    for raw in (
        png(values, 0),
        tiff(values.astype("<u2").tobytes(), [16], photometric),
        Image.fromarray(values[..., 0]),
    ):
        with pytest.raises(ValueError, match=f"whose highest is {highest} of 65,535"):
            to_pixels(raw, SIDE, "RGB")
    assert_close(png(values * 0, 0), np.zeros((3, SIDE, SIDE)))


def test_an_image_that_somebody_opened_stays_open() -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    image = Image.open(buffer)
    for frame in (0, 1):
        image.seek(frame)
        found = to_pixels(image, SIDE, "RGB")
        assert (found == np.asarray(frames[frame]).transpose(2, 0, 1)).all()
    assert "transparency" not in image.info


@given(st.sampled_from([(3, 5), (5, 3), (4, 4)]), st.sampled_from(["RGB", "L"]))
def test_an_image_without_a_wanted_size_keeps_its_own(size: tuple[int, int], mode: Mode) -> None:
    noise = Image.effect_noise(size, 90)
    found = to_pixels(noise, None, mode)
    assert (found == np.asarray(noise)).all()
    assert found.shape == (1 if mode == "L" else 3, size[1], size[0])


@given(st.integers(0, 2**16))
def test_inks_of_a_tiff(seed: int) -> None:
    inks = random_values(seed, 4, 8)
    share = inks / 255
    expected = ((1 - share[..., :3]) * (1 - share[..., 3:]) * 255).transpose(2, 0, 1)
    assert_close(tiff(inks.tobytes(), [8] * 4, SEPARATED), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L", "LA", "I;16", "RGB", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_every_orientation_of_every_kind(orientation: int, kind: str, suffix: str) -> None:
    """As the EXIF standard has it: which side of the photograph the first row and column are."""
    if (kind, suffix) == ("CMYK", "PNG"):
        pytest.skip("no such file")
    image = Image.effect_noise((SIDE, SIDE), 90)
    if kind == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    image = image if kind == "I;16" else image.convert("RGB").convert(kind)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, suffix, exif=exif)
    upright = io.BytesIO()
    image.save(upright, suffix)
    stored = to_pixels(upright.getvalue(), SIDE, "RGB")
    turned = {
        1: stored,
        2: stored[:, :, ::-1],
        3: stored[:, ::-1, ::-1],
        4: stored[:, ::-1],
        5: stored.transpose(0, 2, 1),
        6: stored.transpose(0, 2, 1)[:, :, ::-1],
        7: stored.transpose(0, 2, 1)[:, ::-1, ::-1],
        8: stored.transpose(0, 2, 1)[:, ::-1],
    }
    assert (to_pixels(buffer.getvalue(), SIDE, "RGB") == turned[orientation]).all()


@pytest.mark.parametrize("suffix", ["GIF", "TIFF", "PNG", "WEBP", "MPO"])
def test_the_first_of_several_frames_is_taken(suffix: str) -> None:
    colours = ["red", "blue", "lime"]
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in colours]
    buffer = io.BytesIO()
    frames[0].save(buffer, suffix, save_all=True, append_images=frames[1:])
    found = to_pixels(buffer.getvalue(), SIDE, "RGB").astype(int)
    assert np.abs(found - np.array([255, 0, 0])[:, None, None]).max() <= 5


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_whose_range_or_colours_are_not_known_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, kind = REFUSED[name]
    folder = pictures(tmp_path / "d", "cat", "dog", count=4)
    (folder / "cat" / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(folder, SIDE)
    assert f"1 of 9 images cannot be read: cat/{name}: " in caught.value.cause
    assert kind in caught.value.cause
    assert f"d/cat/{name}" in caught.value.fix


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_decoded_images_of_these_kinds_are_refused_too(mode: str) -> None:
    with pytest.raises(ValueError, match=r"range is not known|LAB"):
        to_pixels(Image.new(mode, (SIDE, SIDE)), SIDE, "RGB")


def test_hsv_is_converted() -> None:
    red = np.zeros((3, SIDE, SIDE))
    red[0] = 255
    assert_close(Image.new("HSV", (SIDE, SIDE), (0, 255, 255)), red)
