"""Spaces: which properties candidates may have. Each one is a TOML file, beside this one or the user's."""

from __future__ import annotations

import difflib
import importlib.resources
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from hwnas.errors import InputError
from hwnas.files import decode, encode, read_toml
from hwnas.measurement import STRICT
from hwnas.networks.blocks.convnext import ConvNextSpec
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec
from hwnas.networks.blocks.residual import ResidualSpec
from hwnas.networks.blocks.transformer import TransformerSpec
from hwnas.ranges import Factor, Size, SizeOrNone

_SPACES = importlib.resources.files("hwnas.compress.library") / "spaces"
REFERENCE = "reference"
"""As the block itself has it."""

_Activation = Literal["relu", "swish", "hswish", "reference"]
_Se = bool | Literal["reference"]
_Layer = Literal["depthwise", "grouped"]


@dataclass(frozen=True, kw_only=True)
class Properties:
    """The values that each property may have; they are those of `blocks.InvertedBottleneckSpec`."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...] | None = None
    expand: tuple[Size, ...] | None = None
    depth: tuple[Size, ...] | None = None
    activation: tuple[_Activation, ...] | None = None
    se: tuple[_Se, ...] | None = None
    layer: tuple[_Layer, ...] | None = None
    width: tuple[Factor, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Together:
    """Values of some properties that only go together."""

    __pydantic_config__ = STRICT
    kernel: Size | None = None
    expand: Size | None = None
    depth: Size | None = None
    activation: _Activation | None = None
    se: _Se | None = None
    layer: _Layer | None = None
    width: Factor | None = None


@dataclass(frozen=True, kw_only=True)
class ResidualProperties:
    """The values of each property of `families.ResidualSpec`; how it ends is the block's own."""

    __pydantic_config__ = STRICT
    layer: tuple[Literal["basic", "bottleneck"], ...]
    kernel: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Literal["relu", "swish", "hswish"], ...]
    se: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class ConvNextProperties:
    """The values of each property of `families.ConvNextSpec`."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...]
    expand: tuple[Size, ...]
    depth: tuple[Size, ...]
    width: tuple[Factor, ...]
    activation: tuple[Literal["gelu", "relu", "swish", "hswish"], ...]


@dataclass(frozen=True, kw_only=True)
class TransformerProperties:
    """The values of each property of `families.TransformerSpec`."""

    __pydantic_config__ = STRICT
    depth: tuple[Size, ...]
    heads: tuple[Size, ...]
    head_channels: tuple[Size, ...]
    mlp: tuple[Factor, ...]
    activation: tuple[Literal["gelu", "relu", "swish", "hswish"], ...]


_OtherSpec = ResidualSpec | ConvNextSpec | TransformerSpec


@dataclass(frozen=True, kw_only=True)
class Space:
    """What the candidates of a block may be: every combination of the properties of each family.

    Attributes:
        smaller: only candidates with fewer MACs and fewer parameters than the block.
        per_block: how many of them a block gets at most; 0 is all.
        properties, together: of inverted bottlenecks; each property is named in the one, or in each of the
            other.
        residual, convnext, transformer: of these families.
    """

    __pydantic_config__ = STRICT
    name: str
    description: str
    smaller: bool
    properties: Properties = Properties()
    together: tuple[Together, ...] = ()
    per_block: SizeOrNone = 0
    residual: ResidualProperties | None = None
    convnext: ConvNextProperties | None = None
    transformer: TransformerProperties | None = None

    @property
    def has_inverted_bottlenecks(self) -> bool:
        """Whether inverted bottlenecks are among its families."""
        return bool(_given(self.properties) or self.together)

    def other_families(self, output: Literal["relu", "linear"]) -> list[_OtherSpec]:
        """Every candidate of the other families. output: what residual candidates end with."""
        return [
            *(ResidualSpec(**values, output=output) for values in _crossed(self.residual)),
            *(ConvNextSpec(**values) for values in _crossed(self.convnext)),
            *(TransformerSpec(**values) for values in _crossed(self.transformer)),
        ]

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination, as arguments of `InvertedBottleneckSpec`; `reference` is not resolved yet."""
        if not self.has_inverted_bottlenecks:
            return []
        crossed = _given(self.properties)
        groups = [_given(group) for group in self.together] or [{}]
        return [
            dict(zip(crossed, values, strict=True)) | group
            for values in itertools.product(*crossed.values())
            for group in groups
        ]


def space_names() -> list[str]:
    """The names of the spaces that come with hwnas."""
    return sorted(_files())


def load_space(name_or_path: str) -> Space:
    """Read a space.

    Args:
        name_or_path: one of `space_names`, or the path of a `.toml` file.

    Raises:
        InputError: no such space, or a file that is not one; the offending key is named.
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))
    file = _files().get(name_or_path)
    if file is None:
        near = difflib.get_close_matches(name_or_path, space_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"there is no space {name_or_path!r}",
            f"{hint}spaces: {', '.join(space_names())}, or the path of a .toml file (docs/spaces.md)",
        )
    with importlib.resources.as_file(file) as path:
        return _read(path)


def _files() -> dict[str, Traversable]:
    files = (file for file in _SPACES.iterdir() if file.name.endswith(".toml"))
    return {file.name.removesuffix(".toml"): file for file in files}


def _read(path: Path) -> Space:
    space = decode(Space, read_toml(path), path)
    try:
        _check(space)
    except ValueError as error:
        raise InputError(f"{path}: {error}", f"correct it in {path}") from None
    return space


def _check(space: Space) -> None:
    """Raise ValueError, its text starting with the offending key."""
    for table in ("residual", "convnext", "transformer"):
        for key, values in _given(getattr(space, table)).items():
            _check_values(f"{table}.{key}", values)
    others = space.other_families("linear")
    if not space.has_inverted_bottlenecks:
        if not others:
            raise ValueError("properties is missing, and so are residual, convnext and transformer")
        return
    crossed, groups = _given(space.properties), [_given(group) for group in space.together]
    for key, values in crossed.items():
        _check_values(f"properties.{key}", values)
    _check_unique("together", groups)
    for key in encode(space.properties):
        named = [key in group for group in groups]
        if key in crossed and any(named):
            raise ValueError(f"{key} stands in properties and in together, it must be in one of them")
        if key not in crossed and not (named and all(named)):
            raise ValueError(f"{key} is missing, it must be in properties or in each table of together")
    for values in space.combinations():
        InvertedBottleneckSpec(**resolve(values, "relu", False))


def resolve(values: dict[str, Any], activation: str, se: bool) -> dict[str, Any]:
    """A combination in which `reference` is replaced by what the block has."""
    own = {"activation": activation, "se": se}
    return {key: own[key] if value == REFERENCE else value for key, value in values.items()}


def _given(properties: object | None) -> dict[str, Any]:
    plain = {} if properties is None else encode(properties)
    return {key: value for key, value in plain.items() if value is not None}


def _crossed(properties: object | None) -> list[dict[str, Any]]:
    if properties is None:
        return []
    given = _given(properties)
    return [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]


def _check_values(key: str, values: Sequence[Any]) -> None:
    if not values:
        raise ValueError(f"{key} is empty, it needs at least one value")
    _check_unique(key, values)


def _check_unique(key: str, values: Sequence[Any]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{key} holds {value!r} twice")
