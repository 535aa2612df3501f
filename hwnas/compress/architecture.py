"""What a network is, as plain data: enough to build its module again without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Discriminator
from torch import nn

from hwnas.compress.families import FamilySpec, build_replacement
from hwnas.compress.partition import Partition, partition
from hwnas.compress.variants import VariantSpec, build_variant
from hwnas.errors import InputError
from hwnas.files import check_schema, decode, encode, read_json, write_json
from hwnas.measurement import STRICT
from hwnas.ranges import Figure, Size

SCHEMA = "hwnas.architecture/2"

CandidateSpec = Annotated[FamilySpec | VariantSpec, Discriminator("family")]
"""What a candidate can be; `family` tells which."""


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
        cuts: modules of the reference behind which it is cut.
        input_shape: (C, H, W).
        parts: the replacement of each part, from the stem to the head; None keeps the reference's own.
        mean, std: by which images in 0 … 1 are normalised, one per channel.
        class_names: in the order of the output; empty where the data have no labels.
    """

    __pydantic_config__ = STRICT
    reference: ReferenceSpec
    cuts: tuple[str, ...]
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
        return decode(ArchitectureSpec, check_schema(read_json(path), SCHEMA, path), path)


def build_module(spec: ArchitectureSpec, *, allow_code: bool) -> nn.Sequential:
    """The network with fresh weights, parts by name (`stem`, `block1` …, `head`), in eval mode.

    Args:
        allow_code: import and call the `module:function` that the reference may name.

    Raises:
        InputError: the reference names code that is not allowed, or cannot be built.
    """
    from hwnas.compress.reference import build_reference

    reference = build_reference(spec.reference, allow_code=allow_code)
    parts = partition(reference, spec.input_shape, spec.cuts)
    if len(spec.parts) != len(parts.modules):
        raise InputError(
            f"parts: the architecture names {len(spec.parts)}, its cuts make {len(parts.modules)}",
            "restore architecture.json as it was emitted",
        )
    return assemble(parts, [build_part(parts, n, part) for n, part in enumerate(spec.parts)])


def build_part(parts: Partition, part: int, spec: CandidateSpec | None) -> nn.Module:
    """The untrained module of a candidate of part 0 … N + 1; the reference's own where `spec` is None.

    Raises:
        InputError: the candidate cannot stand there.
    """
    if spec is None:
        return parts.modules[part]
    if isinstance(spec, VariantSpec):
        return build_variant(spec, parts.modules[part])
    with torch.random.fork_rng(devices=[]):
        return build_replacement(spec, *parts.part_shapes(part))


def assemble(parts: Partition, modules: Sequence[nn.Module]) -> nn.Sequential:
    """The given modules, one a part, as one module in eval mode."""
    from collections import OrderedDict

    return nn.Sequential(OrderedDict(zip(parts.names, modules, strict=True))).eval()
