"""What the candidates of several families are told by: kernel, depth, width, activation and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwnas.measurement import STRICT
from hwnas.networks.blocks.layers import Activation, Output, check_properties
from hwnas.ranges import Factor, Size


@dataclass(frozen=True, kw_only=True)
class PlainSpec:
    """One replacement of a block; the family says what each property is there.

    Attributes:
        output: what the block ends with, as the one that it replaces.
    """

    __pydantic_config__ = STRICT
    family: str
    kernel: Size
    depth: Size
    width: Factor
    activation: Activation
    output: Output

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """Family and activation."""
        return self.family, self.activation

    @property
    def name(self) -> str:
        """`csp-k3-d2-swish-w0.5`, with how it ends where that is not so."""
        ends = "" if self.output == self.activation else f"-{self.output}"
        return f"{self.family}-k{self.kernel}-d{self.depth}-{self.activation}{ends}-w{self.width:g}"

    @property
    def inside(self) -> float:
        """Channels inside over the block's."""
        return self.width


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """The values of each property; how it ends is the block's own."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Activation | Literal["reference"], ...]
