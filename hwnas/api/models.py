"""What the public functions take for a network, and where one is cut."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwnas.api.arguments import (
    checked_cut,
    checked_flag,
    checked_shape,
    checked_size,
    checked_text,
    checked_texts,
    is_module,
)
from hwnas.errors import InputError
from hwnas.global_state import torch_as_before

if TYPE_CHECKING:
    from torch import nn

    from hwnas.network import Network
    from hwnas.networks.architecture import Candidate
    from hwnas.networks.chosen_blocks import Blocks
    from hwnas.networks.count import Counts
    from hwnas.networks.cut_points import CutPoint, Obstacle
    from hwnas.networks.partition import Partition

Model = Any
"""A torch module, ONNX file, checkpoint, timm or torchvision name, `module:function`, or such a function."""


def partition(
    model: Model,
    *,
    cut: str | Sequence[str] = "",
    region: str | Sequence[str] = (),
    only: str = "",
    layers: bool = False,
    image_size: int = 0,
    allow_code: bool = False,
) -> Partition:
    """Take a network apart into stem, blocks and head, and the fixed parts between them.

    Args:
        model: a checkpoint, a timm or torchvision name, `module:function`, or a function of a module.
        cut: modules behind which to cut, `NAME,NAME` or a sequence of names.
        region: what is replaced, `MODULE` or `FIRST:LAST`, a block each. Without cut and region the blocks
            are found.
        only: of the blocks that are found, those inside of this module.
        layers: each residual or bottleneck layer is a block of its own, not each stage.
        image_size: side in pixels; 0 for the model's own.
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: it cannot be cut there, or not at all.

    >>> import hwnas
    >>> hwnas.partition("mobilenetv2_050", image_size=32).names
    ['stem', 'block1', 'block2', 'block3', 'block4', 'block5', 'head']
    """
    from hwnas.networks.partition import partition as cut_up

    module, shape = _open(model, image_size, allow_code=allow_code)
    return cut_up(module, shape, _blocks(cut, region, only, layers))


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Where a network is cut, where else it can be, and why it cannot be cut further.

    Attributes:
        input_shape: (C, H, W).
        partition: as it is cut; None where it cannot be.
        refusal: why it cannot.
        counts: MACs and parameters of each part; None where there is no partition.
        cut_points: all places for cuts of the network as a chain, each by one name.
        obstacles: modules inside of which there are none.

    >>> import hwnas.api
    >>> cuts = hwnas.api.find_cuts("mobilenetv2_050", image_size=32)
    >>> cuts.refusal is None, {*cuts.partition.ends} <= {place.name for place in cuts.cut_points}
    (True, True)
    """

    input_shape: tuple[int, int, int]
    partition: Partition | None
    refusal: InputError | None
    counts: Counts | None
    cut_points: tuple[CutPoint, ...]
    obstacles: tuple[Obstacle, ...]


def find_cuts(
    model: Model,
    *,
    cut: str | Sequence[str] = "",
    region: str | Sequence[str] = (),
    only: str = "",
    layers: bool = False,
    image_size: int = 0,
    allow_code: bool = False,
) -> Cuts:
    """Find all places where a network can be cut.

    Args:
        model, cut, region, only, layers, image_size, allow_code: as for `partition`.

    Raises:
        InputError: nothing of that name, or a network that cannot take such images.

    >>> import hwnas.api
    >>> cuts = hwnas.api.find_cuts("mobilenetv2_050", image_size=32)
    >>> len(cuts.cut_points) > len(cuts.partition.regions)
    True
    """
    from hwnas.networks.count import count_parts
    from hwnas.networks.cut_points import cut_points, distinct, fine_flow, run_once
    from hwnas.networks.partition import partition as cut_up

    module, shape = _open(model, image_size, allow_code=allow_code)
    parts = refusal = None
    flow = functools.cache(functools.partial(fine_flow, module, shape))
    try:
        parts = cut_up(module, shape, _blocks(cut, region, only, layers), flow)
    except InputError as error:
        run_once(module, shape)  # what cannot be run at all has no cut points to be told
        refusal = error
    points, obstacles = cut_points(module, shape, flow())
    return Cuts(
        input_shape=shape,
        partition=parts,
        refusal=refusal,
        counts=count_parts(parts) if parts else None,
        cut_points=tuple(distinct(points, parts.ends if parts else ())),
        obstacles=tuple(obstacles),
    )


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What a space has for the parts of a network.

    Attributes:
        space: its name.
        counts: MACs and parameters of each of the network's own parts.
        architectures: how many networks can be made of them.
        dropped: block → family → why the space's family has no candidate there.

    >>> import hwnas.api
    >>> found = hwnas.api.find_candidates("mobilenetv2_050", image_size=32, candidates=1)
    >>> found.space, len(found.counts) == len(found.partition.names)
    ('compression', True)
    """

    space: str
    partition: Partition
    counts: tuple[tuple[int, int], ...]
    candidates: tuple[Candidate, ...]
    architectures: int
    dropped: dict[int, dict[str, str]]


def find_candidates(
    model: Model,
    *,
    space: str = "compression",
    candidates: int = 0,
    cut: str | Sequence[str] = "",
    region: str | Sequence[str] = (),
    only: str = "",
    layers: bool = False,
    image_size: int = 0,
    allow_code: bool = False,
) -> Candidates:
    """Find the candidates of a space for each part of a network.

    Args:
        space: its name, or a `.toml` file.
        candidates: of a block at most; 0 leaves it to the space.
        model, cut, region, only, layers, image_size, allow_code: as for `partition`.

    Raises:
        InputError: nothing of that name, or a network that cannot be cut.

    >>> import hwnas.api
    >>> found = hwnas.api.find_candidates("mobilenetv2_050", image_size=32)
    >>> found.architectures > len(found.candidates)
    True
    """
    from hwnas.compress.library import candidates as library
    from hwnas.compress.library.space import load_space
    from hwnas.networks.count import count_parts

    chosen = load_space(checked_text("space", space))
    parts = partition(
        model,
        cut=cut,
        region=region,
        only=only,
        layers=layers,
        image_size=image_size,
        allow_code=allow_code,
    )
    found = tuple(library.find_candidates(parts, chosen, candidates))
    return Candidates(
        space=chosen.name,
        partition=parts,
        counts=count_parts(parts).parts,
        candidates=found,
        architectures=library.architecture_count(found),
        dropped=library.dropped_families(parts, chosen),
    )


def find_model(model: Model, input_shape: Sequence[int] | None = None, *, has_batch: bool = False) -> Network:
    """Find a network that can be measured.

    Raises:
        InputError: nothing of that name; a torch module that does not say what it takes.

    >>> import hwnas.api
    >>> hwnas.api.find_model("mobilenetv2_050", (3, 32, 32)).input_shape
    (1, 3, 32, 32)
    """
    from hwnas.networks.find import find_network, network_of_module

    shape = checked_shape(input_shape)
    if is_module(model):
        return network_of_module(model, shape)
    name = name_of(model)
    return find_network(name, shape, has_batch=has_batch).named(name)


def name_of(model: Model) -> str:
    """Return how a model is named: a function of a module as `module:function`.

    Raises:
        InputError: it has no name by which another process could find it.

    >>> import hwnas.api
    >>> from torchvision.models import resnet18
    >>> hwnas.api.name_of(resnet18)
    'torchvision.models.resnet:resnet18'
    """
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    name = getattr(model, "__qualname__", "")
    if callable(model) and name.isidentifier() and getattr(model, "__module__", "__main__") != "__main__":
        return f"{model.__module__}:{name}"
    raise InputError(
        f"a {type(model).__name__} cannot be built again by another process",
        "give a function of a module of yours that builds and returns it, or its name, module:function",
    )


def _open(model: Model, image_size: int, *, allow_code: bool) -> tuple[nn.Module, tuple[int, int, int]]:
    from hwnas.networks.find import open_model

    with torch_as_before():  # a network that is built draws its weights
        return open_model(name_of(model), checked_size("image_size", image_size), allow_code=allow_code)


def _blocks(cut: str | Sequence[str], region: str | Sequence[str], only: str, layers: bool) -> Blocks:
    from hwnas.compress.options import parse_cuts
    from hwnas.networks.chosen_blocks import Blocks

    regions = checked_texts("region", region)
    return Blocks(
        cuts=parse_cuts(checked_cut(cut)),
        regions=regions,
        only=checked_text("only", only),
        layers=checked_flag("layers", layers),
    )
