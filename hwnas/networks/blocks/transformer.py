"""The family of transformer layers: fewer of them and of heads, a narrower MLP (ViT, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.measurement import STRICT
from hwnas.networks.blocks.convnext import Resample, match_resample, plan_map
from hwnas.networks.blocks.family import Family, Original, crossed
from hwnas.networks.blocks.layers import NORM_EPS, Activation, check_properties, make_activation, slopes
from hwnas.ranges import Factor, Size

POSITION_KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class TransformerSpec:
    """One replacement of a block: a chain of transformer layers, of tokens or of the pixels of a map.

    Attributes:
        depth: number of layers.
        heads: of the attention.
        head_channels: of queries, keys and values of one head.
        mlp: hidden channels of the MLP / the block's channels.
        activation: of the MLP.
    """

    __pydantic_config__ = STRICT
    family: Literal["transformer"] = "transformer"
    depth: Size
    heads: Size
    head_channels: Size
    mlp: Factor
    activation: Activation

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(depth=self.depth)
        if not 1 <= self.heads <= 64:
            raise ValueError(f"heads is {self.heads}, it must be from 1 to 64")
        if not 4 <= self.head_channels <= 256:
            raise ValueError(f"head_channels is {self.head_channels}, it must be from 4 to 256")
        if not 0.125 <= self.mlp <= 16:
            raise ValueError(f"mlp is {self.mlp}, it must be from 0.125 to 16")

    @property
    def kind(self) -> tuple[str, ...]:
        """Family and activation."""
        return self.family, self.activation

    @property
    def name(self) -> str:
        """`transformer-d2-h3x64-m2-gelu`."""
        return f"transformer-d{self.depth}-h{self.heads}x{self.head_channels}-m{self.mlp:g}-{self.activation}"

    @property
    def inside(self) -> float:
        """Hidden channels of the MLP over the block's."""
        return self.mlp


@dataclass(frozen=True, kw_only=True)
class TransformerTable:
    """The values of each property."""

    __pydantic_config__ = STRICT
    depth: tuple[Size, ...]
    heads: tuple[Size, ...]
    head_channels: tuple[Size, ...]
    mlp: tuple[Factor, ...]
    activation: tuple[Activation, ...]


def transformer_specs(table: TransformerTable, block: Original) -> list[TransformerSpec]:
    """Every candidate of a table, whatever the block."""
    return [TransformerSpec(**values) for values in crossed(table)]


class TransformerLayer(nn.Module):
    """Attention and MLP, each behind a normalisation and beside a skip. x: (B, T, C) → the same shape

    Shapes are fixed, so that its graph computes none.
    """

    def __init__(self, spec: TransformerSpec, tokens: int, channels: int) -> None:
        super().__init__()
        self.split = (-1, tokens, spec.heads, spec.head_channels)
        self.joined = (-1, tokens, spec.heads * spec.head_channels)
        self.factor = spec.head_channels**-0.5
        hidden = _hidden(spec, channels)
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.query, self.key, self.value = (nn.Linear(channels, self.joined[2]) for _ in range(3))
        self.merge = nn.Linear(self.joined[2], channels)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), make_activation(spec.activation), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def _attention(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).reshape(self.split).permute(0, 2, 1, 3) for layer in (self.query, self.key, self.value)
        )  # (B, heads, T, head channels)
        weights = (q * self.factor @ k.transpose(2, 3)).softmax(3)
        y: Tensor = self.merge((weights @ v).permute(0, 2, 1, 3).reshape(self.joined))
        return y


class OnPixels(nn.Module):
    """Transformer layers over the pixels of a map, told where they are by a depthwise convolution (CPVT).

    x: (B, C, H, W) → the same shape
    """

    def __init__(self, spec: TransformerSpec, shape: Sequence[int]) -> None:
        super().__init__()
        channels, rows, columns = shape
        self.as_tokens, self.as_map = (-1, channels, rows * columns), (-1, channels, rows, columns)
        self.position = nn.Conv2d(channels, channels, POSITION_KERNEL, padding=1, groups=channels)
        self.layers = nn.Sequential(
            *(TransformerLayer(spec, rows * columns, channels) for _ in range(spec.depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(x)
        y: Tensor = self.layers(x.reshape(self.as_tokens).transpose(1, 2))
        return y.transpose(1, 2).reshape(self.as_map)


class Widen(nn.Sequential):
    """Sets the channels of tokens. x: (B, T, C_in) → (B, T, C_out)"""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.LayerNorm(c_in, eps=NORM_EPS), nn.Linear(c_in, c_out))


def build_on_tokens(
    spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> nn.Sequential:
    """The untrained module of a candidate between tokens (T, C). Raises InputError if T changes."""
    (tokens, c_in), c_out = in_shape, out_shape[1]
    _check_tokens(spec, in_shape, out_shape)
    widen = [] if c_in == c_out else [Widen(c_in, c_out)]
    return nn.Sequential(*widen, *(TransformerLayer(spec, tokens, c_out) for _ in range(spec.depth)))


def build_on_map(spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `layers.strides`.

    Attention looks at the map that comes out; where that is smaller, the map is halved before all layers.
    """
    plan = plan_map(spec.name, spec.depth, 1.0, in_shape, out_shape)
    halvings = [Resample(before) for before in plan.before if before is not None]
    return nn.Sequential(*halvings, OnPixels(spec, out_shape))


def cost_on_tokens(
    spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_on_tokens`."""
    (tokens, c_in), c_out = in_shape, out_shape[1]
    _check_tokens(spec, in_shape, out_shape)
    macs, params = _layer_cost(spec, tokens, c_out)
    widen = 0 if c_in == c_out else c_in * c_out
    biases = 2 * c_in + c_out if widen else 0
    return spec.depth * macs + tokens * widen, spec.depth * params + widen + biases


def cost_on_map(spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_on_map`."""
    plan = plan_map(spec.name, spec.depth, 1.0, in_shape, out_shape)
    pixels, channels = plan.pixels[-1], plan.channels
    macs, params = _layer_cost(spec, pixels, channels)
    position = POSITION_KERNEL**2 * channels
    around = plan.cost
    return (
        around[0] + position * pixels + spec.depth * macs,
        around[1] + position + channels + spec.depth * params,
    )


def build_transformer(spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Module:
    """The untrained module of a candidate, between maps or between tokens."""
    build = build_on_map if len(in_shape) == 3 else build_on_tokens
    return build(spec, in_shape, out_shape)


def transformer_cost(
    spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_transformer`."""
    cost = cost_on_map if len(in_shape) == 3 else cost_on_tokens
    return cost(spec, in_shape, out_shape)


@torch.no_grad()
def match_transformer(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """As `Family.match_output`: what sets the channels gets the teacher's statistics, the rest adds 0."""
    match_resample(module, mean, variance)
    for layer in module.modules():
        if isinstance(layer, Widen):
            linear = layer[1]
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            linear.weight.mul_(variance.sqrt()[:, None])
            linear.bias.copy_(mean)
        elif isinstance(layer, TransformerLayer):
            for last in (layer.merge, layer.mlp[2]):
                assert isinstance(last, nn.Linear)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        elif isinstance(layer, OnPixels):
            nn.init.zeros_(layer.position.weight)
            assert layer.position.bias is not None
            nn.init.zeros_(layer.position.bias)


def _check_tokens(spec: TransformerSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
    if in_shape[0] != out_shape[0]:
        raise InputError(
            f"candidate {spec.name} cannot turn {in_shape[0]} tokens into {out_shape[0]}",
            "cut where the number of tokens stays the same",
        )


def _hidden(spec: TransformerSpec, channels: int) -> int:
    return max(8, round(channels * spec.mlp))


def _layer_cost(spec: TransformerSpec, tokens: int, channels: int) -> tuple[int, int]:
    """MACs and parameters of one layer; both products of the attention are among the MACs."""
    inner, hidden = spec.heads * spec.head_channels, _hidden(spec, channels)
    weights = channels * (4 * inner + 2 * hidden)
    return tokens * weights + 2 * tokens**2 * inner, weights + 3 * inner + hidden + 6 * channels + slopes(
        spec.activation, 1
    )


TRANSFORMER = Family(
    spec=TransformerSpec,
    table=TransformerTable,
    specs=transformer_specs,
    build=build_transformer,
    cost=transformer_cost,
    match_output=match_transformer,
    learning_rate=5e-3,
    takes_tokens=True,
)
