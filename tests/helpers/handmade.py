"""Image files written by hand, of every kind of pixels; and those that have no plain one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

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
"""By file name: its content, and what the refusal says."""
