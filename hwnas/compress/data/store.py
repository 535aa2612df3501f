"""Images decoded once, kept in the user's cache as one memory-mapped file."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from hwnas.compress.data.images import CUT, Fit, Mode, Raw, to_pixels
from hwnas.compress.data.sources import Source, printable
from hwnas.compress.data.splits import Arrangement, arrange
from hwnas.devices.host.machine import usable_cores
from hwnas.errors import InputError, first_line
from hwnas.files import (
    check_schema,
    decode,
    encode,
    hwnas_cache,
    read_json,
    sha256_of_plain,
    write_json,
)
from hwnas.locks import locked
from hwnas.measurement import STRICT
from hwnas.progress import Progress
from hwnas.ranges import Count, Figure, Nanoseconds, Position

SCHEMA = "hwnas.images/3"
CHUNK = 512
GROUP = 32
NAMED_AT_MOST = 10

Shape = tuple[Count, Count, Count, Count]
Form = tuple[int, Mode, Fit]
"""Side of the images in pixels, and how they are made."""
Write = Callable[[int, np.ndarray], None]


@dataclass(frozen=True, kw_only=True)
class Index:
    """What is known of decoded images beside their pixels.

    Attributes:
        shape: (N, C, H, W).
        parts: images in train, val and test, which follow each other.
        labels: class index of each image; None without labels.
        classes: the class folders, in the order of the indices.
        mean, std: of the train part, one per channel, for pixels in 0 … 1.
        digest: SHA-256 of pixels, labels, classes and parts.
        modified_ns: when the file of the pixels was written.
    """

    __pydantic_config__ = STRICT
    shape: Shape
    parts: tuple[Count, Count, Count]
    labels: tuple[Position, ...] | None
    classes: tuple[str, ...]
    mean: tuple[Figure, ...]
    std: tuple[Figure, ...]
    digest: str
    modified_ns: Nanoseconds = 0


def decoded(
    source: Source, size: int, mode: Mode, progress: Progress, fit: Fit = CUT
) -> tuple[Index, np.ndarray]:
    """The images of a source as one array, decoded now or at an earlier start.

    The array lies in a file of the cache that is found again as long as no file of the source changed. Where
    the cache cannot be written, it lies in memory.

    Returns:
        The index and the pixels (N, C, size, size) uint8.

    Raises:
        InputError: an image cannot be decoded, the images make no data set, or they fit neither the cache nor
            the memory.
    """
    how = [size, mode] if fit == CUT else [size, mode, *fit]
    key = sha256_of_plain([SCHEMA, source.identity, *how])
    folder = hwnas_cache() / "images" / key[:32]
    found = _read(folder)
    if found is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with locked(lock, lambda: progress.say(f"waiting for another process that decodes {source.text}")):
            return _read(folder) or _decode_to_file(source, (size, mode, fit), folder, progress)
    except OSError as error:
        progress.say(f"decoded images stay in memory: cannot write to {folder.parent}: {error.strerror}")
    return _decode_to_memory(source, (size, mode, fit), progress)


def _read(folder: Path) -> tuple[Index, np.ndarray] | None:
    """What an earlier start left; None where there is nothing, or not what was written."""
    pixels = folder / "pixels"
    try:
        index = decode(Index, check_schema(read_json(folder / "index.json"), SCHEMA, folder), folder)
        status = pixels.stat()
        if (status.st_size, status.st_mtime_ns) != (int(np.prod(index.shape)), index.modified_ns):
            return None
        return index, np.memmap(pixels, dtype=np.uint8, mode="c", shape=index.shape)
    except (InputError, OSError):
        return None


def _decode_to_file(source: Source, form: Form, folder: Path, progress: Progress) -> tuple[Index, np.ndarray]:
    """Decode into a folder that appears only when it is complete; its lock is held."""
    part = folder.with_name(f".{folder.name}.part")
    for old in (part, folder):
        shutil.rmtree(old, ignore_errors=True)
    arrangement = arrange(source)
    shape = _shape(arrangement, form)
    if shutil.disk_usage(folder.parent).free < np.prod(shape):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        part.mkdir()
        with (part / "pixels").open("wb") as file:

            def write(row: int, pixels: np.ndarray) -> None:
                file.seek(row * pixels.nbytes)
                file.write(pixels.data)

            index = _decode(source, arrangement, form, write, progress)
            file.flush()
            os.fsync(file.fileno())
        index = replace(index, modified_ns=(part / "pixels").stat().st_mtime_ns)
        write_json(part / "index.json", {"schema": SCHEMA, **encode(index)})
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    found = _read(folder)
    assert found is not None
    return found


def _decode_to_memory(source: Source, form: Form, progress: Progress) -> tuple[Index, np.ndarray]:
    arrangement = arrange(source)
    shape = _shape(arrangement, form)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if np.prod(shape) > memory / 2:
        raise InputError(
            f"{source.text} takes {np.prod(shape) / 1e9:.1f} GB when it is decoded, too much for the memory",
            "name a folder on a disk with that much space: HWNAS_CACHE=FOLDER",
        )
    array = np.empty(shape, dtype=np.uint8)
    return _decode(source, arrangement, form, array.__setitem__, progress), array


def _shape(arrangement: Arrangement, form: Form) -> Shape:
    size, mode, _ = form
    count = len(arrangement.train) + len(arrangement.val) + len(arrangement.test)
    return count, 1 if mode == "L" else 3, size, size


def _decode(source: Source, arrangement: Arrangement, form: Form, write: Write, progress: Progress) -> Index:
    """Decode all images, in parallel, and write each to its row."""
    shape = _shape(arrangement, form)
    order = [*arrangement.train, *arrangement.val, *arrangement.test]
    rows = {position: row for row, position in enumerate(order)}
    labels = arrangement.labels and tuple(arrangement.labels[position] for position in order)
    hashes = [b""] * len(order)
    sums = np.zeros((2, shape[1]), dtype=np.int64)  # exact, whatever the order
    broken: list[tuple[str, str]] = []

    def group(items: list[tuple[int, Raw]]) -> list[tuple[int, np.ndarray | str]]:
        found: list[tuple[int, np.ndarray | str]] = []
        for position, raw in items:
            try:
                found.append((position, to_pixels(raw, *form)))
            except Exception as error:  # Pillow's decoders raise whatever they meet
                found.append((position, first_line(error)))
        return found

    done = 0
    with ThreadPoolExecutor(usable_cores()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for chunk in _chunks(source.raw(order)):
            groups = [chunk[start : start + GROUP] for start in range(0, len(chunk), GROUP)]
            for position, result in chain.from_iterable(pool.map(group, groups)):
                if isinstance(result, str):
                    broken.append((source.names[position], result))
                    continue
                row = rows[position]
                write(row, result)
                hashes[row] = hashlib.sha256(result.data).digest()
                if row < len(arrangement.train):
                    flat = result.reshape(shape[1], -1).astype(np.uint32)
                    sums += flat.sum(1, dtype=np.int64), np.square(flat).sum(1, dtype=np.int64)
            done += len(chunk)
            progress.advance("decode images", done, len(order))
    _refuse_broken(source, broken)
    mean, square = sums / (len(arrangement.train) * shape[2] * shape[3])
    std = np.sqrt(np.maximum(square - mean**2, 1.0)) / 255
    parts = len(arrangement.train), len(arrangement.val), len(arrangement.test)
    header = sha256_of_plain([shape, parts, labels, arrangement.classes]).encode()
    return Index(
        shape=shape,
        parts=parts,
        labels=labels,
        classes=arrangement.classes,
        mean=tuple((mean / 255).tolist()),
        std=tuple(std.tolist()),
        digest=hashlib.sha256(header + b"".join(hashes)).hexdigest(),
    )


def _chunks(items: Iterator[tuple[int, Raw]]) -> Iterator[list[tuple[int, Raw]]]:
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _refuse_broken(source: Source, broken: list[tuple[str, str]]) -> None:
    if not broken:
        return
    broken.sort()
    some = "; ".join(f"{printable(name)}: {reason}" for name, reason in broken[:NAMED_AT_MOST])
    more = f"; and {len(broken) - NAMED_AT_MOST} more" if len(broken) > NAMED_AT_MOST else ""
    raise InputError(
        f"{source.text}: {len(broken)} of {len(source.names)} images cannot be read: {some}{more}",
        source.removal([name for name, _ in broken]),
    )
