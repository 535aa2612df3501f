"""Pixels of every kind that files hold: converted as computed independently, or refused with the kind."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import load, pictures
from PIL import Image

from hwnas.compress.data.images import Mode, to_pixels
from hwnas.errors import InputError

SIDE = 4
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS, SEPARATED, LAB = 0, 1, 2, 5, 8
ALPHA = 2


def packed(values: np.ndarray, bits: int) -> bytes:
    """Values of 1 … 16 bits one after the other, the highest bit first, filled up to whole bytes."""
    shifts = np.arange(bits)[::-1]
    return np.packbits(values.ravel()[:, None].astype(np.int64) >> shifts & 1).tobytes()


def png(values: np.ndarray, colour_type: int, transparent: Sequence[int] = (), bits: int = 0) -> bytes:
    """A PNG file written by hand: values (H, W, C), uint8 or uint16, or of fewer bits that are told."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    bits = bits or values.dtype.itemsize * 8
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row, bits) for row in values)
    mask = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    parts = chunk(b"IHDR", header), mask, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    content: bytes, bits: Sequence[int], photometric: int, sample_format: int = UNSIGNED, extra: int = 0
) -> bytes:
    """A TIFF file written by hand: one strip of SIDE × SIDE pixels."""
    short, long = 3, 4
    entries = [(256, long, [SIDE]), (257, long, [SIDE]), (258, short, bits), (259, short, [1])]
    entries += [(262, short, [photometric]), (273, long, [0]), (277, short, [len(bits)]), (278, long, [SIDE])]
    entries += [(279, long, [len(content)])]
    entries += [(338, short, [extra])] if extra else []
    entries += [(339, short, [sample_format] * len(bits))]
    position = 8 + 2 + 12 * len(entries) + 4
    tail = b""
    packed = []
    for tag, kind, values in entries:
        raw = struct.pack(f"<{len(values)}{'H' if kind == short else 'I'}", *values)
        if len(raw) > 4:
            tail, raw = tail + raw, struct.pack("<I", position + len(tail))
        packed.append((tag, kind, len(values), raw.ljust(4, b"\0")))
    start = struct.pack("<I", position + len(tail))
    table = b"".join(
        struct.pack("<HHI", tag, kind, count) + (start if tag == 273 else raw)
        for tag, kind, count, raw in packed
    )
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + table + b"\0" * 4 + tail + content


def random_values(seed: int, channels: int, bits: int) -> np.ndarray:
    shape = (SIDE, SIDE, channels)
    values = np.random.default_rng(seed).integers(0, 2**bits, shape)
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


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


def values_of(kind: str) -> bytes:
    return (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 3).astype(kind).tobytes()


REFUSED = {
    "int8.tif": (tiff(values_of("i1"), [8], BLACK_IS_ZERO, SIGNED), "signed pixels"),
    "int16.tif": (tiff(values_of("<i2"), [16], BLACK_IS_ZERO, SIGNED), "signed or 32-bit pixels"),
    "int32.tif": (tiff(values_of("<i4"), [32], BLACK_IS_ZERO, SIGNED), "signed or 32-bit pixels"),
    "uint32.tif": (tiff(values_of("<u4"), [32], BLACK_IS_ZERO), "signed or 32-bit pixels"),
    "float16.tif": (tiff(values_of("<f2"), [16], BLACK_IS_ZERO, FLOAT), "a kind that is not read"),
    "float32.tif": (tiff(values_of("<f4"), [32], BLACK_IS_ZERO, FLOAT), "floating-point pixels"),
    "float64.tif": (tiff(values_of("<f8"), [64], BLACK_IS_ZERO, FLOAT), "a kind that is not read"),
    "lab.tif": (tiff(values_of("u1") * 3, [8] * 3, LAB), "pixels in LAB"),
    "portable.pgm": (f"Pf {SIDE} {SIDE} -1.0\n".encode() + values_of("<f4"), "floating-point pixels"),
    "key.png": (png(random_values(0, 3, 16), 2, [300, 7, 7]), "a transparent colour of 16 bits"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
    "empty.png": (b"", "an empty file"),
    "text.png": (b"<html>not found</html>", "no image"),
    "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n", "no image"),
}


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
