"""Variants of the reference's own parts: the same module with ReLU, or without squeeze-and-excitation.

A device that refuses Swish or squeeze-and-excitation refuses them in the stem and in the head as well
(DONNA's calibration for the Galaxy S20). A variant starts from the reference's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import InputError, is_out_of_memory
from hwnas.measurement import STRICT

SMOOTH_ACTIVATIONS = frozenset({"silu", "swish", "hardswish", "gelu", "mish"})
"""Names, in lower case, of the classes of activations that ReLU can stand for."""
LEARNING_RATE = 1.5e-2
"""As a family's: what starts from trained weights bears less."""
MAP = (8, 8)
"""Rows and columns of the map by which a gate is known: on a single pixel anything looks like one."""


@dataclass(frozen=True, kw_only=True)
class VariantSpec:
    """A part of the reference with some of its modules replaced.

    Attributes:
        relu: names of the activations that become ReLU.
        without: names of the squeeze-and-excitation modules that are left out.
    """

    __pydantic_config__ = STRICT
    family: Literal["variant"] = "variant"
    relu: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a variant that changes nothing; a file may say anything."""
        if not self.relu and not self.without:
            raise ValueError("a variant names at least one module in relu or without")

    @property
    def name(self) -> str:
        """`relu`, `no-se` or `relu-no-se`."""
        return "-".join(name for name, modules in (("relu", self.relu), ("no-se", self.without)) if modules)


def find_variants(module: nn.Module, in_shape: Sequence[int]) -> list[VariantSpec]:
    """What can be made of a part: with ReLU, without squeeze-and-excitation, and both.

    Args:
        module: in eval mode.
        in_shape: of its input, without the batch dimension.
    """
    gates = find_gates(module, in_shape)
    smooth = tuple(
        name
        for name, child in module.named_modules(remove_duplicate=False)
        if type(child).__name__.lower() in SMOOTH_ACTIVATIONS
    )
    outside = tuple(name for name in smooth if not any(name.startswith(f"{gate}.") for gate in gates))
    specs = [VariantSpec(relu=smooth)] if smooth else []
    specs += [VariantSpec(without=gates)] if gates else []
    specs += [VariantSpec(relu=outside, without=gates)] if outside and gates else []
    return specs


@torch.inference_mode()
def find_gates(module: nn.Module, in_shape: Sequence[int]) -> tuple[str, ...]:
    """The names of the squeeze-and-excitation modules, whatever their class is called.

    They are known by what they do to a random map: each channel of it comes out times one factor in 0 … 1,
    which is not the same for every image. Arguments as for `find_variants`.
    """
    channels: dict[str, int] = {}

    def hook(name: str, inputs: tuple[object, ...], output: object) -> None:
        (x, *_) = inputs or (None,)
        if isinstance(x, Tensor) and isinstance(output, Tensor) and x.ndim == 4 and x.shape == output.shape:
            channels[name] = x.shape[1]

    inside = dict(module.named_modules(remove_duplicate=False))
    handles = [
        child.register_forward_hook(lambda _, inputs, output, name=name: hook(name, inputs, output))
        for name, child in inside.items()
        if name and next(child.children(), None) is not None and next(child.parameters(), None) is not None
    ]
    try:
        module(_random(in_shape))
    finally:
        for handle in handles:
            handle.remove()
    gates = [name for name, amount in channels.items() if _is_gate(inside[name], amount)]
    # Of a gate and what only wraps it, the outer one is meant.
    return tuple(
        name for name in inside if name in gates and not any(name.startswith(f"{g}.") for g in gates)
    )


def build_variant(spec: VariantSpec, module: nn.Module) -> nn.Module:
    """A copy of the reference's part, with its weights, changed as `spec` says.

    Raises:
        InputError: the part has no module of a name in `spec`.
    """
    copy = deepcopy(module)
    known = dict(copy.named_modules(remove_duplicate=False))
    for name in (*spec.without, *spec.relu):
        if not name or name not in known:
            raise InputError(
                f"the part has no module {name!r} that a variant could replace",
                "restore architecture.json as it was emitted",
            )
        copy.set_submodule(name, nn.ReLU() if name in spec.relu else nn.Identity())
    return copy


def _random(shape: Sequence[int]) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def _is_gate(module: nn.Module, channels: int) -> bool:
    x = _random((channels, *MAP))
    try:
        y = module(x.clone())
    except Exception as error:  # a gate takes maps of any size, this module does not
        if is_out_of_memory(error):
            raise
        return False
    if y.shape != x.shape:
        return False
    factor = (x * y).sum((2, 3), keepdim=True) / x.square().sum((2, 3), keepdim=True)
    scaled = torch.allclose(y, x * factor, rtol=1e-3, atol=1e-5)
    within = bool(((factor >= -1e-4) & (factor <= 1 + 1e-4)).all())
    return scaled and within and not torch.allclose(factor[0], factor[1], rtol=0, atol=1e-6)
