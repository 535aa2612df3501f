"""What the public functions take for a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError

if TYPE_CHECKING:
    from hwnas.network import Network
    from hwnas.networks.partition import Partition

Model = Any
"""A torch module, an ONNX file, a checkpoint, a timm name, `module:function`, or a function of a module."""


def partition(model: Model, *, cut: str = "", image_size: int = 0, allow_code: bool = False) -> Partition:
    """Cut a network into stem, blocks and head, at places where exactly one tensor passes.

    Args:
        model: a checkpoint, a timm name, `module:function`, or a function of a module.
        cut: modules behind which to cut, `NAME,NAME`; empty for the stages.
        image_size: side in pixels; 0 for the model's own.
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: it cannot be cut there, or not at all.

    >>> import hwnas
    >>> hwnas.partition("mobilenetv2_050", image_size=32).names
    ['stem', 'block1', 'block2', 'block3', 'block4', 'block5', 'head']
    """
    from hwnas.compress.options import parse_cuts
    from hwnas.networks.find import open_model
    from hwnas.networks.partition import partition as cut_up

    module, shape = open_model(name_of(model), image_size, allow_code=allow_code)
    return cut_up(module, shape, parse_cuts(cut) or None)


def find_model(model: Model, input_shape: Sequence[int] | None = None, *, has_batch: bool = False) -> Network:
    """Find a network that can be measured.

    Raises:
        InputError: nothing of that name; a torch module that does not say what it takes.
    """
    from torch import nn

    from hwnas.networks.find import find_network, network_of_module

    shape = None if input_shape is None else tuple(input_shape)
    if isinstance(model, nn.Module):
        return network_of_module(model, shape)
    name = name_of(model)
    return find_network(name, shape, has_batch=has_batch).named(name)


def name_of(model: Model) -> str:
    """Return how a model is named: a function of a module as `module:function`.

    Raises:
        InputError: it has no name by which another process could find it.
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
