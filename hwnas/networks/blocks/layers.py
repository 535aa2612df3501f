"""What the layers of several families have in common."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hwnas.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "swish": nn.SiLU,
    "hswish": nn.Hardswish,
    "gelu": nn.GELU,
}


def check_properties(*, kernel: int = 1, expand: int = 1, depth: int = 1, width: float = 1.0) -> None:
    """Raise ValueError, naming the property, for what no candidate of any family has."""
    if kernel % 2 == 0 or not 1 <= kernel <= 31:
        raise ValueError(f"kernel is {kernel}, it must be odd and from 1 to 31")
    if not 1 <= expand <= 16:
        raise ValueError(f"expand is {expand}, it must be from 1 to 16")
    if not 1 <= depth <= 64:
        raise ValueError(f"depth is {depth}, it must be from 1 to 64")
    if not 0 < width <= 4:
        raise ValueError(f"width is {width}, it must be above 0 and at most 4")


class SqueezeExcite(nn.Module):
    """Channel gates from the pooled map (SENet eq. 2–4). x: (B, C, H, W) → the same shape."""

    def __init__(self, channels: int, reduced: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid() if activation is nn.Hardswish else nn.Sigmoid()  # MobileNetV3, 5.3

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        gates: Tensor = self.gate(self.expand(self.activation(self.reduce(pooled))))
        return x * gates


def strides(name: str, depth: int, in_shape: Sequence[int], out_shape: Sequence[int]) -> list[int]:
    """The stride of each of `depth` layers: the map is halved, rounded up, as early as possible.

    Args:
        name: of the candidate, for the message.

    Raises:
        InputError: as for `plan`.
    """
    size, found = list(in_shape[1:]), []
    for _ in range(depth):
        found.append(2 if size[0] > out_shape[1] else 1)
        size = [-(-side // found[-1]) for side in size]
    if size != list(out_shape[1:]):
        raise InputError(
            f"candidate {name} cannot turn a map of {tuple(in_shape[1:])} into {tuple(out_shape[1:])}",
            "give it more layers (depth)",
        )
    return found


def divisible(channels: float) -> int:
    """The nearest multiple of 8, never below 8 nor below 0.9 of what was asked (MobileNetV3's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
