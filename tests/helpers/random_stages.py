"""What stages of real networks do to a map (B, C, H, W), each as a module that keeps its shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = 2
GROUPS = 4


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU, as a stage begins that halves or widens its map."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


class Plain(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.body = nn.Sequential(convolution(channels, channels), *last)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class AddsToInput(Plain):
    """`x += y`: the stage writes the sum into its own input."""

    def forward(self, x: Tensor) -> Tensor:
        x += self.body(x.clone())
        return x


class AddsToOutput(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        y += x
        return y


class Depthwise(nn.Module):
    """An inverted bottleneck with squeeze-excitation that is multiplied in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1), nn.BatchNorm2d(wide), nn.Hardswish())
        self.depthwise = nn.Conv2d(wide, wide, 5, padding=2, groups=wide)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide, 1), nn.Hardsigmoid())
        self.project = nn.Conv2d(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = y * self.gate(y)
        z: Tensor = x + self.project(y)
        return z


class Grouped(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(channels, channels, 3, padding=1, groups=GROUPS)
        self.norm = nn.GroupNorm(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolve(x)))


class LastChannels(nn.Module):
    """Depthwise, then LayerNorm and linear layers on maps whose channels come last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        z: Tensor = x + y.permute(0, 3, 1, 2)
        return z


class GatesInput(nn.Module):
    """`x.mul_(gate)` of the stage's own input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gate(x))


class Chunked(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = convolution(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([second, self.body(first)], 1)


class Split(Chunked):
    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        first, second = torch.split(x, [half, half], 1)
        return torch.cat([self.body(first), second * 0.5], 1)


class HalvesInput(Plain):
    """A view of the input is changed in place, and so is the input."""

    def forward(self, x: Tensor) -> Tensor:
        half = x[:, x.shape[1] // 2 :]
        half.mul_(0.5)
        y: Tensor = self.body(x)
        return y


class Viewed(nn.Module):
    """A slice is taken before the whole is changed in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        half = y[:, : x.shape[1] // 2]
        y.mul_(3)
        return torch.cat([half, y[:, : x.shape[1] // 2] - 1], 1)


class Sliced(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shifted = functional.pad(x[:, :, 1:, :-1], (1, 0, 0, 1))
        z: Tensor = self.body(shifted) + x[:, torch.arange(x.shape[1] - 1, -1, -1)]
        return z


class Transposed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = convolution(channels, channels, stride=2)
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = x + self.up(self.down(x))
        return z


class Shuffled(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(4 * channels, 4 * channels, 1, groups=GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(functional.pixel_unshuffle(x, 2))
        return functional.pixel_shuffle(y, 2)


class Pooled(nn.Module):
    """Pooled to rows and to columns, which are added by broadcasting."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows, self.columns = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.body = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.body(self.rows(x)) + self.body(self.columns(x)))


class FunctionalLinear(nn.Module):
    """Parameters of the module's own, and no layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x.flatten(2).transpose(1, 2), self.weight, self.bias)
        return functional.relu(y, inplace=True).transpose(1, 2).reshape(x.shape)


class Twice(nn.Module):
    """One convolution that is called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.body(self.body(x)) + x
        return z


class Tied(nn.Module):
    """Two convolutions that have one weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.silu(self.first(x))))


class Attention(nn.Module):
    """Tokens of all pixels, attending each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = self.make(channels)

    def make(self, channels: int) -> nn.Module:
        return nn.MultiheadAttention(channels, HEADS, batch_first=True)

    def attend(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return tokens + y

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape)


class AttentionWithWeights(Attention):
    def attend(self, tokens: Tensor) -> Tensor:
        y, weights = self.attention(tokens, tokens, tokens)
        z: Tensor = tokens + y + weights.mean(-1, keepdim=True)
        return z


class EncoderLayer(Attention):
    def make(self, channels: int) -> nn.Module:
        return nn.TransformerEncoderLayer(channels, HEADS, 2 * channels, dropout=0.0, batch_first=True)

    def attend(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.attention(tokens)
        return y


class FunctionalAttention(Attention):
    def make(self, channels: int) -> nn.Module:
        return nn.Linear(channels, 3 * channels)

    def attend(self, tokens: Tensor) -> Tensor:
        q, k, v = self.attention(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return tokens + y.transpose(1, 2).flatten(2)


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "conv-bn-relu, conv-bn": Plain,
    "y += x": AddsToOutput,
    "x += y of its input": AddsToInput,
    "depthwise with squeeze-excitation": Depthwise,
    "grouped with GroupNorm": Grouped,
    "LayerNorm, channels last": LastChannels,
    "x.mul_(gate) of its input": GatesInput,
    "chunk and cat": Chunked,
    "split and cat": Split,
    "half of its input in place": HalvesInput,
    "view changed in place": Viewed,
    "slices": Sliced,
    "transposed convolution": Transposed,
    "pixel shuffle": Shuffled,
    "adaptive pooling": Pooled,
    "functional linear": FunctionalLinear,
    "one layer twice": Twice,
    "tied layers": Tied,
    "MultiheadAttention": Attention,
    "MultiheadAttention with weights": AttentionWithWeights,
    "TransformerEncoderLayer": EncoderLayer,
    "scaled_dot_product_attention": FunctionalAttention,
}
WRITES_TO_INPUT = ("x += y of its input", "x.mul_(gate) of its input", "half of its input in place")
