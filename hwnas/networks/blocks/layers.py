"""What the layers of several families have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.errors import InputError

Activation = Literal["relu", "swish", "hswish", "gelu", "leaky_relu", "prelu"]
"""Every word for an activation, in spaces, names and files."""
Output = Literal["linear", "relu", "swish", "hswish", "gelu", "leaky_relu", "prelu"]
"""What a candidate ends with: one of these activations, or none."""
Norm = Literal["none", "batch", "layer"]

LEAKY_SLOPE = 0.1  # waifu2x, YOLOP
NORM_EPS = 1e-6
NEAR_MEAN = 0.1


def make_activation(word: str, channels: int = 1) -> nn.Module:
    """The module of an activation.

    Args:
        word: one of `Activation`; "linear" changes nothing.
        channels: of the map that it is given, (B, C, H, W); a PReLU has a slope for each.
    """
    if word == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE)
    if word == "prelu":
        return nn.PReLU(channels)
    plain: dict[str, type[nn.Module]] = {
        "linear": nn.Identity,
        "relu": nn.ReLU,
        "swish": nn.SiLU,
        "hswish": nn.Hardswish,
        "gelu": nn.GELU,
    }
    return plain[word]()


def slopes(word: str, channels: int) -> int:
    """Parameters of an activation."""
    return channels if word == "prelu" else 0


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel. x: (B, C, H, W) → the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        y = functional.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return y.permute(0, 3, 1, 2)


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """The module of a normalisation of maps (B, C, H, W)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return ChannelNorm(channels, eps=NORM_EPS) if norm == "layer" else nn.Identity()


@torch.no_grad()
def start_norm(convolution: nn.Module, norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Let a convolution with its normalisation give this mean and variance (C,) in each channel.

    Without a normalisation (Identity) the scale of what goes in is not known, so that the output starts near
    the mean: one that is several times too large costs more steps than one that is too small.
    """
    assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
    if isinstance(norm, nn.BatchNorm2d | ChannelNorm):
        norm.weight.copy_(variance.sqrt())
        norm.bias.copy_(mean)
        return
    is_transposed = isinstance(convolution, nn.ConvTranspose2d)
    fan_in = convolution.in_channels * convolution.weight[0, 0].numel() / convolution.stride[0] ** 2
    fan_in = fan_in if is_transposed else convolution.weight[0].numel()
    nn.init.normal_(convolution.weight, std=NEAR_MEAN * fan_in**-0.5)
    convolution.weight.mul_(variance.sqrt().view((1, -1, 1, 1) if is_transposed else (-1, 1, 1, 1)))
    assert convolution.bias is not None
    convolution.bias.copy_(mean)


@torch.no_grad()
def start_inside(convolution: nn.Conv2d) -> None:
    """Let a convolution without a normalisation, before a ReLU, keep the scale of what goes in."""
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


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

    def __init__(self, channels: int, reduced: int, activation: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = make_activation(activation, reduced)
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid() if activation == "hswish" else nn.Sigmoid()  # MobileNetV3, 5.3

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        gates: Tensor = self.gate(self.expand(self.activation(self.reduce(pooled))))
        return x * gates


def strides(name: str, depth: int, in_shape: Sequence[int], out_shape: Sequence[int]) -> list[int]:
    """The stride of each of `depth` layers: the map is halved, rounded up, as early as possible.

    Args:
        name: of the candidate, for the message.

    Raises:
        InputError: the map grows, or shrinks otherwise than by so many halves.
    """
    size, found = list(in_shape[1:]), []
    for _ in range(depth):
        found.append(2 if size[0] > out_shape[1] else 1)
        size = [-(-side // found[-1]) for side in size]
    if size != list(out_shape[1:]):
        raise InputError(
            f"candidate {name} cannot turn a map of {tuple(in_shape[1:])} into {tuple(out_shape[1:])}",
            _what_could(in_shape, out_shape),
        )
    return found


def _what_could(in_shape: Sequence[int], out_shape: Sequence[int]) -> str:
    """What may stand between maps between which a candidate does not."""
    (_, rows, columns), (_, rows_out, columns_out) = in_shape, out_shape
    if rows_out > rows or columns_out > columns:
        return "take a space of layers that enlarge a map: --space upsample"
    while rows > rows_out:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if (rows, columns) == (rows_out, columns_out):
        return "give it more layers (depth)"
    return "a layer keeps a map or halves it, rounded up; convolutions without padding: --space convolution"


def divisible(channels: float) -> int:
    """The nearest multiple of 8, never below 8 nor below 0.9 of what was asked (MobileNetV3's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
