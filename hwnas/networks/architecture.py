"""What a network is, as plain data: enough to build its module again without weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.files import check_schema, decode, encode, read_json, write_json
from hwnas.measurement import STRICT
from hwnas.networks.blocks.families import CandidateSpec
from hwnas.ranges import Count, Figure, Position, Size

SCHEMA = "hwnas.architecture/3"
WITH_CUTS = "hwnas.architecture/2"
"""Of networks that were chains: the modules behind which they are cut stand in the place of the regions."""

Places = tuple[tuple[str, str], ...]
"""Where a block stands: the names of the values that it is given and gives, in each of its places."""


@dataclass(frozen=True, kw_only=True)
class ReferenceSpec:
    """How the reference's module is made.

    Attributes:
        source: a timm name, `module:function` of the user's own, or a checkpoint of hwnas.
        name: the timm name, the `module:function`, or the checkpoint's directory name.
        classes: size of the output; None leaves it as the model has it.
        image_size: side in pixels that a timm model of fixed size (position embeddings) is built for; None
            leaves it as the model has it.
        architecture: of the checkpoint, where the source is one.
    """

    __pydantic_config__ = STRICT
    source: Literal["timm", "function", "checkpoint"]
    name: str
    classes: Size | None = None
    image_size: Size | None = None
    architecture: ArchitectureSpec | None = None


@dataclass(frozen=True, kw_only=True)
class ArchitectureSpec:
    """A reference with some of its parts replaced.

    Attributes:
        regions: the values of the reference between which each block stands, in each of its places.
        input_shape: (C, H, W).
        parts: the replacement of each part, from the stem to the head; None keeps the reference's own.
        mean, std: by which images in 0 … 1 are normalised, one per channel.
        class_names: in the order of the output; empty where the data have no labels.
    """

    __pydantic_config__ = STRICT
    reference: ReferenceSpec
    regions: tuple[Places, ...]
    input_shape: tuple[Size, Size, Size]
    parts: tuple[CandidateSpec | None, ...]
    mean: tuple[Figure, ...]
    std: tuple[Figure, ...]
    class_names: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write `architecture.json`."""
        write_json(path, {"schema": SCHEMA, **encode(self)})

    @staticmethod
    def read(path: Path) -> ArchitectureSpec:
        """Read `architecture.json`. Raises InputError naming what is wrong in it."""
        plain = read_json(path)
        return decode(ArchitectureSpec, check_schema(_with_regions(plain), SCHEMA, path), path)


def _with_regions(plain: object) -> object:
    """A file's content, regions in the place of cuts; that of the reference's architecture inside as well."""
    if not isinstance(plain, dict):
        return plain
    found = dict(plain)
    if found.get("schema", SCHEMA) == WITH_CUTS:
        found["schema"] = SCHEMA
    cuts = found.pop("cuts", None)
    if isinstance(cuts, list):
        found["regions"] = [[ends] for ends in itertools.pairwise(cuts)]
    reference = found.get("reference")
    if isinstance(reference, dict) and isinstance(reference.get("architecture"), dict):
        found["reference"] = reference | {"architecture": _with_regions(reference["architecture"])}
    return found


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """B[n,m]: replacement m (from 1; 0 is the reference's own) of part n (0 the stem, N + 1 the head).

    Attributes:
        part_name: `stem`, `block1` … `blockN`, `head`.
        macs, params: of the replacement.
    """

    part: Position
    part_name: str
    choice: Position
    spec: CandidateSpec
    macs: Count
    params: Count

    @property
    def name(self) -> str:
        """Unique in a run: `block3-k5-e3-d2-swish-se-depthwise-w0.5`."""
        return f"{self.part_name}-{self.spec.name}"
