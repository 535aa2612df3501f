"""The data sets that hwnas knows by name: where they lie, where they come from, how they are read."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hwnas.compress.data.download import Published
from hwnas.compress.data.images import Mode
from hwnas.compress.data.sources import (
    ArchiveSource,
    Arrays,
    ArraySource,
    FolderSource,
    Source,
    check_published,
)
from hwnas.errors import InputError, first_line
from hwnas.files import sha256

FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FASHION_FILES = (
    Published(
        url=f"{FASHION_URL}/train-images-idx3-ubyte.gz",
        bytes=26_421_880,
        sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    Published(
        url=f"{FASHION_URL}/train-labels-idx1-ubyte.gz",
        bytes=29_515,
        sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    Published(
        url=f"{FASHION_URL}/t10k-images-idx3-ubyte.gz",
        bytes=4_422_102,
        sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    Published(
        url=f"{FASHION_URL}/t10k-labels-idx1-ubyte.gz",
        bytes=5_148,
        sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
FASHION_CONTENT = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the files once they are decompressed, the same in every packaging."""
FASHION_PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
"""How each part's files begin, and its images."""
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR_FILE = Published(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    bytes=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
IMAGENETTE_FILE = Published(
    url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
    bytes=99_003_388,
    sha256="64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
)
CIFAR_RECORD = 1 + 3 * 32 * 32
CIFAR_IMAGES = 10_000  # a file
CIFAR_BATCHES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A data set that hwnas knows where to find.

    Attributes:
        size: pixels of an image's side.
        find: the source in a folder, if the data lie there.
        files: what is downloaded where they lie nowhere.
    """

    size: int
    mode: Mode
    find: Callable[[Path], Source | None]
    files: tuple[Published, ...]


def _find_fashion(place: Path) -> Source | None:
    for folder in (place, place / "fashion-mnist", place / "FashionMNIST" / "raw"):
        found = {
            name: next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
            for name in FASHION_CONTENT
        }
        files = {name: path for name, path in found.items() if path is not None}
        if len(files) == len(found):
            read = partial(_read_fashion, files)
            return ArraySource("fashion-mnist", list(files.values()), read, FASHION_CLASSES)
    return None


def _read_fashion(files: Mapping[str, Path]) -> Arrays:
    """IDX files: a header and 28 × 28 pixels an image, which get an edge of two black ones."""

    def content(name: str, count: int, header: int, item: int) -> np.ndarray:
        path = files[name]
        size = header + count * item
        try:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                data = file.read(size + 1)
        except Exception as error:  # gzip and zlib have their own
            raise InputError(f"{path} is damaged: {first_line(error)}", "download or copy it again") from None
        if sha256(data) != FASHION_CONTENT[name]:
            raise InputError(f"{path} does not hold Fashion-MNIST's {name}", "download or copy it again")
        return np.frombuffer(data, dtype=np.uint8, offset=header)

    def part(prefix: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        images = content(f"{prefix}-images-idx3-ubyte", count, 16, 28 * 28).reshape(count, 28, 28)
        return np.pad(images, ((0, 0), (2, 2), (2, 2))), content(f"{prefix}-labels-idx1-ubyte", count, 8, 1)

    return {name: part(*where) for name, where in FASHION_PARTS.items()}


def _find_cifar(place: Path) -> Source | None:
    archive, folder = place / CIFAR_FILE.name, place / "cifar-10-batches-bin"
    if archive.is_file():
        return ArraySource("cifar10", [archive], partial(_read_cifar, archive), CIFAR_CLASSES)
    files = [folder / name for name in CIFAR_BATCHES]
    if all(file.is_file() for file in files):
        return ArraySource("cifar10", files, partial(_read_cifar, folder), CIFAR_CLASSES)
    return _images_in(place, "cifar10.tar.xz", "cifar10")


def _read_cifar(path: Path) -> Arrays:
    """The binary version: records of a label and 3 × 32 × 32 pixels."""
    size = CIFAR_IMAGES * CIFAR_RECORD
    if path.is_dir():
        contents = {name: (path / name).read_bytes() for name in CIFAR_BATCHES}
    else:
        check_published(path, CIFAR_FILE.sha256)
        with tarfile.open(path) as tar:
            wanted = {m.name.split("/")[-1]: m for m in tar if m.isfile() and m.size == size}
            contents = {name: tar.extractfile(wanted[name]).read() for name in CIFAR_BATCHES}  # type: ignore[union-attr]
    for name, content in contents.items():
        if len(content) != size:
            raise InputError(f"{path / name} has {len(content):,} bytes, not {size:,}", "copy it again")
    records = [np.frombuffer(c, dtype=np.uint8).reshape(-1, CIFAR_RECORD) for c in contents.values()]
    parts = {"train": np.concatenate(records[:5]), "test": records[5]}
    return {
        part: (rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0])
        for part, rows in parts.items()
    }


def _find_imagenette(place: Path) -> Source | None:
    archive = place / IMAGENETTE_FILE.name
    if archive.is_file():
        return ArchiveSource(archive, IMAGENETTE_FILE.sha256)
    return _images_in(place, "imagenette2-160", "imagenette.zip", "imagenette")


def _images_in(place: Path, *names: str) -> Source | None:
    """The first of some archives or folders of images that is there."""
    for path in (place / name for name in names):
        if path.is_dir():
            return FolderSource(path)
        if path.is_file():
            return ArchiveSource(path)
    return None


SETS: Mapping[str, NamedSet] = {
    "fashion-mnist": NamedSet(size=32, mode="L", find=_find_fashion, files=FASHION_FILES),
    "cifar10": NamedSet(size=32, mode="RGB", find=_find_cifar, files=(CIFAR_FILE,)),
    "imagenette": NamedSet(size=160, mode="RGB", find=_find_imagenette, files=(IMAGENETTE_FILE,)),
}
