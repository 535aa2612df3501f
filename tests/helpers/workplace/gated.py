"""The tiny network, whose training on a Ray worker stands still at its fifth batch until `go` exists."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import tinynet  # type: ignore[import-not-found]  # found in a furnished folder
from torch import Tensor, nn

ON_WORKER = "default_worker" in sys.argv[0]
HELD_AT = 5


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if ON_WORKER and self.calls == HELD_AT:
            Path(f"held-{os.getpid()}").touch()
            while not Path("go").exists():
                time.sleep(0.02)
        return x


def make() -> nn.Module:
    network: nn.Module = tinynet.make()
    assert isinstance(network.stem, nn.Sequential)
    network.stem.insert(0, Gate())
    return network
