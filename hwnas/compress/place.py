"""Where networks are trained and judged: on the CPU, or on a GPU.

Outside of training every module and every tensor is on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from hwnas.errors import InputError, first_line

Place = Literal["cpu", "cuda"]


def find_place() -> Place:
    """A GPU where torch reaches one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_place(place: Place) -> None:
    """Make sure that torch can compute there.

    Raises:
        InputError: it cannot.
    """
    try:
        torch.ones(1, device=place).add(1)
    except (RuntimeError, AssertionError) as error:  # builds of torch without CUDA assert that they have it
        raise InputError(
            f"nothing can be trained on {place}: {first_line(error)}",
            "mend that, or begin another run on the CPU: --train-on cpu --out PATH",
        ) from None


@contextmanager
def placed(place: Place, *modules: nn.Module) -> Iterator[None]:
    """Modules are there, channels last, until the end; then on the CPU again."""
    for module in modules:
        module.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        if place != "cpu":
            for module in modules:
                module.cpu()
