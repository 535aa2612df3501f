"""Spaces: which properties candidates may have. Each one is a TOML file, beside this one or the user's."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hwnas.compress.library.space_files import space_files
from hwnas.errors import InputError
from hwnas.files import decode, encode, read_toml
from hwnas.measurement import STRICT
from hwnas.networks.blocks.cut import CutTable
from hwnas.networks.blocks.families import FAMILIES, find_family
from hwnas.networks.blocks.family import FamilySpec, Original
from hwnas.ranges import SizeOrNone
from hwnas.spelling import did_you_mean

BOTTLENECKS = "inverted-bottleneck"
"""The family whose table is not one of its own: `properties` and `together` of the file are."""
CUT = "cut"
"""The table of what may stay of the block itself; no family, since its candidates are made of the block."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """What the candidates of a block may be: every combination of the properties of each family.

    Attributes:
        smaller: only candidates with fewer MACs and fewer parameters than the block.
        per_block: how many of them a block gets at most; 0 is all.
        tables: by family, of the class that the family names.
        cut: what may stay of the block itself.
    """

    name: str
    description: str
    smaller: bool
    per_block: int
    tables: Mapping[str, Any]
    cut: CutTable | None = None

    def specs(self, family: str, block: Original) -> list[FamilySpec]:
        """Every candidate of a family for a block. Raises InputError: it asks for what the block has not."""
        return list(dict.fromkeys(find_family(family).specs(self.tables[family], block)))


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What stands in the file of a space beside the tables."""

    __pydantic_config__ = STRICT
    name: str
    description: str
    smaller: bool
    per_block: SizeOrNone = 0


def space_names() -> list[str]:
    """The names of the spaces that come with hwnas."""
    return list(space_files())


def load_space(name_or_path: str) -> Space:
    """Read a space.

    Args:
        name_or_path: one of `space_names`, or the path of a `.toml` file.

    Raises:
        InputError: no such space, or a file that is not one; the offending key is named.
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))
    file = space_files().get(name_or_path)
    if file is None:
        raise InputError(
            f"there is no space {name_or_path!r}",
            f"{did_you_mean(name_or_path, space_names())}spaces: {', '.join(space_names())}, "
            "or the path of a .toml file (docs/spaces.md)",
        )
    with importlib.resources.as_file(file) as path:
        return _read(path)


def _read(path: Path) -> Space:
    plain = read_toml(path)
    given = {key: plain.pop(key) for key in ("properties", "together") if key in plain}
    families = {key: plain.pop(key) for key, value in list(plain.items()) if isinstance(value, dict)}
    header = decode(_Header, plain, path)
    cut = decode(dict[str, CutTable], {CUT: families.pop(CUT)}, path)[CUT] if CUT in families else None
    tables = {BOTTLENECKS: decode(find_family(BOTTLENECKS).table, given, path)} if given else {}
    for name, table in families.items():
        try:
            table_type: Any = find_family(name).table
        except InputError as error:
            raise InputError(f"{path}: {name}: {error.cause}", error.fix) from None
        # Under its name, so that messages tell the whole key.
        kind: Any = dict[str, table_type]
        tables |= decode(kind, {name: table}, path)
    space = Space(**vars(header), tables=tables, cut=cut)
    try:
        _check(space)
    except ValueError as error:
        raise InputError(f"{path}: {error}", f"correct it in {path}") from None
    return space


def _check(space: Space) -> None:
    """Raise ValueError, its text starting with the offending key."""
    if not space.tables and space.cut is None:
        others = ", ".join(name for name in FAMILIES.names() if name != BOTTLENECKS)
        raise ValueError(f"properties is missing, and so are the tables of other families: {others}, {CUT}")
    for name, table in space.tables.items():
        _check_values("" if name == BOTTLENECKS else f"{name}.", encode(table))
    if space.cut is not None:
        _check_values(f"{CUT}.", encode(space.cut))
    for name in space.tables:
        space.specs(name, Original(nn.ReLU(), (1, 8, 8), "a ReLU"))


def _check_values(before: str, table: Mapping[str, Any]) -> None:
    for key, values in table.items():
        if isinstance(values, dict):
            _check_values(f"{before}{key}.", values)
        elif isinstance(values, list | tuple):
            if not values and key != "together":
                raise ValueError(f"{before}{key} is empty, it needs at least one value")
            for index, value in enumerate(values):
                if value in values[:index]:
                    raise ValueError(f"{before}{key} holds {value!r} twice")
