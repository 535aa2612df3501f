"""What a network is, as plain data: enough to build its module again without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from hwnas.compress.blocks import CandidateSpec, build_candidate
from hwnas.compress.partition import Partition, partition
from hwnas.errors import InputError
from hwnas.files import check_schema, decode, encode, read_json, write_json
from hwnas.measurement import STRICT

SCHEMA = "hwnas.architecture/1"


@dataclass(frozen=True, kw_only=True)
class ReferenceSpec:
    """How the reference's module is made.

    Attributes:
        source: a timm name, `module:function` of the user's own, or a checkpoint of hwnas.
        name: the timm name, the `module:function`, or the checkpoint's directory name.
        classes: size of the output; None leaves it as the model has it.
        architecture: of the checkpoint, where the source is one.
    """

    __pydantic_config__ = STRICT
    source: Literal["timm", "function", "checkpoint"]
    name: str
    classes: int | None = None
    architecture: ArchitectureSpec | None = None


@dataclass(frozen=True, kw_only=True)
class ArchitectureSpec:
    """A reference with some of its blocks replaced.

    Attributes:
        cuts: modules of the reference behind which it is cut.
        input_shape: (C, H, W).
        blocks: the replacement of each block; None keeps the reference's own.
        mean, std: by which images in 0 … 1 are normalised, one per channel.
        class_names: in the order of the output; empty where the data have no labels.
    """

    __pydantic_config__ = STRICT
    reference: ReferenceSpec
    cuts: tuple[str, ...]
    input_shape: tuple[int, int, int]
    blocks: tuple[CandidateSpec | None, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
    if len(spec.blocks) != parts.block_count:
        raise InputError(
            f"blocks: the architecture names {len(spec.blocks)}, its cuts make {parts.block_count}",
            "restore architecture.json as it was emitted",
        )
    return assemble(parts, [build_block(parts, n, block) for n, block in enumerate(spec.blocks, 1)])


def build_block(parts: Partition, block: int, spec: CandidateSpec | None) -> nn.Module:
    """The module of block 1 … N with fresh weights, or the reference's own where `spec` is None."""
    if spec is None:
        return parts.modules[block]
    with torch.random.fork_rng(devices=[]):
        return build_candidate(spec, *parts.block_shapes(block))


def assemble(parts: Partition, blocks: list[nn.Module]) -> nn.Sequential:
    """Stem, the given blocks, and head as one module in eval mode."""
    from collections import OrderedDict

    modules = [parts.modules[0], *blocks, parts.modules[-1]]
    return nn.Sequential(OrderedDict(zip(parts.names, modules, strict=True))).eval()
