"""A device that goes away in the middle of a search as long as a file lies beside it, and leaves notes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from steady_device import Modelled  # type: ignore[import-not-found]  # found in a furnished folder

from hwnas.devices.base import Handle
from hwnas.errors import DeviceError, DeviceLostError
from hwnas.network import Network


class Fickle(Modelled):  # type: ignore[misc]
    """Options: `chip`; `breaks`, lost at its fifth network while `broken` exists, and its process killed
    while `deadly` does; `waits`, meets another; `needs`, a file without which it is not there.

    Who opens and closes it is written into `notes`, a line each.
    """

    prepared = 0

    @property
    def lock_name(self) -> str:
        return str(self.profile.options.get("chip", self.profile.name))

    def open_impl(self) -> None:
        needs = str(self.profile.options.get("needs", ""))
        if needs and not Path(needs).exists():
            raise DeviceError(f"there is no {needs}", f"plug the {needs} in")
        self._note("open")

    def close_impl(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        with Path("notes").open("a") as file:
            file.write(f"{self.profile.name} {what} {os.getpid()} {time.monotonic_ns()}\n")

    def prepare_impl(self, network: Network) -> Handle:
        self.prepared += 1
        if self.profile.options.get("breaks") and self.prepared > 5 and Path("broken").exists():
            raise DeviceLostError("the cable was pulled", "plug it in")
        if self.profile.options.get("breaks") and self.prepared > 5 and Path("deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        self._meet()
        handle: Handle = super().prepare_impl(network)
        return handle

    def _meet(self) -> None:
        """Wait until the other one is at its first network as well: they must be searched side by side."""
        other = str(self.profile.options.get("waits", ""))
        if other and self.prepared == 1:
            Path(f"{self.profile.name}.met").touch()
            deadline_s = time.monotonic() + 60
            while not Path(f"{other}.met").exists() and time.monotonic() < deadline_s:
                time.sleep(0.02)
            if not Path(f"{other}.met").exists():
                raise DeviceLostError("the other one never came", "search them side by side")
