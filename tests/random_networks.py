"""Small random networks, made of what real ones do to tensors: in place, shared, chunked, viewed, attending.

`build(recipe(seed))` for a seed, `@given(recipes())` for hypothesis, which then shrinks to few plain stages.
A network takes images (B, *network.input_shape), gives logits (B, CLASSES), and runs in eval and train mode.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
SIZES = ((32, 32), (24, 40), (40, 24), (16, 48))
HEADS = 2
GROUPS = 4

T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]


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
IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: nn.ReLU(inplace=True),
    "SiLU": lambda: nn.SiLU(inplace=True),
    "Hardswish": lambda: nn.Hardswish(inplace=True),
    "LeakyReLU": lambda: nn.LeakyReLU(0.1, inplace=True),
}
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu(inplace)": lambda x: functional.relu(x, inplace=True),
    "mul_": lambda x: x.mul_(0.7),
    "add": lambda x: x + 0.1,
}
NONE = "–"


@dataclass(frozen=True)
class StageRecipe:
    """A stage; it halves or widens the map first where `stride` or `channels` say so.

    Attributes:
        kind: of `KINDS`.
        start, end: an activation in place, of the stage's input and of its output.
        between: what the network does to the stage's output outside of any module.
        again: the module of the last stage that takes such a map takes this one's place, if there is one.
    """

    kind: str
    start: str = NONE
    end: str = NONE
    between: str = NONE
    stride: int = 1
    channels: int = 16
    again: bool = False


@dataclass(frozen=True)
class Recipe:
    """All that a network is made of.

    Attributes:
        size: (H, W) of the images.
        tied: the first and the last of the stages that have a layer of the same shape share its weight.
        in_place_input: the network normalises its input in place.
        scale: of the logits.
    """

    seed: int
    size: tuple[int, int]
    stages: tuple[StageRecipe, ...]
    tied: bool = False
    in_place_input: bool = False
    scale: float = 1.0


class RandomNetwork(nn.Module):
    """Images (B, 3, H, W) → logits (B, 10); `layer1` … are its stages."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.input_shape = (3, *recipe.size)
        first = recipe.stages[0].channels
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, padding=1, bias=False), nn.BatchNorm2d(first))
        self.built: list[str] = []
        self.tied: tuple[str, ...] = ()
        channels, halvings = recipe.stages[0].channels, 1
        keeping: dict[int, int] = {}
        for number, stage in enumerate(recipe.stages, 1):
            stride = stage.stride if halvings < 2 else 1
            known = keeping.get(channels) if stage.again else None
            if known is not None:
                module: nn.Module = getattr(self, f"layer{known}")
                self.built.append(f"layer{known} again")
            else:
                module = _stage(stage, channels, stride)
                self.built.append(_text(stage, channels, stride))
                if (channels, 1) == (stage.channels, stride):
                    keeping[channels] = number
                if stride != 1:
                    keeping.clear()
                channels, halvings = stage.channels, halvings + (stride != 1)
            setattr(self, f"layer{number}", module)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        if self.recipe.in_place_input:
            x.sub_(0.1).div_(0.9)
        x = self.stem(x)
        for number, stage in enumerate(self.recipe.stages, 1):
            x = getattr(self, f"layer{number}")(x)
            if stage.between != NONE:
                x = BETWEEN[stage.between](x)
        return self.head(x) * self.recipe.scale  # type: ignore[no-any-return]

    def describe(self) -> str:
        """What the network is made of, and how to build it again."""
        recipe = self.recipe
        more = [
            *["input normalised in place"] * recipe.in_place_input,
            *[f"{' and '.join(self.tied)} share a weight"] * bool(self.tied),
            *[f"logits × {recipe.scale:g}"] * (recipe.scale != 1),
        ]
        stages = [
            f"layer{number}: {text}" + (f", then {stage.between}" if stage.between != NONE else "")
            for number, (text, stage) in enumerate(zip(self.built, recipe.stages, strict=True), 1)
        ]
        return "\n".join([f"images {recipe.size}", *more, *stages, f"build({recipe})"])


def _stage(stage: StageRecipe, channels: int, stride: int) -> nn.Module:
    layers: list[nn.Module] = []
    if stage.start != NONE:
        layers.append(IN_PLACE[stage.start]())
    if (channels, 1) != (stage.channels, stride):
        layers.append(convolution(channels, stage.channels, stride))
    layers.append(KINDS[stage.kind](stage.channels))
    if stage.end != NONE:
        layers.append(IN_PLACE[stage.end]())
    return nn.Sequential(*layers)


def _text(stage: StageRecipe, channels: int, stride: int) -> str:
    parts = [f"in-place {stage.start}"] if stage.start != NONE else []
    if (channels, 1) != (stage.channels, stride):
        parts.append(f"convolution to {stage.channels} channels, stride {stride}")
    parts.append(stage.kind)
    parts += [f"in-place {stage.end}"] if stage.end != NONE else []
    return ", ".join(parts)


def _tie(network: RandomNetwork) -> None:
    """Let two convolutions or linear layers of one shape, in different stages, have one weight."""
    seen: dict[tuple[int, ...], tuple[int, nn.Module]] = {}
    for number in range(1, len(network.recipe.stages) + 1):
        for layer in getattr(network, f"layer{number}").modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear) or layer.weight is None:
                continue
            shape = tuple(layer.weight.shape)
            known = seen.setdefault(shape, (number, layer))
            if known[0] != number and known[1] is not layer:
                layer.weight = known[1].weight  # type: ignore[assignment]
                network.tied = f"layer{known[0]}", f"layer{number}"
                return


def _stir(network: nn.Module) -> None:
    """Weights that keep maps near 1, and running statistics as after some training."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def build(recipe: Recipe) -> RandomNetwork:
    """The network of a recipe, in eval mode; twice the same, and the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = RandomNetwork(recipe)
        _stir(network)
        if recipe.tied:
            _tie(network)
    return network.eval()


def _choose_recipe(choose: Choose, seed: int, kinds: Sequence[str], count: int) -> Recipe:  # type: ignore[type-arg]
    # Activations in place at one end only can mostly be trained; at both ends one spoils what the other kept.
    where = choose(("nowhere", "start", "end", "everywhere"))

    def sometimes(place: str, values: Sequence[str]) -> str:
        found: str = choose([NONE, NONE, *values]) if where in (place, "everywhere") else NONE
        return found

    stages = tuple(
        StageRecipe(
            kind=choose(kinds),
            start=sometimes("start", tuple(IN_PLACE)),
            end=sometimes("end", tuple(IN_PLACE)),
            between=sometimes("between", tuple(BETWEEN)),
            stride=choose((1, 1, 2)),
            channels=choose((16, 16, 8, 24)),
            again=choose((False,) * 5 + (True,)),
        )
        for _ in range(count)
    )
    return Recipe(
        seed=seed,
        size=choose(SIZES),
        stages=stages,
        tied=choose((False, False, False, True)),
        in_place_input=choose((False,) * 7 + (True,)),
        scale=choose((1.0, 1.0, 1.0, 1e-3)),
    )


def recipe(seed: int, kinds: Sequence[str] = tuple(KINDS)) -> Recipe:
    """A random recipe of 3 … 6 stages, by a seed alone."""
    generator = random.Random(seed)
    return _choose_recipe(generator.choice, seed, kinds, generator.randint(3, 6))


@st.composite
def recipes(draw: st.DrawFn, kinds: Sequence[str] = tuple(KINDS)) -> Recipe:
    """Recipes for hypothesis, which shrink to three plain stages without anything in place."""
    return _choose_recipe(
        lambda options: draw(st.sampled_from(list(options))),
        draw(st.integers(0, 2**32 - 1)),
        kinds,
        draw(st.integers(3, 6)),
    )
