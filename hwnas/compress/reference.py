"""Where the reference comes from: a timm name, one's own function, or a checkpoint that hwnas emitted."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.compress.architecture import ArchitectureSpec, ReferenceSpec, build_module
from hwnas.errors import InputError


def find_reference(text: str, classes: int | None = None) -> ReferenceSpec:
    """What the user means by a model: a checkpoint directory, `module:function`, or a timm name.

    Raises:
        InputError: none of them, with the nearest timm names.
    """
    path = Path(text)
    if (path / "architecture.json").is_file():
        architecture = ArchitectureSpec.read(path / "architecture.json")
        return ReferenceSpec(source="checkpoint", name=path.resolve().name, architecture=architecture)
    if ":" in text:
        _function(text)
        return ReferenceSpec(source="function", name=text)
    import timm

    if timm.is_model(text):
        return ReferenceSpec(source="timm", name=text, classes=classes)
    near = get_close_matches(text, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(
        f"unknown model {text!r}: no timm model, no module:function and no checkpoint directory",
        hint + "all names: python -c 'import timm; print(*timm.list_models())'",
    )


def build_reference(spec: ReferenceSpec) -> nn.Module:
    """The reference's module with fresh weights (a function's: with those it gives), in eval mode.

    Raises:
        InputError: the function cannot be imported or does not give a module.
    """
    if spec.source == "checkpoint":
        assert spec.architecture is not None
        return build_module(spec.architecture)
    if spec.source == "timm":
        import timm

        options = {} if spec.classes is None else {"num_classes": spec.classes}
        model: nn.Module = timm.create_model(spec.name, **options)
        return model.eval()
    module = _function(spec.name)()
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{spec.name} gave a {type(module).__name__}, not a torch.nn.Module",
            "let the function build and return the network",
        )
    return module.eval()


def published_classes(spec: ReferenceSpec) -> int | None:
    """The classes that a timm model's published weights tell apart; None where there are no weights."""
    if spec.source != "timm":
        return None
    import timm

    config = timm.get_pretrained_cfg(spec.name, allow_unregistered=False)
    return config.num_classes if config is not None and config.has_weights else None


def load_pretrained(spec: ReferenceSpec) -> nn.Module:
    """A timm model with the weights of the hub; another number of classes gets a fresh classifier.

    Raises:
        InputError: not a timm model, no weights published, or the hub cannot be reached.
    """
    import timm

    fix = "give a file: --weights FILE.safetensors, or train it on the data: --weights none"
    if spec.source != "timm":
        raise InputError(f"{spec.name} is not a timm model, the hub has no weights for it", fix)
    options = {} if spec.classes is None else {"num_classes": spec.classes}
    try:
        model: nn.Module = timm.create_model(spec.name, pretrained=True, **options)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot get the pretrained weights of {spec.name}: {reason}", fix) from None
    return model.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict from safetensors, or from a `.pth` file without unpickling objects, strictly.

    Raises:
        InputError: unreadable or damaged, or its tensors do not fit the module; the first few are named.
    """
    state = read_state(path)
    expected = module.state_dict()
    wrong = [
        *(f"{key} is missing" for key in expected if key not in state),
        *(f"{key} is not in the model" for key in state if key not in expected),
        *(
            f"{key} has shape {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ),
    ]
    if wrong:
        raise InputError(
            f"{path} does not fit the model: {'; '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''}",
            "give the weights of this very model and number of classes",
        )
    module.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file; nothing is unpickled but tensors. Raises InputError."""
    if not path.is_file():
        raise InputError(f"there is no weights file {path}", "check the path given by --weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"cannot read weights from {path}: {reason}",
            "save them with safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from None
    if isinstance(state, dict):
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict", "save model.state_dict() with safetensors")
    return state


def _function(name: str) -> Callable[[], object]:
    module_name, _, function_name = name.partition(":")
    folder = os.getcwd()  # noqa: PTH109
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        function: Callable[[], object] = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot import {name}: {error}",
            f"run hwnas where {module_name}.py lies, or install the package that holds it",
        ) from None
    if not callable(function) or inspect.ismodule(function):
        raise InputError(f"{name} is not a function", "name a function without required arguments")
    return function
