"""The tiny network from a module that says what it does."""

from __future__ import annotations

import tinynet  # type: ignore[import-not-found]  # found in a furnished folder
from torch import nn

print("hello from a module of one's own")


def make() -> nn.Module:
    print("making it")
    network: nn.Module = tinynet.make()
    return network
