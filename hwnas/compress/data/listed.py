"""Image files that something else lists: the pairs of two folders, or a COCO file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor

from hwnas.compress.data.dataset import Data, Images
from hwnas.compress.data.images import Raw
from hwnas.compress.data.sources import Identity, printable, quoted
from hwnas.compress.data.store import Index
from hwnas.errors import InputError

NAMED_AT_MOST = 3


class ListedSource:
    """Files by the names that they go by: `train/…` of a part, whatever folders they lie in.

    Args:
        text: what messages call it.
        files: each with its name.
        sizes: (width, height) that each has to have, where that is known.
    """

    titles: Mapping[str, str] = {}
    folders: Sequence[str] = ()

    def __init__(
        self, text: str, files: Mapping[str, Path], sizes: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        self.text = text
        self.names = sorted(files)
        self._files = files
        self._sizes = sizes or {}
        missing = [files[name] for name in self.names if not files[name].is_file()]
        if missing:
            some = ", ".join(printable(str(path)) for path in missing[:NAMED_AT_MOST])
            raise InputError(
                f"{text} lists {len(missing)} images that are not there: {some}",
                "bring the files to where they are looked for, or take them off the list",
            )
        self.identity: Identity = [_identity(name, files[name]) for name in self.names]

    def raw(self, wanted: Sequence[int]) -> Iterator[tuple[int, Raw]]:
        for position in wanted:
            name = self.names[position]
            if name in self._sizes:
                self._check_size(self._files[name], self._sizes[name])
            yield position, self._files[name]

    def removal(self, broken: Sequence[str]) -> str:
        files = " ".join(quoted(str(self._files[name])) for name in broken)
        return f"mend them, or take them off the list: {files}"

    def _check_size(self, path: Path, size: tuple[int, int]) -> None:
        try:
            with Image.open(path) as image:
                found = ImageOps.exif_transpose(image).size
        except Exception:  # told where it is decoded
            return
        if found != size:
            raise InputError(
                f"{printable(str(path))} has {found[0]} × {found[1]} pixels, {self.text} says {size[0]} × "
                f"{size[1]}",
                "correct width and height there, turned as the file's EXIF says; its boxes are of that size",
            )


def _identity(name: str, path: Path) -> list[str | int]:
    status = path.stat()
    return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def flat(name: str) -> str:
    """A path as one name, so that its folders mean no classes."""
    return name.replace("/", "|")


def data_of(name: str, index: Index, pixels: Tensor, labels: Tensor, digest: str) -> Data:
    """Data of decoded images (N, C, H, W) and a tensor of targets (N, …), in the parts of the index.

    Nothing is augmented: most targets would not move with their image.
    """
    first, second = index.parts[0], index.parts[0] + index.parts[1]
    train, val, test = (
        Images(pixels=pixels[part], labels=labels[part])
        for part in (slice(first), slice(first, second), slice(second, None))
    )
    return Data(
        name=name,
        train=train,
        val=val,
        test=test,
        mean=index.mean,
        std=index.std,
        is_measured=True,
        digest=digest,
    )
