"""Where images come from: folders, archives (read, never unpacked) and files of raw pixels.

Each source gives its images names such as `train/cat/1.jpg`; what the folders in them mean is told in
`splits.py`.
"""

from __future__ import annotations

import os
import shlex
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image

from hwnas.compress.data.images import Raw, is_image
from hwnas.errors import InputError, first_line
from hwnas.files import sha256_of_file

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By part: (N, H, W) or (N, H, W, 3) uint8 pixels, and class indices (N,)."""

MAX_IMAGE_BYTES = 64 * 2**20
MAX_ARCHIVE_BYTES = 64 * 2**30

Identity = list[list[str | int]]
"""Name, size and times of each file: the same as long as nobody changed one."""


class Source(Protocol):
    """Named images that can be read in any order."""

    @property
    def text(self) -> str:
        """What messages call it."""

    @property
    def titles(self) -> Mapping[str, str]:
        """Names for people of the class folders, where they are known."""

    @property
    def identity(self) -> Identity:
        """Known without reading any content."""

    @property
    def names(self) -> Sequence[str]:
        """Of all images."""

    @property
    def folders(self) -> Sequence[str]:
        """On the first level, those without an image included."""

    def raw(self, wanted: Sequence[int]) -> Iterator[tuple[int, Raw]]:
        """The images at these positions of `names`, in any order."""

    def removal(self, broken: Sequence[str]) -> str:
        """How to get rid of images."""


class FolderSource:
    """A folder; links are followed, but no folder is read twice."""

    titles: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = printable(str(path))
        if not path.is_dir():
            raise InputError(f"there is no folder {self.text}", "check the path: --data folder:PATH")
        found = sorted(_walk(path), key=lambda item: in_order(item[0]))
        self.names = [name for name, _ in found]
        self.identity: Identity = [[name, *times] for name, times in found]
        self.folders = [entry.name for entry in os.scandir(path) if entry.is_dir()]

    def raw(self, wanted: Sequence[int]) -> Iterator[tuple[int, Raw]]:
        return ((position, self.path / self.names[position]) for position in wanted)

    def removal(self, broken: Sequence[str]) -> str:
        return f"mend or remove them: rm -- {' '.join(quoted(str(self.path / name)) for name in broken)}"


class ArchiveSource:
    """A zip or tar archive of images; links and everything that is no image are passed over.

    Args:
        sha256: of the published file, where the archive claims to be it.
    """

    titles: Mapping[str, str] = {}
    folders: Sequence[str] = ()

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self.path = path
        self.text = printable(str(path))
        self.sha256 = sha256
        self.identity = _identity([path])

    @cached_property
    def names(self) -> Sequence[str]:
        if self.sha256 is not None:
            check_published(self.path, self.sha256)
        total, found = 0, []
        for name, size, _ in self._members():
            total += size
            if total > MAX_ARCHIVE_BYTES:
                raise InputError(
                    f"{self.text} holds more than {MAX_ARCHIVE_BYTES // 2**30} GiB",
                    "unpack what you trust and give --data folder:PATH",
                )
            if is_image(name):
                found.append(name)
        return sorted(found, key=in_order)

    def raw(self, wanted: Sequence[int]) -> Iterator[tuple[int, Raw]]:
        positions = {self.names[position]: position for position in wanted}
        for name, _, read in self._members():
            position = positions.pop(name, None)
            if position is not None:
                yield position, read()

    def removal(self, broken: Sequence[str]) -> str:
        return f"download or make {self.text} again"

    def _members(self) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
        """Name, size and content of each regular file."""
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    for info in archive.infolist():
                        if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                            yield info.filename, info.file_size, partial(_zipped, archive, info)
            else:
                with tarfile.open(self.path) as tar:
                    for member in tar:
                        if member.isfile():
                            name = member.name.removeprefix("./")
                            yield name, member.size, partial(_tarred, tar, member)
        except InputError:
            raise
        except Exception as error:  # zlib, lzma, tarfile and zipfile each have their own
            raise InputError(
                f"{self.text} is damaged: {first_line(error)}", "download or copy it again"
            ) from None


class ArraySource:
    """Pixels that lie in files of their own format.

    Args:
        read: gives the parts `train` and `test`.
        titles: names of the classes by their index.
    """

    folders: Sequence[str] = ()

    def __init__(
        self,
        text: str,
        files: Sequence[Path],
        read: Callable[[], Arrays],
        titles: Sequence[str],
    ) -> None:
        self.text = text
        self.titles: Mapping[str, str] = {str(index): title for index, title in enumerate(titles)}
        self.identity = _identity(files)
        self._read = read

    @cached_property
    def _arrays(self) -> Arrays:
        return self._read()

    @cached_property
    def names(self) -> Sequence[str]:
        return [
            f"{part}/{label}/{number:05}"
            for part, (_, labels) in self._arrays.items()
            for number, label in enumerate(labels.tolist())
        ]

    def raw(self, wanted: Sequence[int]) -> Iterator[tuple[int, Raw]]:
        for position in wanted:
            part, _, number = self.names[position].split("/")
            yield position, Image.fromarray(self._arrays[part][0][int(number)])

    def removal(self, broken: Sequence[str]) -> str:
        return f"download or copy {self.text} again"


def check_published(path: Path, sha256: str) -> None:
    """Refuse a file that is not the published one of its name. Raises InputError."""
    if sha256_of_file(path) != sha256:
        raise InputError(
            f"{printable(str(path))} is not the published file: its SHA-256 is not {sha256}",
            f"get it anew, or remove it and it is downloaded: rm -- {quoted(str(path))}",
        )


def in_order(name: str) -> tuple[str, str]:
    """What names are sorted by: the same order whatever Unicode form a machine keeps them in."""
    return unicodedata.normalize("NFC", name), name


def printable(text: str) -> str:
    """A file name that can be printed: bytes that are no UTF-8 as `\\xff`."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def quoted(text: str) -> str:
    """A file name for the shell."""
    shown = printable(text)
    return shlex.quote(text) if shown == text else "$'" + shown.replace("'", "\\'") + "'"


def _walk(root: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each image's name with its size and times; zeros for a link to nothing, which is reported later."""
    visited = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse):
        here = Path(folder)
        status = here.stat()
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders.sort()
        for file in files:
            path = here / file
            name = path.relative_to(root).as_posix()
            if is_image(name):
                try:
                    status = path.stat()
                except OSError:
                    yield name, (0, 0, 0)
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield name, (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _refuse(error: OSError) -> None:
    raise InputError(
        f"cannot read the folder {printable(str(error.filename))}: {error.strerror}", "check its permissions"
    )


def _identity(files: Sequence[Path]) -> Identity:
    statuses = [(file.name, file.stat()) for file in files]
    return [[name, status.st_size, status.st_mtime_ns, status.st_ctime_ns] for name, status in statuses]


def _zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    return _bounded(archive.open(info), info.filename)


def _tarred(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    return _bounded(file, member.name)


def _bounded(file: IO[bytes], name: str) -> bytes:
    with file:
        content = file.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise InputError(
            f"{printable(name)} is larger than {MAX_IMAGE_BYTES // 2**20} MiB",
            "give images, not archives of something else",
        )
    return content
