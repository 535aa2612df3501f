"""Variants of the reference's own parts: the same module with ReLU, or without squeeze-and-excitation.

A device that refuses Swish or squeeze-and-excitation refuses them in the stem and in the head as well
(DONNA's calibration for the Galaxy S20). A variant starts from the reference's weights.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.measurement import STRICT

SMOOTH_ACTIVATIONS = frozenset({"silu", "swish", "hardswish", "gelu", "mish"})
"""Names, in lower case, of the classes of activations that ReLU can stand for."""


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


def variants(module: nn.Module, x: Tensor) -> list[VariantSpec]:
    """What can be made of a part: with ReLU, without squeeze-and-excitation, and both.

    Args:
        module: in eval mode.
        x: two different inputs (2, …), from whose way through the module its gates are found.
    """
    gates = find_gates(module, x)
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
def find_gates(module: nn.Module, x: Tensor) -> tuple[str, ...]:
    """The names of the squeeze-and-excitation modules, whatever their class is called.

    They are known by what they do: each channel of the input comes out times one factor in 0 … 1, which is
    not the same for every input.
    """
    gates: list[str] = []

    def hook(name: str, inputs: tuple[object, ...], output: object) -> None:
        only_wraps_one = any(gate.startswith(f"{name}.") for gate in gates)
        if not only_wraps_one and _is_gated(inputs[0], output):
            gates.append(name)

    handles = [
        child.register_forward_hook(lambda _, inputs, output, name=name: hook(name, inputs, output))
        for name, child in module.named_modules(remove_duplicate=False)
        if name and next(child.children(), None) is not None and next(child.parameters(), None) is not None
    ]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(gates)


def build_variant(spec: VariantSpec, module: nn.Module) -> nn.Module:
    """A copy of the reference's part, with its weights, changed as `spec` says.

    Raises:
        InputError: the part has no module of a name in `spec`.
    """
    copy = deepcopy(module)
    known = dict(copy.named_modules())
    for name in (*spec.without, *spec.relu):
        if not name or name not in known:
            raise InputError(
                f"the part has no module {name!r} that a variant could replace",
                "restore architecture.json as it was emitted",
            )
        copy.set_submodule(name, nn.ReLU() if name in spec.relu else nn.Identity())
    return copy


def _is_gated(x: object, y: object) -> bool:
    """Whether y (B, C, H, W) is x times one factor in 0 … 1 a channel, another one for each image."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.ndim != 4 or x.shape != y.shape:
        return False
    if x.shape[2] * x.shape[3] == 1:  # a single pixel is always its own multiple
        return False
    power = x.square().sum((2, 3), keepdim=True)
    factor = (x * y).sum((2, 3), keepdim=True) / power.clamp_min(1e-12)
    alive = power.squeeze() > 1e-6
    scaled = torch.allclose(y, x * factor, rtol=1e-3, atol=1e-5 * float(x.abs().max()))
    within = bool(((factor >= -1e-4) & (factor <= 1 + 1e-4)).all())
    differs = bool(((factor[0] - factor[1]).abs() > 1e-6).squeeze()[alive.all(0)].any())
    return scaled and within and differs
