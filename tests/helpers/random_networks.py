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
from random_stages import KINDS, convolution
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
SIZES = ((32, 32), (24, 40), (40, 24), (16, 48))

T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]


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
