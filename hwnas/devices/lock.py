"""One process at a time uses a device: a lock that the kernel takes back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from hwnas.errors import DeviceBusyError, DeviceError
from hwnas.files import hwnas_home, safe_name, sha256

POLL_S = 0.1


class DeviceLock:
    """An exclusive lock on a piece of hardware, among the processes of one user.

    Args:
        name: the hardware; any text, it never becomes a path of its own.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # The hash keeps names apart that look the same once their special characters are gone.
        file = f"{safe_name(name)}-{sha256(name.encode())[:8]}.lock"
        self.path: Path = hwnas_home() / "locks" / file
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float = 60.0) -> None:
        """Take the lock, waiting up to `timeout_s` seconds for its holder.

        Raises:
            DeviceBusyError: another process (or another device object of this one) still holds it.
            DeviceError: the lock file cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._wait(descriptor, time.monotonic() + timeout_s)
            os.ftruncate(descriptor, 0)
            os.pwrite(
                descriptor, f"pid {os.getpid()} ({' '.join(sys.argv)[:200]})".encode(errors="replace"), 0
            )
        except OSError as error:
            os.close(descriptor)
            raise self._unusable(error) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without one this does nothing. The file stays: deleting it would be a race."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _wait(self, descriptor: int, deadline_s: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    holder = os.pread(descriptor, 1024, 0).decode(errors="replace") or "another process"
                    raise DeviceBusyError(
                        f"device {self.name} is in use by {holder}",
                        "wait until it has ended, or stop it with `kill PID`",
                    ) from None
            time.sleep(POLL_S)

    def _unusable(self, error: OSError) -> DeviceError:
        return DeviceError(
            f"cannot lock device {self.name} with {self.path}: {error.strerror}",
            "set HWNAS_HOME to a folder on a local disk that you may write to",
        )
