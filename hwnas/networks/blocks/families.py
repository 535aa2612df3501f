"""Families of candidates: what each is built of, whatever the block is that it replaces."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hwnas.networks.blocks import inverted_bottleneck
from hwnas.networks.blocks.convnext import ConvNextSpec, build_convnext, convnext_cost, match_resample
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec, build_candidate
from hwnas.networks.blocks.residual import ResidualSpec, build_residual, match_residual, residual_cost
from hwnas.networks.blocks.tokens import OnPatches, grid, others_cost
from hwnas.networks.blocks.transformer import (
    TransformerSpec,
    build_on_map,
    build_on_tokens,
    cost_on_map,
    cost_on_tokens,
    match_transformer,
)

FamilySpec = InvertedBottleneckSpec | ResidualSpec | ConvNextSpec | TransformerSpec
"""A replacement of a block; `family` tells which."""


def build_replacement(spec: FamilySpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Module:
    """The untrained module of a candidate.

    Args:
        in_shape, out_shape: of the block: both maps (C, H, W), or both tokens (T, C).

    Raises:
        InputError: the family does not fit these shapes.
    """
    if len(in_shape) == 3:
        return _on_map(spec, in_shape, out_shape)
    if isinstance(spec, TransformerSpec):
        return build_on_tokens(spec, in_shape, out_shape)
    side, others = grid(spec.name, in_shape, out_shape)
    c_in, c_out = in_shape[1], out_shape[1]
    body = _on_map(spec, (c_in, side, side), (c_out, side, side))
    return OnPatches(body, side, others, c_in, c_out)


def replacement_cost(spec: FamilySpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """What `blocks.count` gives for the candidate, in closed form; arguments and errors as for the above."""
    if len(in_shape) == 3:
        return _cost_on_map(spec, in_shape, out_shape)
    if isinstance(spec, TransformerSpec):
        return cost_on_tokens(spec, in_shape, out_shape)
    side, others = grid(spec.name, in_shape, out_shape)
    c_in, c_out = in_shape[1], out_shape[1]
    macs, params = _cost_on_map(spec, (c_in, side, side), (c_out, side, side))
    around = others_cost(others, c_in, c_out)
    return macs + around[0], params + around[1]


def match_output(module: nn.Module, spec: FamilySpec, mean: Tensor, variance: Tensor) -> None:
    """Let a fresh candidate's output have about this mean and variance (C,) in each channel.

    Where the block keeps its channels and its map, a chain of residual layers starts as the identity.
    """
    body = module.body if isinstance(module, OnPatches) else module
    assert isinstance(body, nn.Module)
    if isinstance(spec, InvertedBottleneckSpec):
        inverted_bottleneck.match_output(body, mean, variance)
    elif isinstance(spec, ResidualSpec):
        match_residual(body, mean, variance)
    else:
        match_resample(body, mean, variance)
        if isinstance(spec, TransformerSpec):
            match_transformer(body, mean, variance)


def _on_map(spec: FamilySpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Module:
    if isinstance(spec, InvertedBottleneckSpec):
        return build_candidate(spec, in_shape, out_shape)
    if isinstance(spec, ResidualSpec):
        return build_residual(spec, in_shape, out_shape)
    if isinstance(spec, ConvNextSpec):
        return build_convnext(spec, in_shape, out_shape)
    return build_on_map(spec, in_shape, out_shape)


def _cost_on_map(spec: FamilySpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    if isinstance(spec, InvertedBottleneckSpec):
        return inverted_bottleneck.cost(spec, in_shape, out_shape)
    if isinstance(spec, ResidualSpec):
        return residual_cost(spec, in_shape, out_shape)
    if isinstance(spec, ConvNextSpec):
        return convnext_cost(spec, in_shape, out_shape)
    return cost_on_map(spec, in_shape, out_shape)
