"""Convolutional candidates between tokens: the tokens of an image's patches are a map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, cat, nn

from hwnas.errors import InputError

MAX_OTHERS = 5  # a class token and four registers


def grid(name: str, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """The side of the square of patches that the last of T tokens are, and the number of tokens before them.

    Args:
        name: of the candidate, for the message.
        in_shape, out_shape: (T, C).

    Raises:
        InputError: T changes, or is no square and a few more.
    """
    tokens = in_shape[0]
    side = math.isqrt(tokens)
    others = tokens - side**2
    if tokens != out_shape[0] or others > MAX_OTHERS:
        raise InputError(
            f"candidate {name} needs a square map; {tuple(in_shape)} → {tuple(out_shape)} is none",
            "take a space with transformers: --space transformer",
        )
    return side, others


class OnPatches(nn.Module):
    """A candidate for maps, over tokens; tokens without a place learn from their old values and the mean map.

    x: (B, T, C_in) → (B, T, C_out)
    """

    def __init__(self, body: nn.Module, side: int, others: int, c_in: int, c_out: int) -> None:
        super().__init__()
        self.others = others
        self.as_map, self.as_tokens = (-1, c_in, side, side), (-1, c_out, side**2)
        self.body = body
        if others:
            self.keep, self.gather = nn.Linear(c_in, c_out), nn.Linear(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, self.others :].transpose(1, 2).reshape(self.as_map)
        y: Tensor = self.body(patches).reshape(self.as_tokens).transpose(1, 2)
        if not self.others:
            return y
        placeless = self.keep(x[:, : self.others]) + self.gather(y.mean(1, keepdim=True))
        return cat([placeless, y], 1)


def others_cost(others: int, c_in: int, c_out: int) -> tuple[int, int]:
    """MACs and parameters of `OnPatches` apart from its body."""
    if not others:
        return 0, 0
    return others * c_in * c_out + c_out**2, c_in * c_out + c_out**2 + 2 * c_out
