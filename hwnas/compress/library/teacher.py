"""The teacher's features: what the parts of the reference are given and give, for each image.

A position is the number of a value: 0 is the images themselves. Distillation does not augment, so the
features of an image never change: where they fit, they are computed once and kept, in files or in a GPU's
memory.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hwnas.composed import run_parts
from hwnas.compress.data import Data, Images
from hwnas.errors import InputError
from hwnas.files import check_schema, decode, encode, read_json, sha256_of_file, write_json
from hwnas.measurement import STRICT
from hwnas.networks.partition import Partition

SCHEMA = "hwnas.features/1"
RECORD = "features.json"
BOUND_BYTES = 8 * 2**30
SHARE_OF_FREE = 0.5

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
Features = Mapping[int, Tensor]
"""By position: (B, C, H, W) channels last, (B, T, C) or (B, C)."""

Kept = Mapping[tuple[Split, int], Tensor]
"""By position, on the data's place: (N, H, W, C), (N, T, C) or (N, C) float32; memory-mapped on the CPU."""


class Teacher:
    """Gives features of batches of images on the data's place: reads what is kept, and runs the parts for
    anything else.

    Both give the same bits, since an image's features do not depend on its neighbours in a batch, only on how
    many there are: all batches have the same size.

    Args:
        kept: features that are read.

    Attributes:
        parts: in eval mode.
    """

    def __init__(self, parts: Partition, data: Data, kept: Kept) -> None:
        self.parts = parts
        self.data = data
        self._kept = kept
        there = parts if data.place == "cpu" else deepcopy(parts)
        self._modules = [module.to(data.place) for module in there.ordered(there.modules).values()]

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, positions: Collection[int]
    ) -> Iterator[Features]:
        """One epoch of the training part in the order of `Data.train_batches`."""
        for indices in self.data.train_order(batch_size, seed, epoch):
            yield self._features("train", indices, positions)

    def batches(self, split: Split, batch_size: int, positions: Collection[int]) -> Iterator[Features]:
        """All images of a part in order; the last batch may be smaller."""
        count = len(self._images(split))
        for start in range(0, count, batch_size):
            indices = torch.arange(start, start + min(batch_size, count)) % count
            here = min(batch_size, count - start)  # the last batch is filled up, and cut again
            features = self._features(split, indices, positions)
            yield {position: feature[:here] for position, feature in features.items()}

    def _images(self, split: Split) -> Images:
        return self.data.train if split == "train" else self.data.val

    def _features(self, split: Split, indices: Tensor, positions: Collection[int]) -> Features:
        if all(position == 0 or (split, position) in self._kept for position in positions):
            there = indices.to(self.data.place)
            rows = {p: _restored(self._kept[split, p][there]) for p in positions if p}
            return rows | ({0: self._normalized(split, indices)} if 0 in positions else {})
        with torch.no_grad():
            run = run_parts(self._modules, self.parts.wiring, self._normalized(split, indices), positions)
        return {position: _channels_last(run[position]) for position in positions}

    def _normalized(self, split: Split, indices: Tensor) -> Tensor:
        return self.data.inputs(self._images(split), indices)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What lies in a folder of features; written last.

    Attributes:
        sha256: of each file, by its name.
    """

    __pydantic_config__ = STRICT
    sha256: dict[str, str]


def keep_features(
    teacher: Teacher, folder: Path, positions: Collection[int], batch_size: int, log: Callable[[str], None]
) -> Kept:
    """Features on the data's place: in a GPU's memory, or in files, made now or by a process that was killed.

    Nothing is kept where they take more than half of the GPU's memory that is free, or of the disk, or more
    than 8 GiB of files.

    Args:
        folder: for these files alone; the caller removes it.
        positions: of the features that will be asked for.
        log: is told why nothing is kept.
    """
    counts: dict[Split, int] = {"train": len(teacher.data.train), "val": len(teacher.data.val)}
    shapes = {
        (split, position): _stored_shape(count, teacher.parts.shapes[position])
        for split, count in counts.items()
        for position in positions
        if position
    }
    if teacher.data.place == "cuda":
        if not _fits(shapes, SHARE_OF_FREE * torch.cuda.mem_get_info()[0], log):
            return {}
        return _in_memory(teacher, shapes, batch_size)
    if not _is_intact(folder, {_name(*key) for key in shapes}):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if not _fits(shapes, min(BOUND_BYTES, SHARE_OF_FREE * shutil.disk_usage(folder).free), log):
            return {}
        try:
            _write(teacher, folder, positions, batch_size)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            log(f"the reference's features are not kept: {error}; it runs again for each slice")
            return {}
    return {
        key: torch.from_file(str(folder / _name(*key)), shared=True, size=math.prod(shape)).view(shape)
        for key, shape in shapes.items()
    }


def _fits(
    shapes: Mapping[tuple[Split, int], Sequence[int]], bound_bytes: float, log: Callable[[str], None]
) -> bool:
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if size > bound_bytes:
        log(
            f"the reference's features are not kept: they take {size / 1e9:.1f} GB, of "
            f"{bound_bytes / 1e9:.1f} that may be used; the reference runs again for each slice"
        )
    return size <= bound_bytes


def _in_memory(teacher: Teacher, shapes: Mapping[tuple[Split, int], Sequence[int]], batch_size: int) -> Kept:
    kept = {key: torch.empty(*shape, device=teacher.data.place) for key, shape in shapes.items()}
    for split in SPLITS:
        start = 0
        for features in teacher.batches(split, batch_size, [p for of, p in shapes if of == split]):
            for position, feature in features.items():
                kept[split, position][start : start + len(feature)] = _stored(feature)
            start += len(feature)
    return kept


def _write(teacher: Teacher, folder: Path, positions: Collection[int], batch_size: int) -> None:
    digests: dict[str, str] = {}
    for split in SPLITS:
        with ExitStack() as stack:
            names = {position: _name(split, position) for position in positions if position}
            files = {p: stack.enter_context((folder / name).open("wb")) for p, name in names.items()}
            hashes = {position: hashlib.sha256() for position in names}
            for features in teacher.batches(split, batch_size, list(names)):
                for position, feature in features.items():
                    content = np.ascontiguousarray(_stored(feature).numpy()).data
                    files[position].write(content)
                    hashes[position].update(content)
        digests |= {names[position]: digest.hexdigest() for position, digest in hashes.items()}
    write_json(folder / RECORD, {"schema": SCHEMA, **encode(_Record(sha256=digests))})


def _is_intact(folder: Path, names: set[str]) -> bool:
    """Whether the folder holds these files, as they were written."""
    path = folder / RECORD
    try:
        record = decode(_Record, check_schema(read_json(path), SCHEMA, path), path)
        return record.sha256.keys() >= names and all(
            sha256_of_file(folder / name) == record.sha256[name] for name in names
        )
    except (InputError, OSError):
        return False


def _name(split: Split, position: int) -> str:
    return f"{split}-{position}.f32"


def _channels_last(feature: Tensor) -> Tensor:
    """Maps in one layout, strides of sizes that are 1 included, since torch chooses its kernels by them."""
    if feature.ndim != 4:
        return feature
    _, channels, height, width = feature.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return feature.contiguous(memory_format=torch.channels_last).as_strided(feature.shape, strides)


def _stored(feature: Tensor) -> Tensor:
    """A feature as it is kept: an image's values lie together, channels last."""
    return feature.permute(0, 2, 3, 1) if feature.ndim == 4 else feature


def _restored(rows: Tensor) -> Tensor:
    return _channels_last(rows.permute(0, 3, 1, 2)) if rows.ndim == 4 else rows


def _stored_shape(count: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (count, *shape[1:], shape[0]) if len(shape) == 3 else (count, *shape)
