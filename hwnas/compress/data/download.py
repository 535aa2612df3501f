"""Published files, fetched once into the user's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwnas.download import download
from hwnas.errors import InputError
from hwnas.files import hwnas_cache
from hwnas.locks import locked
from hwnas.progress import Progress

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file that somebody publishes.

    Attributes:
        bytes: its size.
    """

    url: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rsplit("/", 1)[-1]


def downloads() -> Path:
    """Where fetched files lie."""
    return hwnas_cache() / "downloads"


def fetch(file: Published, progress: Progress) -> Path:
    """The path of a published file, which is downloaded where it is not there yet.

    It appears under its name only when it is whole and its checksum is right.

    Raises:
        InputError: it cannot be fetched or stored, or is not what was published.
    """
    path = downloads() / file.name
    if _is_there(path, file):
        return path
    by_hand = f"get {file.url} by hand, put it into a folder, and name that folder by HWNAS_DATA_DIR=FOLDER"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{file.name}.lock")
        with locked(lock, lambda: progress.say(f"waiting for another process that fetches {file.name}")):
            if not _is_there(path, file):
                part = path.with_name(f".{file.name}.part")
                try:
                    _download(file, part, by_hand, progress)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot store {file.name} ({file.bytes / MEGABYTE:.0f} MB) in {path.parent}: {error.strerror}",
            f"free space, name another cache by HWNAS_CACHE=FOLDER, or {by_hand}",
        ) from None
    return path


def _is_there(path: Path, file: Published) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes


def _download(file: Published, part: Path, by_hand: str, progress: Progress) -> None:
    total = max(1, round(file.bytes / MEGABYTE))

    def advance(done: int) -> None:
        progress.advance(f"download {file.name}", min(total, round(done / MEGABYTE)), total, "MB")

    download(file.url, file.sha256, part, by_hand, size=file.bytes, on_bytes=advance)
