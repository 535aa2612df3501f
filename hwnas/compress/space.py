"""Spaces: which candidates each block gets."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hwnas.compress.architecture import CandidateSpec
from hwnas.compress.blocks import InvertedBottleneckSpec, cost, count
from hwnas.compress.partition import Partition
from hwnas.errors import InputError

T = TypeVar("T")
COMPRESSION_PER_BLOCK = 27


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """B[n,m]: replacement m (from 1; 0 is the reference's own) of part n (0 the stem, N + 1 the head).

    Attributes:
        part_name: `stem`, `block1` … `blockN`, `head`.
        macs, params: of the replacement.
    """

    part: int
    part_name: str
    choice: int
    spec: CandidateSpec
    macs: int
    params: int

    @property
    def name(self) -> str:
        """Unique in a run: `block3-k5-e3-d2-swish-se-depthwise-w0.5`."""
        return f"{self.part_name}-{self.spec.name}"


def compression_space(parts: Partition, per_block: int = COMPRESSION_PER_BLOCK) -> list[Candidate]:
    """The preset `compression`: candidates with fewer MACs *and* parameters than the block they replace.

    Of DONNA's properties (kernel 3, 5; expansion 2, 3, 4, 6; depth 1 … 4; ReLU, or Swish with SE; depthwise
    or grouped; width 0.5, 1) all combinations that are smaller are listed; `per_block` of them are taken,
    equally many of each activation and layer type, evenly spaced in MACs.

    Raises:
        InputError: a block has no smaller candidate, or is not between image maps.
    """
    candidates = []
    for block, module in enumerate(parts.blocks, 1):
        shapes = parts.part_shapes(block)
        if any(len(shape) != 3 for shape in shapes):
            raise InputError(
                f"block {block} ({shapes[0]} → {shapes[1]}) does not turn a map (C, H, W) into one",
                "'compression' replaces convolutional blocks; cut where maps pass: --cut NAME,NAME",
            )
        limits = count(module, shapes[0])
        chosen = _spread(_smaller(shapes, limits), per_block)
        for choice, (macs, params, spec) in enumerate(chosen, 1):
            candidates.append(
                Candidate(
                    part=block,
                    part_name=parts.names[block],
                    choice=choice,
                    spec=spec,
                    macs=macs,
                    params=params,
                )
            )
    if not candidates:
        raise InputError(
            "no block has a smaller candidate in 'compression'",
            "join small blocks to larger ones: --cut NAME,NAME",
        )
    return candidates


def architecture_count(candidates: Sequence[Candidate]) -> int:
    """How many architectures the candidates span, the reference's own parts among the choices."""
    per_part: dict[int, int] = defaultdict(lambda: 1)
    for candidate in candidates:
        per_part[candidate.part] += 1
    total = 1
    for choices in per_part.values():
        total *= choices
    return total


_Sized = tuple[int, int, InvertedBottleneckSpec]


def _smaller(shapes: tuple[Sequence[int], Sequence[int]], limits: tuple[int, int]) -> list[_Sized]:
    found = []
    grid = itertools.product((3, 5), (2, 3, 4, 6), (1, 2, 3, 4), (False, True), (True, False), (0.5, 1.0))
    for kernel, expand, depth, se, depthwise, width in grid:
        spec = InvertedBottleneckSpec(
            kernel=kernel,
            expand=expand,
            depth=depth,
            activation="swish" if se else "relu",
            se=se,
            layer="depthwise" if depthwise else "grouped",
            width=width,
        )
        try:
            macs, params = cost(spec, *shapes)
        except InputError:  # too shallow for the block's stride
            continue
        if macs < limits[0] and params < limits[1]:
            found.append((macs, params, spec))
    return sorted(found, key=lambda sized: (sized[0], sized[1], sized[2].name))


def _spread(sized: Sequence[_Sized], amount: int) -> list[_Sized]:
    """`amount` of them, drawn in turn from the four kinds, evenly spaced in MACs within each kind."""
    kinds: dict[tuple[bool, str], list[_Sized]] = defaultdict(list)
    for item in sized:
        kinds[item[2].se, item[2].layer].append(item)
    quota = dict.fromkeys(sorted(kinds), 0)
    for kind in itertools.cycle(sorted(kinds)):
        if sum(quota.values()) == min(amount, len(sized)):
            break
        quota[kind] += quota[kind] < len(kinds[kind])
    chosen = [item for kind, k in quota.items() for item in _evenly(kinds[kind], k)]
    return sorted(chosen, key=lambda item: (item[0], item[1], item[2].name))


def _evenly(items: Sequence[T], amount: int) -> list[T]:
    if amount < 2:
        return list(items[len(items) // 2 :][:amount])
    return [items[round(i * (len(items) - 1) / (amount - 1))] for i in range(amount)]
