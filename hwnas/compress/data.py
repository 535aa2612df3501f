"""Images to distil with: decoded once, held as one uint8 tensor, split into three parts.

`train` is trained on; `val` gives the block metrics and everything that is chosen by them; `test` is only
looked at to report accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.errors import InputError
from hwnas.files import sha256


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images (N, C, H, W) as uint8, and their class indices (N,) where they have any."""

    pixels: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set in memory.

    Attributes:
        mean, std: one per channel, for pixels in 0 … 1.
        shift_px: augmentation moves an image by up to this many pixels in each direction.
        flip: augmentation mirrors every second image.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    val: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift_px: int
    flip: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @property
    def hash(self) -> str:
        """SHA-256 over all pixels and labels, split by split."""
        tensors = [t for part in (self.train, self.val, self.test) for t in (part.pixels, part.labels)]
        return sha256(b"".join(t.numpy().tobytes() for t in tensors if t is not None))

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) → float32, normalised, channels last."""
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        x = pixels.float().div_(255.0).sub_(mean).div_(std)
        return x.contiguous(memory_format=torch.channels_last)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One epoch in an order that depends on `seed` and `epoch` alone; a last partial batch is dropped."""
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(self.train), generator=generator)
        for indices in torch.split(order, batch_size):
            if len(indices) < min(batch_size, len(order)):
                return
            pixels = self.train.pixels[indices]
            if augment:
                pixels = self._augment(pixels, generator)
            yield self.normalize(pixels), _take(self.train.labels, indices)

    def steps_per_epoch(self, batch_size: int) -> int:
        """The number of batches that `train_batches` gives."""
        return max(1, len(self.train) // batch_size)

    def batches(self, images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All images in order, not augmented."""
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield self.normalize(images.pixels[part]), _take(images.labels, part)

    def _augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        count, height, width = len(pixels), *pixels.shape[2:]
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
            pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        shift = self.shift_px
        padded = functional.pad(pixels, (shift,) * 4)
        offsets = torch.randint(0, 2 * shift + 1, (count, 2), generator=generator).tolist()
        return torch.stack(
            [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)]
        )


def load_data(name: str) -> Data:
    """Load a data set by name. Raises InputError for an unknown one."""
    if name in _LOADERS:
        return _LOADERS[name]()
    near = get_close_matches(name, _LOADERS, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"unknown data {name!r}", f"{hint}known data: {', '.join(_LOADERS)}")


def _digits() -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 × 8 and 17 grey levels, enlarged to 32 × 32 RGB."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float().div_(16.0)[:, None]
    large = functional.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    pixels = large.mul_(255.0).round_().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(bunch.target).long()
    train, val, test = _split(pixels, labels, val_share=0.1, test_share=0.2)
    return Data(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=train,
        val=val,
        test=test,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        shift_px=4,
        flip=False,
    )


def _split(pixels: Tensor, labels: Tensor, val_share: float, test_share: float) -> tuple[Images, ...]:
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    val, test = round(len(pixels) * val_share), round(len(pixels) * test_share)
    sizes = [len(pixels) - val - test, val, test]
    return tuple(Images(pixels=pixels[part], labels=labels[part]) for part in torch.split(order, sizes))


def _take(labels: Tensor | None, indices: Tensor | slice) -> Tensor | None:
    return None if labels is None else labels[indices]


_LOADERS = {"digits": _digits}
