"""Published files, fetched once into the user's cache."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import InputError, first_line
from hwnas.files import hwnas_cache, sha256_of_file
from hwnas.locks import locked
from hwnas.progress import Progress

CHUNK_BYTES = 2**18
TIMEOUT_S = 60.0
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
    done = 0
    with part.open("wb") as target:
        for chunk in _chunks(file, by_hand):
            target.write(chunk)
            done += len(chunk)
            if done > file.bytes:
                break
            progress.advance(f"download {file.name}", min(total, round(done / MEGABYTE)), total, "MB")
    if done != file.bytes:
        got = f"only {done:,}" if done < file.bytes else "more"
        raise InputError(
            f"{file.url} is published with {file.bytes:,} bytes, the server gave {got}",
            f"give the same command again, or {by_hand}",
        )
    if sha256_of_file(part) != file.sha256:
        raise InputError(
            f"what {file.url} gave is not the published file: its SHA-256 is not {file.sha256}",
            f"give the same command again, or {by_hand}",
        )


def _chunks(file: Published, by_hand: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as response:  # noqa: S310
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
    except urllib.error.HTTPError as error:
        reason = f"the server answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        reason = first_line(getattr(error, "reason", error))
    else:
        return
    raise InputError(f"cannot fetch {file.url}: {reason}", f"check the network, or {by_hand}") from None
