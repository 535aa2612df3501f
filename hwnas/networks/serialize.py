"""The files of a stored network: written, and read again as a module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from hwnas.errors import InputError
from hwnas.files import write_bytes
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.build import build_module
from hwnas.networks.checks import is_answer
from hwnas.networks.intact import require_intact


def save_module(module: nn.Module, path: Path) -> None:
    """Write a module's state dict as safetensors; a tensor of several names stands under the first."""
    from hwnas.networks.weights import tensor_names

    again = {name for _, *others in tensor_names(module) for name in others}
    save_state({name: value for name, value in module.state_dict().items() if name not in again}, path)


def save_state(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a state dict as safetensors."""
    from safetensors.torch import save

    copies = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    write_bytes(path, save(copies))


def load_module(path: str | os.PathLike[str], *, allow_code: bool = False) -> nn.Module:
    """See `hwnas.load`."""
    from hwnas.networks.weights import load_weights

    folder = Path(path)
    if not (folder / "architecture.json").is_file():
        raise InputError(
            f"{folder} is not a checkpoint: it has no architecture.json",
            "give a directory such as runs/demo/checkpoints/cpu-knee",
        )
    record = require_intact(folder)
    spec = ArchitectureSpec.read(folder / "architecture.json")
    module = build_module(spec, allow_code=allow_code)
    load_weights(module, folder / "model.safetensors")
    if record.answer is not None and not is_answer(module, spec.input_shape, record.answer):
        raise InputError(
            f"{folder} answers otherwise than when it was stored: the code that builds it has changed, or "
            "its answer depends on what it did before",
            "restore that code as it was; let its answer depend on its weights and its input alone, and give "
            "the command that made it again",
        )
    return module
