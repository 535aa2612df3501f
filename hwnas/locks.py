"""Locks among processes: the kernel takes each one back when its holder dies."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.1


def take_lock(path: Path, wait_s: float = 0.0) -> int:
    """Lock a folder, or a file, which is made where there is none; the descriptor that holds the lock.

    Closing the descriptor gives the lock back. A process that inherits it holds the lock as well.

    Args:
        wait_s: how long to wait for another holder.

    Raises:
        BlockingIOError: there still is another holder.
        OSError: the file cannot be made or locked.
    """
    deadline_s = time.monotonic() + wait_s
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise
            time.sleep(POLL_S)
    except BaseException:
        os.close(descriptor)
        raise


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; one that is not there is held by none, and not made.

    Whoever takes the lock in the very moment of the question has to wait for it.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock on a folder or a file, and wait for another holder as long as it takes.

    Args:
        waiting: called once if there is another holder.

    Raises:
        OSError: the file cannot be made or locked.
    """
    try:
        descriptor = take_lock(path)
    except BlockingIOError:
        waiting()
        descriptor = take_lock(path, math.inf)
    try:
        yield
    finally:
        os.close(descriptor)
