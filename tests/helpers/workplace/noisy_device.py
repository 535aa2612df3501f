"""A measured device with two modes: a repeat is right, or half as slow again, by chance with a fixed seed."""

from __future__ import annotations

import hashlib
from collections import Counter

from steady_device import Steady  # type: ignore[import-not-found]  # found in a furnished folder

from hwnas.devices.base import Handle


class Noisy(Steady):  # type: ignore[misc]
    def open_impl(self) -> None:
        self._asked = Counter[str]()

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        self._asked[handle.network_hash] += 1
        question = f"{handle.network_hash} {self._asked[handle.network_hash]}"
        slow = hashlib.sha256(question.encode()).digest()[0] % 2
        return [handle.state * (1.5 if slow else 1.0)] * runs
