"""What a family of candidates is: one value in one file, found by the entry point `hwnas.block_families`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn

from hwnas.errors import InputError, is_out_of_memory
from hwnas.networks.blocks.layers import Activation, Output
from hwnas.networks.blocks.variants import find_gates

Shape = Sequence[int]

REFERENCE = "reference"
"""In the file of a space: as the block itself has it."""

ACTIVATION_NAMES: dict[str, Activation] = {
    "relu": "relu",
    "relu6": "relu",
    "silu": "swish",
    "swish": "swish",
    "hardswish": "hswish",
    "gelu": "gelu",
    "leakyrelu": "leaky_relu",
    "prelu": "prelu",
}
"""How a space calls the activations whose classes have these names in lower case."""

MARGIN = 16
"""By how many pixels a map is enlarged to see what a block does to its border."""


class FamilySpec(Protocol):
    """A replacement of a block: a frozen dataclass, whose field `family` is the name of its family."""

    @property
    def family(self) -> str:
        """The family's name."""

    @property
    def name(self) -> str:
        """Short, readable and unique in the family."""

    @property
    def kind(self) -> tuple[str, ...]:
        """What candidates of one kind have in common; a few of a space are taken in turn from each.

        The first is the family, the second says most about its layers.
        """

    @property
    def depth(self) -> int:
        """Number of layers."""

    @property
    def inside(self) -> float:
        """Channels inside of a layer over those of the block."""


S = TypeVar("S", bound=FamilySpec)
T = TypeVar("T")


class Original:
    """What a block of the reference has, where candidates are made after it.

    Args:
        module: the block, in eval mode.
        in_shape: of its input, without the batch dimension.
        name: for messages.
    """

    def __init__(self, module: nn.Module, in_shape: Shape, name: str) -> None:
        self._module, self._in_shape, self._name = module, in_shape, name

    @cached_property
    def activation(self) -> Activation:
        """The one that it uses most. Raises InputError: it has none that a space has a word for."""
        found = Counter(
            word
            for name, child in self._module.named_modules()
            if (word := _word(child)) and not any(name.startswith(f"{gate}.") for gate in self._gates)
        )
        if not found:
            words = ", ".join(get_args(Activation))
            raise InputError(
                f"{self._name} has no activation that is a module and one of {words}",
                "name the activation in a space of your own: --space FILE.toml (docs/spaces.md)",
            )
        return found.most_common(1)[0][0]

    @cached_property
    def se(self) -> bool:
        """Whether it has squeeze-and-excitation."""
        return bool(self._gates)

    @cached_property
    def is_never_negative(self) -> bool:
        """Whether it ends in a ReLU, known by what it gives."""
        with torch.inference_mode():
            return bool((self._module(self._random(self._in_shape)) >= 0).all())

    @cached_property
    def output(self) -> Output:
        """What it ends with: the activation whose output is the block's, or "linear"."""
        ends: list[tuple[Activation, Tensor]] = []

        def hook(child: nn.Module, inputs: object, output: Any) -> None:
            word = _word(child)
            if word is not None:
                ends.append((word, output))

        handles = [child.register_forward_hook(hook) for child in self._module.modules()]
        try:
            with torch.inference_mode():
                y = self._module(self._random(self._in_shape))
        finally:
            for handle in handles:
                handle.remove()
        if ends and ends[-1][1] is y:
            return ends[-1][0]
        return "relu" if bool((y >= 0).all()) else "linear"

    @cached_property
    def loses_border(self) -> bool:
        """Whether its map is smaller than its input by some pixels, whatever the size of that.

        It is, where convolutions are not padded. One size alone does not tell that from a stride.
        """
        if len(self._in_shape) != 3:
            return False
        channels, rows, columns = self._in_shape
        try:
            with torch.inference_mode():
                small = self._module(self._random((channels, rows, columns))).shape
                large = self._module(self._random((channels, rows + MARGIN, columns + MARGIN))).shape
        except Exception as error:  # a block for maps of one size
            if is_out_of_memory(error):
                raise
            return False
        if len(small) != 4 or len(large) != 4:
            return False
        grown = large[2] - small[2], large[3] - small[3]
        return small[2] < rows and grown == (MARGIN, MARGIN)

    def _random(self, shape: Shape) -> Tensor:
        return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))

    @cached_property
    def _gates(self) -> tuple[str, ...]:
        return find_gates(self._module, self._in_shape)


def _word(module: nn.Module) -> Activation | None:
    return ACTIVATION_NAMES.get(type(module).__name__.lower())


def _from_scratch(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """Leave a candidate's weights as they are."""


@dataclass(frozen=True, kw_only=True)
class Family(Generic[S, T]):
    """All that hwnas has to know of a family.

    Shapes are maps (C, H, W), or tokens (T, C) where it takes those; what cannot stand between two shapes
    raises InputError, in `build` and `cost` alike.

    Attributes:
        spec: class of its candidates; what it cannot be raises ValueError when it is made.
        table: class of its table in the file of a space; each field holds the values of a property.
        specs: every candidate of a table for a block.
        build: the untrained module of a candidate, from the block's input shape to its output shape.
        cost: MACs and parameters of that module, in closed form.
        match_output: gives a fresh module's output about this mean and variance (C,) in each channel: AdamW
            moves a weight by no more than the learning rate a step, too little to find the scale of a small
            map in one epoch.
        learning_rate: of AdamW with batches of 64; a function of the candidate where they differ in it.
        inherit: gives a fresh module weights of the block that it replaces, whose output has this variance.
        takes_tokens: `build` and `cost` know tokens; otherwise the patches of an image are a map for it.
    """

    spec: type[S]
    table: type[T]
    specs: Callable[[T, Original], list[S]]
    build: Callable[[S, Shape, Shape], nn.Module]
    cost: Callable[[S, Shape, Shape], tuple[int, int]]
    match_output: Callable[[nn.Module, Tensor, Tensor], None]
    learning_rate: float | Callable[[S], float]
    inherit: Callable[[nn.Module, nn.Module, Tensor], None] = _from_scratch
    takes_tokens: bool = False


def crossed(table: Any) -> list[dict[str, Any]]:
    """Every combination of the values of a table's fields; a field that is None is left out."""
    given = {field.name: getattr(table, field.name) for field in fields(table)}
    given = {name: values for name, values in given.items() if values is not None}
    return [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]


def resolved(table: Any, block: Original) -> list[dict[str, Any]]:
    """As `crossed`, with the block's own activation for `reference`.

    Raises:
        InputError: only the block's own activation is wanted, and it has none.
    """
    found = []
    for values in crossed(table):
        if values["activation"] == REFERENCE:
            try:
                values["activation"] = block.activation
            except InputError:
                if set(table.activation) == {REFERENCE}:
                    raise
                continue
        found.append(values)
    return found
