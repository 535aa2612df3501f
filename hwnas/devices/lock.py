"""One process at a time uses a device: a lock that the kernel takes back when its holder dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hwnas.errors import DeviceBusyError, DeviceError
from hwnas.files import hwnas_home, safe_name, sha256
from hwnas.locks import take_lock


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
            self._descriptor = take_lock(self.path, timeout_s)
            holder = f"pid {os.getpid()} ({' '.join(sys.argv)[:200]})"
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, holder.encode(errors="replace"))
        except BlockingIOError:
            holder = self.path.read_text(errors="replace") or "another process"
            raise DeviceBusyError(
                f"device {self.name} is in use by {holder}",
                "wait until it has ended, or stop it with `kill PID`",
            ) from None
        except OSError as error:
            self.release()
            raise DeviceError(
                f"cannot lock device {self.name} with {self.path}: {error.strerror}",
                "set HWNAS_HOME to a folder on a local disk that you may write to",
            ) from None

    def release(self) -> None:
        """Give the lock back; without one this does nothing. The file stays: deleting it would be a race."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
