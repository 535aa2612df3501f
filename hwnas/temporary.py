"""Temporary files that no killed process leaves behind: the next one removes those of dead ones.

Whoever makes one holds a lock on it, which the kernel takes back from a dead process. What nobody holds is
left over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hwnas.errors import HwnasError, NoSpaceError, first_line

LEFTOVER = ".part"
"""How the names of unfinished files and folders end; only a killed process leaves one behind."""

_PREFIX = "hwnas-temporary-"
_RANDOM = r"[a-z0-9_]{8}"  # as tempfile names them
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 64 * 1024
"""As much as one write may need; where less is free, a file that ends too early needs no further reason."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for temporary files, which is removed at the end.

    Raises:
        HwnasError: there is no place for them, or it became full, whatever that was met as.
    """
    with held_folder() as (folder, _), explained_space(folder):
        yield folder


@contextmanager
def held_folder() -> Iterator[tuple[Path, int]]:
    """A temporary folder, and the descriptor that holds it, for processes that shall hold it as well.

    Raises:
        HwnasError: there is no place for it.
    """
    try:
        parent = Path(tempfile.gettempdir())
        folder, descriptor = _make(parent, _PREFIX, "")
    except OSError as error:
        raise _no_place(error) from error
    try:
        yield folder, descriptor
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def explained_space(folder: Path) -> Iterator[None]:
    """Where nothing but files in a temporary folder is written: a lack of space is told as what it is.

    Raises:
        HwnasError: there was none, whatever a library made of it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, NoSpaceError) or not _is_full(folder, error):
            raise
        raise NoSpaceError(
            f"no space for temporary files is left in {folder.parent}: {_reason(error)}",
            f"free space in {folder.parent}, or name another folder by TMPDIR=FOLDER, "
            "and give the same command again",
        ) from error


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside a path, which what is made in it may be renamed to."""
    folder, descriptor = _make(path.parent, f".{path.name}.", LEFTOVER)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def file_beside(path: Path) -> Iterator[Path]:
    """Give an empty temporary file beside a path, which may be renamed to it. Raises OSError."""
    prefix = f".{path.name}."
    _sweep(path.parent, prefix, LEFTOVER)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=LEFTOVER, dir=path.parent)
        file = Path(name)
        if _hold(descriptor, file):
            break
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _make(parent: Path, prefix: str, suffix: str) -> tuple[Path, int]:
    _sweep(parent, prefix, suffix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if _hold(descriptor, folder):
            return folder, descriptor


def _hold(descriptor: int, path: Path) -> bool:
    """Lock what was just made. False where another process took it for left over before it was."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if path.exists():
        return True
    os.close(descriptor)
    return False


def _sweep(parent: Path, prefix: str, suffix: str) -> None:
    """Remove what dead processes left; what cannot be looked at stays."""
    pattern = re.compile(re.escape(prefix) + _RANDOM + re.escape(suffix))
    with suppress(OSError), os.scandir(parent) as items:
        for item in items:
            if pattern.fullmatch(item.name) and item.stat(follow_symlinks=False).st_uid == os.getuid():
                _remove_if_left(Path(item.path))


def _remove_if_left(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _is_full(folder: Path, error: BaseException | None) -> bool:
    """Whether a failure comes from a lack of space, though a library made another exception of it."""
    if shutil.disk_usage(folder).free < _FULL_BYTES:
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(os.strerror(number) in str(error) for number in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    return error.cause if isinstance(error, HwnasError) else first_line(error)


def _no_place(error: OSError) -> HwnasError:
    return HwnasError(
        f"no temporary folder can be made: {first_line(error)}",
        "free space in the folder that TMPDIR names, or name another one: TMPDIR=FOLDER",
    )
