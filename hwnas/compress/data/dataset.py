"""A data set: three parts of uint8 images, and how they become batches.

`train` is trained on; `val` gives the block metrics and everything that is chosen by them; `test` is only
looked at to report accuracy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils._pytree import tree_flatten, tree_map

from hwnas.compress.data.augment import Moves, is_boxes
from hwnas.compress.settings import Place
from hwnas.errors import InputError, first_line
from hwnas.files import sha256_of_plain
from hwnas.measurement import STRICT
from hwnas.ranges import Count, Figure, Position

Given = Callable[[Tensor, torch.Generator], Tensor]
"""An image (C, H, W) in 0 … 1, and what is random → what the network is given, such as a noisy image."""

Pixels = Any
"""A tensor (N, C, H, W), or a tuple of N tensors (C, H, W)."""

Targets = Any
"""Of N images: a tensor (N, …), a tuple of N tensors of several sizes, a dictionary of either, or None."""

SEEDS = 2**63


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images (N, C, H, W), and their targets where they have any.

    pixels: uint8, or float32 in 0 … 1; of the test part also a tuple of images (C, H, W) of several sizes.

    labels: class indices (N,) int64, values (N, D) float32, masks (N, H, W) of a class each, images
    (N, C, H, W) as pixels, or boxes (N, K, 5), as the task wants them; several kinds by name.

    >>> import hwnas, torch
    >>> pixels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    >>> images = hwnas.Images(pixels=pixels, labels=torch.arange(8) % 2)
    >>> len(images)
    8
    """

    pixels: Pixels
    labels: Targets

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """Height and width of each image, every one once.

        >>> images.sizes
        {(32, 32)}
        """
        images = [self.pixels] if isinstance(self.pixels, Tensor) else self.pixels
        return {(image.shape[-2], image.shape[-1]) for image in images}

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, count: int) -> Images:
        """The first images alone, without their targets.

        >>> len(images.first(3))
        3
        """
        return Images(pixels=self.pixels[:count], labels=None)


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
        flip: augmentation mirrors every second image. Boxes move with their image, other targets that are
            no classes do not: leave both out for such data.
        imagenet: where the classes are of ImageNet, their indices among its 1,000.
        is_measured: mean and std are those of the training part; nobody asked for them.
    """

    __pydantic_config__ = STRICT
    name: str
    class_names: tuple[str, ...] = ()
    mean: tuple[Figure, ...]
    std: tuple[Figure, ...]
    shift_px: Count = 0
    flip: bool = False
    imagenet: tuple[Position, ...] = ()
    is_measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Data(DataFacts):
    """A data set; its pixels may lie in a memory-mapped file.

    Attributes:
        digest: SHA-256 of the content, where it is known already.
        place: where batches are wanted, and where networks are trained and judged on them.
        given: makes what the network is given of an image, which is then the target itself: the images have
            no labels. What is random depends on the image's number; in augmented training on seed and epoch
            as well.

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
    given: Given | None = None

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network is given.

        >>> data.image_shape
        (3, 32, 32)
        """
        channels, height, width = self.plain_inputs(self.train, slice(1)).shape[1:]
        return channels, height, width

    @property
    def has_targets(self) -> bool:
        """Whether there is anything to judge a network by.

        >>> data.has_targets
        True
        """
        return self.train.labels is not None or self.given is not None

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content: pixels and labels, part by part, and what the network is given of them.

        >>> len(data.hash)
        64
        """
        content = self.digest or self._content_hash()
        if self.given is None:
            return content
        # Two decimals of some values: other machines round the last bits of a sum in another way.
        found = self.plain_inputs(self.train, slice(1))
        values = found.flatten()[:: max(1, found.numel() // 32)].mul(100).round().long().tolist()
        return sha256_of_plain([content, list(found.shape), values])

    def _content_hash(self) -> str:
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            for tree in (part.pixels, part.labels):
                leaves, kind = tree_flatten(dict(sorted(tree.items())) if isinstance(tree, dict) else tree)
                if not isinstance(tree, Tensor | None):
                    digest.update(str(kind).encode())
                for tensor in leaves:
                    if tensor is None:
                        digest.update(b"none")
                        continue
                    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 or float32 in 0 … 1, (B, C, H, W) → float32, normalised, channels last.

        >>> data.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).unique()
        tensor([-2.])
        """
        mean, std = (torch.tensor(x, device=pixels.device).view(1, -1, 1, 1) for x in (self.mean, self.std))
        return _plain(pixels).sub_(mean).div_(std)

    def inputs(self, images: Images, which: Tensor | slice) -> Tensor:
        """What the network is given of some images, not augmented: float32, normalised, on `place`.

        >>> x = data.inputs(data.test, slice(2))
        >>> x.dtype, tuple(x.shape)
        (torch.float32, (2, 3, 32, 32))
        """
        if self.given is not None:
            return self.normalize(self.plain_inputs(images, which).to(self.place))
        return self.normalize(_stacked(images.pixels, which).to(self.place))

    def plain_inputs(self, images: Images, which: Tensor | slice) -> Tensor:
        """The same before it is normalised, in the memory of the CPU: uint8, or float32 in 0 … 1.

        >>> data.plain_inputs(data.test, slice(2)).dtype
        torch.uint8
        """
        pixels = _stacked(images.pixels, which)
        return self._make(_plain(pixels), self._numbers(images, which)) if self.given is not None else pixels

    def _numbers(self, images: Images, which: Tensor | slice) -> list[int]:
        """Numbers of images, counted through all parts."""
        found = range(len(images))[which] if isinstance(which, slice) else which.tolist()
        before = 0
        for part in (self.train, self.val, self.test):
            if images.pixels is part.pixels:
                return [before + number for number in found]
            before += len(part)
        return list(found)

    def _make(self, images: Tensor, numbers: Sequence[int], seed: int = 0) -> Tensor:
        """What the network is given of each image, (B, C, H, W) in 0 … 1."""
        assert self.given is not None
        generator, made = torch.Generator(), []
        for image, number in zip(images, numbers, strict=True):
            generator.manual_seed((seed * 1_000_003 + number) % SEEDS)
            try:
                found = self.given(image, generator)
            except Exception as error:  # whatever the task's function does
                raise InputError(
                    f"the task makes nothing of an image of shape {tuple(image.shape)}: {first_line(error)}",
                    "mend its function `given`, or take images of another size (docs/tasks.md)",
                ) from error
            if not isinstance(found, Tensor) or found.ndim != 3 or found.dtype != torch.float32:
                raise InputError(
                    "the task makes no image of an image: `given` returns "
                    f"{f'{found.dtype} {tuple(found.shape)}' if isinstance(found, Tensor) else type(found)}",
                    "let it return a float32 tensor (C, H, W) (docs/tasks.md)",
                )
            made.append(found)
        return torch.stack(made)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, augment: bool
    ) -> Iterator[tuple[Tensor, Targets]]:
        """One epoch of the training part: images and targets, in the order of `train_order`, on `place`.

        >>> [len(x) for x, targets in data.train_batches(4, seed=0, epoch=0, augment=False)]
        [4, 4]
        """
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for indices in self._order(batch_size, generator):
            pixels = _stacked(self.train.pixels, indices)
            if not augment:
                yield self._placed(pixels, self.train, indices)
                continue
            moves = Moves.draw(len(indices), self.shift_px, generator, flip=self.flip)
            found, targets = self._placed(
                moves.images(pixels), self.train, indices, seed * 100_003 + epoch + 1
            )
            if is_boxes(targets):
                targets = moves.boxes(targets.cpu(), *pixels.shape[2:]).to(self.place)
            yield found, targets

    def train_order(self, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """The images (B,) of each batch of an epoch; they depend on `seed` and `epoch` alone.

        A last partial batch is dropped.

        >>> order = list(data.train_order(4, seed=0, epoch=0))
        >>> sorted(torch.cat(order).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7]
        """
        return self._order(batch_size, torch.Generator().manual_seed(seed * 100_003 + epoch))

    def _order(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        order = torch.randperm(len(self.train), generator=generator)
        for indices in torch.split(order, batch_size):
            if len(indices) == min(batch_size, len(order)):
                yield indices

    def steps_per_epoch(self, batch_size: int) -> int:
        """The number of batches that `train_batches` gives.

        >>> data.steps_per_epoch(3)
        2
        """
        return max(1, len(self.train) // batch_size)

    def batches(self, images: Images, batch_size: int) -> Iterator[tuple[Tensor, Targets]]:
        """All images in order, not augmented, on `place`; one by one where they have several sizes.

        >>> [targets.tolist() for x, targets in data.batches(data.test, 5)]
        [[0, 1, 0, 1, 0], [1, 0, 1]]
        """
        size = batch_size if isinstance(images.pixels, Tensor) else 1
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            yield self._placed(_stacked(images.pixels, part), images, part)

    def _placed(
        self, pixels: Tensor, images: Images, which: Tensor | slice, seed: int = 0
    ) -> tuple[Tensor, Targets]:
        """Normalised inputs and targets of pixels that may be augmented."""
        if self.given is not None:
            wanted = _plain(pixels)
            x = self._make(wanted, self._numbers(images, which), seed)
            return self.normalize(x.to(self.place)), wanted.to(self.place)
        targets = images.labels
        if targets is not None:
            targets = tree_map(
                lambda each: _target(_stacked(each, which)).to(self.place),
                targets,
                is_leaf=lambda each: isinstance(each, tuple),
            )
        return self.normalize(pixels.to(self.place)), targets


def at_shape(pixels: Tensor, shape: Sequence[int]) -> Tensor:
    """Return images (B, C, H, W), uint8 or float32 in 0 … 1, scaled to `shape` (C, H, W): bilinear."""
    if tuple(pixels.shape[1:]) == tuple(shape):
        return pixels
    return interpolate(_plain(pixels), tuple(shape[1:]), mode="bilinear", antialias=True).clamp_(0.0, 1.0)


def _plain(pixels: Tensor) -> Tensor:
    """float32 in 0 … 1, channels last, in memory of its own."""
    if pixels.dtype == torch.uint8:
        return pixels.contiguous(memory_format=torch.channels_last).float().div_(255.0)
    return pixels.clone(memory_format=torch.channels_last)


def _target(batch: Tensor) -> Tensor:
    """Images as targets are float32 in 0 … 1."""
    return _plain(batch) if batch.ndim == 4 and batch.dtype == torch.uint8 else batch


def _stacked(tensors: Tensor | Sequence[Tensor], which: Tensor | slice) -> Tensor:
    """Some of N tensors, (B, …); those of several sizes have to be asked for one by one."""
    if isinstance(tensors, Tensor):
        return tensors[which]
    chosen = tensors[which] if isinstance(which, slice) else [tensors[number] for number in which.tolist()]
    return torch.stack(list(chosen))
