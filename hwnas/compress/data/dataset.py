"""A data set: three parts of uint8 images, and how they become batches.

`train` is trained on; `val` gives the block metrics and everything that is chosen by them; `test` is only
looked at to report accuracy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hwnas.compress.settings import Place
from hwnas.measurement import STRICT
from hwnas.ranges import Count, Figure, Position


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images (N, C, H, W) as uint8, and their targets where they have any.

    labels: class indices (N,) int64, values (N, D) float32, or masks (N, H, W) of a class each, as the task
    wants them.

    >>> import hwnas, torch
    >>> pixels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    >>> len(hwnas.Images(pixels=pixels, labels=torch.arange(8) % 2))
    8
    """

    pixels: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.pixels)


def split_images(
    pixels: Tensor, labels: Tensor | None, val_share: float, test_share: float
) -> tuple[Images, Images, Images]:
    """Split images into train, val and test, in an order that is always the same."""
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    val, test = round(len(pixels) * val_share), round(len(pixels) * test_share)
    train_part, val_part, test_part = (
        Images(pixels=pixels[part], labels=None if labels is None else labels[part])
        for part in torch.split(order, [len(pixels) - val - test, val, test])
    )
    return train_part, val_part, test_part


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What is known of a data set beside its images.

    Attributes:
        class_names: in the order of the class indices; empty where the images have no labels.
        mean, std: one per channel, for pixels in 0 … 1.
        shift_px: augmentation moves an image by up to this many pixels in each direction.
        flip: augmentation mirrors every second image. Targets that are no classes do not move with their
            image: leave both out for such data.
        imagenet: where the classes are of ImageNet, their indices among its 1,000.
    """

    __pydantic_config__ = STRICT
    name: str
    class_names: tuple[str, ...] = ()
    mean: tuple[Figure, ...]
    std: tuple[Figure, ...]
    shift_px: Count = 0
    flip: bool = False
    imagenet: tuple[Position, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Data(DataFacts):
    """A data set; its pixels may lie in a memory-mapped file.

    Attributes:
        digest: SHA-256 of the content, where it is known already.
        place: where batches are wanted, and where networks are trained and judged on them.

    >>> import hwnas, torch
    >>> pixels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    >>> images = hwnas.Images(pixels=pixels, labels=torch.arange(8) % 2)
    >>> data = hwnas.Data(
    ...     name="mine", class_names=("cat", "dog"), train=images, val=images, test=images,
    ...     mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    ... )
    >>> data.image_shape
    (3, 32, 32)
    """

    train: Images
    val: Images
    test: Images
    digest: str | None = None
    place: Place = "cpu"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content: pixels and labels, part by part, with their types and shapes."""
        if self.digest is not None:
            return self.digest
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            for tensor in (part.pixels, part.labels):
                if tensor is None:
                    digest.update(b"none")
                    continue
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) → float32, normalised, channels last."""
        mean, std = (torch.tensor(x, device=pixels.device).view(1, -1, 1, 1) for x in (self.mean, self.std))
        x = pixels.contiguous(memory_format=torch.channels_last).float()
        return x.div_(255.0).sub_(mean).div_(std)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One epoch of the training part: images and targets, in the order of `train_order`, on `place`."""
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for indices in self._order(batch_size, generator):
            pixels = self.train.pixels[indices]
            if augment:
                pixels = self._augment(pixels, generator)
            yield self._placed(pixels, self.train.labels, indices)

    def train_order(self, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """The images (B,) of each batch of an epoch; they depend on `seed` and `epoch` alone.

        A last partial batch is dropped.
        """
        return self._order(batch_size, torch.Generator().manual_seed(seed * 100_003 + epoch))

    def _order(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        order = torch.randperm(len(self.train), generator=generator)
        for indices in torch.split(order, batch_size):
            if len(indices) == min(batch_size, len(order)):
                yield indices

    def steps_per_epoch(self, batch_size: int) -> int:
        """The number of batches that `train_batches` gives."""
        return max(1, len(self.train) // batch_size)

    def batches(self, images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All images in order, not augmented, on `place`."""
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield self._placed(images.pixels[part], images.labels, part)

    def _placed(
        self, pixels: Tensor, labels: Tensor | None, which: Tensor | slice
    ) -> tuple[Tensor, Tensor | None]:
        targets = None if labels is None else labels[which].to(self.place)
        return self.normalize(pixels.to(self.place)), targets

    def _augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Mirror and move each image by itself; what moves in is black."""
        count, shift = len(pixels), self.shift_px
        mirrored = (torch.rand(count, generator=generator) < 0.5).tolist() if self.flip else [False] * count
        offsets = torch.randint(0, 2 * shift + 1, (count, 2), generator=generator).tolist()
        moved = torch.zeros_like(pixels)
        for image, target, mirror, (y, x) in zip(pixels, moved, mirrored, offsets, strict=True):
            source = image.flip(2) if mirror else image
            (to_y, from_y), (to_x, from_x) = _overlap(shift - y), _overlap(shift - x)
            target[:, to_y, to_x] = source[:, from_y, from_x]
        return moved


def _overlap(offset: int) -> tuple[slice, slice]:
    """Where something moved by `offset` pixels lands, and which part of it still does."""
    if offset > 0:
        return slice(offset, None), slice(None, -offset)
    return slice(None, offset or None), slice(-offset, None)
