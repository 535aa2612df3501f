"""The families of candidates by name, and what a candidate of any of them becomes between maps or tokens."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema
from torch import Tensor, nn

from hwnas.networks.blocks.cut import CutSpec
from hwnas.networks.blocks.family import Family, FamilySpec, Shape
from hwnas.networks.blocks.tokens import OnPatches, grid, others_cost
from hwnas.networks.blocks.variants import VariantSpec
from hwnas.plugins import Registry

FAMILIES = Registry(
    "hwnas.block_families", "family of blocks", "install the package that it comes from, or correct the name"
)
"""Each is a `Family`."""


class _OfAnyFamily:
    """Tells pydantic what a candidate can be: of which family, its field `family` says."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known: Any = VariantSpec | CutSpec
        for name in FAMILIES.names():
            known |= find_family(name).spec
        return handler.generate_schema(Annotated[known, Discriminator("family")])


CandidateSpec = Annotated[FamilySpec | VariantSpec | CutSpec, _OfAnyFamily()]
"""What a candidate can be; `family` tells which."""


@cache
def find_family(name: str) -> Family[Any, Any]:
    """Return a family. Raises InputError: no such family, or it cannot be imported."""
    family: Family[Any, Any] = FAMILIES.load(name)
    return family


def build_replacement(spec: FamilySpec, in_shape: Shape, out_shape: Shape) -> nn.Module:
    """The untrained module of a candidate.

    Args:
        in_shape, out_shape: of the block: both maps (C, H, W), or both tokens (T, C).

    Raises:
        InputError: the family does not fit these shapes.
    """
    family = find_family(spec.family)
    if len(in_shape) == 3 or family.takes_tokens:
        return family.build(spec, in_shape, out_shape)
    side, others = grid(spec.name, in_shape, out_shape)
    c_in, c_out = in_shape[1], out_shape[1]
    body = family.build(spec, (c_in, side, side), (c_out, side, side))
    return OnPatches(body, side, others, c_in, c_out)


def replacement_cost(spec: FamilySpec, in_shape: Shape, out_shape: Shape) -> tuple[int, int]:
    """What `count` gives for the candidate, in closed form; arguments and errors as for the above."""
    family = find_family(spec.family)
    if len(in_shape) == 3 or family.takes_tokens:
        return family.cost(spec, in_shape, out_shape)
    side, others = grid(spec.name, in_shape, out_shape)
    c_in, c_out = in_shape[1], out_shape[1]
    macs, params = family.cost(spec, (c_in, side, side), (c_out, side, side))
    around = others_cost(others, c_in, c_out)
    return macs + around[0], params + around[1]


def start_replacement(
    module: nn.Module, spec: FamilySpec, block: nn.Module, mean: Tensor, variance: Tensor
) -> None:
    """Let a fresh candidate's output have about this mean and variance, with weights of the block.

    Args:
        module: from `build_replacement`.
        block: what it replaces.
        mean, variance: of each channel of the block's output, (C,).
    """
    family = find_family(spec.family)
    body = module.body if isinstance(module, OnPatches) else module
    assert isinstance(body, nn.Module)
    family.match_output(body, mean, variance)
    if body is module:
        family.inherit(module, block, variance)


def learning_rate(spec: FamilySpec) -> float:
    """The learning rate that a candidate is distilled with: of AdamW, for batches of 64."""
    rate = find_family(spec.family).learning_rate
    return rate(spec) if callable(rate) else rate
