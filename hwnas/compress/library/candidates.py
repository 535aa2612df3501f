"""Which candidates each part gets: blocks those of a space, stem and head variants of themselves."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NoReturn, TypeVar

from hwnas.compress.library.space import CUT, Space
from hwnas.errors import InputError
from hwnas.networks.architecture import Candidate
from hwnas.networks.blocks.cut import CutSpec, cut_specs
from hwnas.networks.blocks.families import CandidateSpec, replacement_cost
from hwnas.networks.blocks.family import FamilySpec, Original
from hwnas.networks.blocks.variants import VariantSpec, find_variants
from hwnas.networks.build import build_part
from hwnas.networks.count import count
from hwnas.networks.partition import Partition
from hwnas.networks.sizes import require_all_places

T = TypeVar("T")
_Sized = tuple[int, int, FamilySpec | CutSpec]


def find_candidates(
    parts: Partition, space: Space, per_block: int = 0, trained: Partition | None = None
) -> list[Candidate]:
    """The candidates of every part, by part; those of a part by rising MACs.

    Args:
        parts: with images of the size that is measured.
        per_block: how many a block gets at most, instead of what the space says; 0 leaves it to the space.
            They are taken in turn from each kind (layer type, activation, attention; a layer type's kinds
            follow each other), and evenly spaced in MACs within a kind.
        trained: the parts with images of the size that is trained on, where it is another one.

    Raises:
        InputError: `per_block` is no such number, or no block has a candidate that fits.
    """
    if type(per_block) is not int or per_block < 0:
        raise InputError(
            f"candidates is {per_block!r}, it must be 0 or more of them a block",
            "give candidates=6, or 0 for as many as the space says",
        )
    of_blocks = []
    for block in range(1, parts.block_count + 1):
        fitting = _fitting(parts, block, space)[0]
        if trained is not None and trained is not parts:
            both = {spec for _, _, spec in _sized(trained, block, [spec for _, _, spec in fitting])[0]}
            fitting = [item for item in fitting if item[2] in both]
        chosen = _spread(fitting, per_block or space.per_block)
        of_blocks += _numbered(parts, block, chosen)
    if not of_blocks:
        _refuse(parts, space)
    last = len(parts.modules) - 1
    return [
        *_numbered(parts, 0, _variants(parts, 0)),
        *of_blocks,
        *_numbered(parts, last, _variants(parts, last)),
    ]


def dropped_families(parts: Partition, space: Space) -> dict[int, dict[str, str]]:
    """Why families of a space have no candidate in a block: block → family → reason."""
    blocks = range(1, parts.block_count + 1)
    return {block: reasons for block in blocks if (reasons := _fitting(parts, block, space)[1])}


def architecture_count(candidates: Sequence[Candidate]) -> int:
    """How many architectures the candidates span, the reference's own parts among the choices."""
    per_part: dict[int, int] = defaultdict(lambda: 1)
    for candidate in candidates:
        per_part[candidate.part] += 1
    total = 1
    for choices in per_part.values():
        total *= choices
    return total


def _is_replaceable(parts: Partition, block: int) -> bool:
    """Whether a block is between maps or between tokens."""
    return tuple(map(len, parts.part_shapes(block))) in ((3, 3), (2, 2))


def _refuse(parts: Partition, space: Space) -> NoReturn:
    """Say why no block has a candidate."""
    blocks = range(1, parts.block_count + 1)
    odd = next((block for block in blocks if not _is_replaceable(parts, block)), None)
    if odd is not None:
        in_shape, out_shape = parts.part_shapes(odd)
        raise InputError(
            f"block {odd} ({in_shape} → {out_shape}) is neither between maps (C, H, W) nor tokens (T, C), "
            "and no other block has a candidate",
            "cut where either passes: --cut NAME,NAME",
        )
    shapes = ", ".join(f"{before} → {after}" for before, after in map(parts.part_shapes, blocks))
    reasons = dropped_families(parts, space).get(blocks[-1], {}) if blocks else {}
    why = "".join(f"; {name}: {reason}" for name, reason in reasons.items())
    raise InputError(
        f"no block has {'a smaller' if space.smaller else 'any'} candidate in {space.name!r}; "
        f"they are {shapes}{why}",
        "a layer keeps a map or halves it, rounded up: join small blocks to larger ones, or cut elsewhere: "
        "--cut NAME,NAME; or take another --space, with more depth",
    )


def _fitting(parts: Partition, block: int, space: Space) -> tuple[list[_Sized], dict[str, str]]:
    """Every candidate of a space that can stand in a block, and why families have none.

    Raises:
        InputError: the one family of a space wants of the block what it has not.
    """
    if not _is_replaceable(parts, block):
        return [], {}
    shapes = parts.part_shapes(block)
    original = Original(parts.first[block], shapes[0], f"block {block}")
    inputs = parts.in_shapes(parts.names[block])
    limits = count(parts.modules[block], *inputs) if space.smaller else (math.inf, math.inf)

    def smaller(sized: Sequence[_Sized]) -> list[_Sized]:
        return [item for item in sized if item[0] < limits[0] and item[1] < limits[1]]

    found: list[_Sized] = []
    reasons = {}
    if space.cut is not None:
        found += smaller(_sized(parts, block, cut_specs(space.cut, parts.first[block], *shapes))[0])
        if not found:
            reasons[CUT] = (
                "it has no channels inside that only its own layers see"
                if space.cut.share
                else "none of its layers becomes smaller where it is split"
            )
    for family in space.tables:
        try:
            candidates = space.specs(family, original)
        except InputError as error:
            if len(space.tables) == 1 and space.cut is None:
                raise
            reasons[family] = error.cause
            continue
        fitting, reason = _sized(parts, block, candidates)
        found += smaller(fitting)
        if not smaller(fitting):
            reasons[family] = "none is smaller than the block" if fitting else reason
    return found, reasons


def _sized(parts: Partition, block: int, specs: Sequence[FamilySpec | CutSpec]) -> tuple[list[_Sized], str]:
    """The candidates that can stand in a block, and why the last of the others cannot."""
    sized: list[_Sized] = []
    reason = "its table has no candidate for such a block"
    shapes, inputs = parts.part_shapes(block), parts.in_shapes(parts.names[block])
    for spec in specs:
        try:
            if isinstance(spec, CutSpec):
                macs, params = count(build_part(parts, block, spec), *inputs)
            elif len(inputs) > 1:
                if not sized:  # whether sizes matter is a matter of the family
                    require_all_places(parts, block, spec)
                macs, params = count(build_part(parts, block, spec), *inputs)
            else:
                macs, params = replacement_cost(spec, *shapes)
        except InputError as error:  # too shallow for the block's stride, or of a family for other shapes
            reason = error.cause
            continue
        sized.append((macs, params, spec))
    return sized, reason


def _variants(parts: Partition, part: int) -> list[tuple[int, int, VariantSpec]]:
    """Variants of a part that is given one tensor and gives one."""
    name = parts.names[part]
    if len(parts.reads(name)) > 1 or len(parts.gives(name)) > 1:
        return []
    (shape,) = parts.in_shapes(name)
    specs = find_variants(parts.modules[part], shape)
    return [(*count(build_part(parts, part, spec), shape), spec) for spec in specs]


def _numbered(
    parts: Partition, part: int, sized: Sequence[tuple[int, int, CandidateSpec]]
) -> list[Candidate]:
    ordered = sorted(sized, key=lambda item: (item[0], item[1], item[2].name))
    return [
        Candidate(part=part, part_name=parts.names[part], choice=choice, spec=spec, macs=macs, params=params)
        for choice, (macs, params, spec) in enumerate(ordered, 1)
    ]


def _spread(sized: Sequence[_Sized], amount: int) -> list[_Sized]:
    """`amount` of them (0: all), in turn from the kinds, evenly spaced in MACs within each kind."""
    if amount == 0:
        return list(sized)
    kinds: dict[tuple[str, ...], list[_Sized]] = defaultdict(list)
    for item in sorted(sized, key=lambda item: (item[0], item[1], item[2].name)):
        kinds[item[2].kind].append(item)
    of_family: Counter[str] = Counter()
    turns = {}
    for kind in sorted(kinds):
        turns[kind] = of_family[kind[0]], kind
        of_family[kind[0]] += 1
    order = sorted(kinds, key=lambda kind: turns[kind])  # the families alternate
    quota = dict.fromkeys(order, 0)
    for kind in itertools.cycle(order):
        if sum(quota.values()) == min(amount, len(sized)):
            break
        quota[kind] += quota[kind] < len(kinds[kind])
    return [item for kind, k in quota.items() for item in _evenly(kinds[kind], k)]


def _evenly(items: Sequence[T], amount: int) -> list[T]:
    if amount < 2:
        return list(items[len(items) // 2 :][:amount])
    return [items[round(i * (len(items) - 1) / (amount - 1))] for i in range(amount)]
