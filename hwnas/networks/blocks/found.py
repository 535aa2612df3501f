"""What a block of the reference does, as chains of convolutions: found by running it, not by names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hwnas.errors import is_out_of_memory
from hwnas.networks.blocks.family import ACTIVATION_NAMES

SIDE = 32
"""Rows and columns of the random map that a block is run with."""
TOLERANCE = 1e-3
"""Of a sum beside a skip, against its largest value: float32 over some hundred channels."""
SILENT = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A module without children, what it was given, and what it gave."""

    module: nn.Module
    x: Tensor
    y: Tensor


@dataclass(kw_only=True)
class Found:
    """A convolution of the reference with what goes in and what stands behind it."""

    x: Tensor
    convolution: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.BatchNorm2d | None = None
    activation: nn.Module | None = None
    shuffle: nn.PixelShuffle | None = None


@dataclass(kw_only=True)
class Segment:
    """Convolutions that follow one another.

    Attributes:
        x, y: what goes in and comes out.
        scale: what goes on is x + scale × y, one of (C, 1, 1) or of each channel; None: it is y.
    """

    x: Tensor
    y: Tensor
    layers: list[Found] = field(default_factory=list)
    scale: Tensor | None = None


@torch.no_grad()
def run_block(block: nn.Module) -> tuple[list[Call], Tensor, Tensor]:
    """The calls of a block's modules without children, in order, on a random map; that map, and the answer.

    No calls where the block takes no such map.
    """
    convolution = next((m for m in block.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)), None)
    nothing = torch.zeros(0)
    if convolution is None:
        return [], nothing, nothing
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, convolution.in_channels, SIDE, SIDE, generator=generator).to(convolution.weight)
    calls: list[Call] = []
    before: dict[nn.Module, Tensor] = {}

    def enter(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor):
            before[module] = inputs[0].clone()  # the module may write to it

    def leave(module: nn.Module, _: object, output: object) -> None:
        given = before.pop(module, None)
        if given is not None and isinstance(output, Tensor):
            calls.append(Call(module=module, x=given, y=output.clone()))

    leaves = [module for module in block.modules() if next(module.children(), None) is None]
    handles = [leaf.register_forward_pre_hook(enter) for leaf in leaves]
    handles += [leaf.register_forward_hook(leave) for leaf in leaves]
    try:
        y = block(x.clone())
    except Exception as error:  # a block for other maps
        if is_out_of_memory(error):
            raise
        return [], nothing, nothing
    finally:
        for handle in handles:
            handle.remove()
    return (calls, x, y) if isinstance(y, Tensor) and y.ndim == 4 else ([], nothing, nothing)


def find_segments(block: nn.Module) -> list[Segment]:
    """The chains that a block consists of, each going on from what the one before gives; [] if it does not.

    Functions of torch between modules are not seen, but for a ReLU.
    """
    calls, x, y = run_block(block)
    segments = divide(calls)
    return linked(segments, y) if segments and torch.equal(segments[0].x, x) else []


def linked(segments: Sequence[Segment], end: Tensor) -> list[Segment]:
    """How segments go on from one another, the last one to `end`; [] if one does otherwise.

    Where layers stand before a skip begins, they become a segment of their own.
    """
    found = []
    ends = [*(segment.x for segment in segments[1:]), end]
    for segment, goes_on in zip(segments, ends, strict=True):
        if torch.equal(segment.y, goes_on):
            found.append(segment)
        elif torch.equal(segment.y.relu(), goes_on):
            segment.layers[-1].activation = nn.ReLU()
            found.append(segment)
        else:
            parts = _beside_skip(segment, goes_on)
            if not parts:
                return []
            found += parts
    return found


def _beside_skip(segment: Segment, end: Tensor) -> list[Segment]:
    for number, layer in enumerate(segment.layers):
        scale = find_scale(layer.x, segment.y, end)
        if scale is not None:
            before = Segment(x=segment.x, y=layer.x, layers=segment.layers[:number])
            beside = Segment(x=layer.x, y=segment.y, layers=segment.layers[number:], scale=scale)
            return [before, beside] if number else [beside]
    return []


def divide(calls: Sequence[Call]) -> list[Segment]:
    """Divide calls where one does not take what the one before gives; [] if some are no layers."""
    segments: list[Segment] = []
    last = torch.zeros(0)
    for call in calls:
        module, follows = call.module, torch.equal(call.x, last)
        if isinstance(module, SILENT):
            last = call.y if follows else last
            continue
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            behind_relu = bool(segments) and torch.equal(call.x, last.relu())
            if behind_relu and not follows:
                segments[-1].layers[-1].activation = nn.ReLU()
            if not follows and not behind_relu:
                segments.append(Segment(x=call.x, y=call.y))
            elif not segments:
                return []
            segments[-1].layers.append(Found(x=call.x, convolution=module))
        elif not segments or not follows:
            return []
        elif isinstance(module, nn.BatchNorm2d) and _is_bare(segments[-1].layers[-1]):
            segments[-1].layers[-1].norm = module
        elif type(module).__name__.lower() in ACTIVATION_NAMES and not segments[-1].layers[-1].activation:
            segments[-1].layers[-1].activation = module
        elif isinstance(module, nn.PixelShuffle) and not segments[-1].layers[-1].activation:
            segments[-1].layers[-1].shuffle = module
        else:
            return []
        segments[-1].y = last = call.y
    return segments


def _is_bare(layer: Found) -> bool:
    return layer.norm is None and layer.activation is None and layer.shuffle is None


def find_scale(x: Tensor, y: Tensor, end: Tensor) -> Tensor | None:
    """The factors (C, 1, 1) for which x + factor × y is `end`, maps (1, C, H, W); None if there are none."""
    if x.shape != y.shape or x.shape != end.shape:
        return None
    wide = y.double()
    factor = ((end - x).double() * wide).sum((0, 2, 3)) / wide.square().sum((0, 2, 3)).clamp_min(1e-30)
    factor = factor.float()[:, None, None]
    error = (x + factor * y - end).abs().max()
    return factor if float(error) <= TOLERANCE * float(end.abs().max()) else None
