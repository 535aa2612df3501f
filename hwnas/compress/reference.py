"""Where the reference comes from: a timm name, one's own function, or a checkpoint that hwnas emitted."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.compress.architecture import ArchitectureSpec, ReferenceSpec, build_module
from hwnas.compress.imports import call_function, import_function
from hwnas.compress.intact import require_intact
from hwnas.errors import InputError, first_line

IMAGENET_CLASSES = 1000


def find_reference(text: str, classes: int | None = None, image_size: int = 0) -> ReferenceSpec:
    """What the user means by a model: a checkpoint directory, `module:function`, or a timm name.

    Args:
        classes: of a timm model; None leaves its own.
        image_size: of the data in pixels, for timm models that are built for one size; 0 leaves their own.

    Raises:
        InputError: none of them, with the nearest timm names.
    """
    path = Path(text)
    if (path / "architecture.json").is_file():
        require_intact(path)
        architecture = ArchitectureSpec.read(path / "architecture.json")
        return ReferenceSpec(source="checkpoint", name=path.resolve().name, architecture=architecture)
    if ":" in text:
        import_function(text)
        return ReferenceSpec(source="function", name=text)
    import timm

    if timm.is_model(text):
        config = timm.get_pretrained_cfg(text)
        fixed = config is not None and config.fixed_input_size and config.input_size[1:] != (image_size,) * 2
        size = image_size if fixed and image_size else None
        return ReferenceSpec(source="timm", name=text, classes=classes, image_size=size)
    near = get_close_matches(text, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(
        f"unknown model {text!r}: no timm model, no module:function and no checkpoint directory",
        hint + "all names: python -c 'import timm; print(*timm.list_models())'",
    )


def build_reference(spec: ReferenceSpec, *, allow_code: bool) -> nn.Module:
    """The reference's module with fresh weights (a function's: with those it gives), in eval mode.

    Args:
        allow_code: import and call the function that the spec names; True where the user named it, not
            where a file did.

    Raises:
        InputError: the function is not allowed, cannot be imported, fails, or does not give a module.
    """
    if spec.source == "checkpoint":
        assert spec.architecture is not None
        return build_module(spec.architecture, allow_code=allow_code)
    if spec.source == "timm":
        import timm

        try:
            model: nn.Module = timm.create_model(spec.name, **_options(spec))
        except Exception as error:
            raise InputError(
                f"timm cannot build {spec.name!r}: {first_line(error)}",
                "pip install --upgrade timm, or name another model",
            ) from error
        return model.eval()
    if not allow_code:
        raise InputError(
            f"the checkpoint builds its network by importing {spec.name} and calling it",
            "where you trust that code: hwnas.load(PATH, allow_code=True), or --allow-code",
        )
    module = call_function(spec.name, "name a function that builds the network without arguments")
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{spec.name} gave a {type(module).__name__}, not a torch.nn.Module",
            "let the function build and return the network",
        )
    return module.eval()


def _options(spec: ReferenceSpec) -> dict[str, int]:
    options = {"num_classes": spec.classes, "img_size": spec.image_size}
    return {name: value for name, value in options.items() if value is not None}


def published_classes(spec: ReferenceSpec) -> int | None:
    """The classes that a timm model's published weights tell apart; None where there are no weights."""
    if spec.source != "timm":
        return None
    import timm

    config = timm.get_pretrained_cfg(spec.name, allow_unregistered=False)
    return config.num_classes if config is not None and config.has_weights else None


def load_pretrained(spec: ReferenceSpec, classes: Sequence[int] = ()) -> nn.Module:
    """A timm model with the weights of the hub; another number of classes gets a fresh classifier.

    Args:
        classes: of ImageNet's classes, to which the classifier is narrowed instead.

    Raises:
        InputError: not a timm model, no weights published, or the hub cannot be reached.
    """
    import timm

    fix = "give a file: --weights FILE.safetensors, or train it on the data: --weights none"
    if spec.source != "timm":
        raise InputError(f"{spec.name} is not a timm model, the hub has no weights for it", fix)
    try:
        model: nn.Module = timm.create_model(
            spec.name, pretrained=True, **_options(replace(spec, classes=None) if classes else spec)
        )
    except Exception as error:
        raise InputError(
            f"cannot get the pretrained weights of {spec.name}: {first_line(error)}", fix
        ) from None
    if classes:
        narrowed = build_reference(spec, allow_code=False)
        narrowed.load_state_dict(narrow_classifier(model.state_dict(), narrowed, classes))
        return narrowed
    return model.eval()


def narrow_classifier(
    state: Mapping[str, Tensor], module: nn.Module, classes: Sequence[int]
) -> dict[str, Tensor]:
    """The weights of a timm model that tells only some of the classes apart, in the given order.

    A linear classifier computes each class by a row of its own, so the logits of the others are gone and
    those of the given ones stay what they were.

    Args:
        state: of the model with all of ImageNet's classes; another one stays as it is.
        module: the model with as many outputs as there are `classes`.
    """
    named = module.pretrained_cfg["classifier"]  # type: ignore[index]
    layers = (named,) if isinstance(named, str) else named
    heads = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    return {
        key: value[list(classes)] if key in heads and len(value) == IMAGENET_CLASSES else value
        for key, value in state.items()
    }


def load_weights(module: nn.Module, path: Path, classes: Sequence[int] = ()) -> None:
    """Load a state dict from safetensors, or from a `.pth` file without unpickling objects, strictly.

    Args:
        classes: of ImageNet's classes, to which a timm model's weights for all of them are narrowed.

    Raises:
        InputError: unreadable or damaged, or its tensors do not fit the module; the first few are named.
    """
    state = read_state(path)
    if classes:
        state = narrow_classifier(state, module, classes)
    state = _fit_positions(state, module)
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


def _fit_positions(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Position embeddings of a timm transformer, interpolated to the size of image that it is built for."""
    name = "pos_embed"
    given, wanted = state.get(name), getattr(module, name, None)
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if given is None or wanted is None or grid is None or given.ndim != 3 or given.shape == wanted.shape:
        return state
    others = 0 if getattr(module, "no_embed_class", False) else getattr(module, "num_prefix_tokens", 0)
    tokens = given.shape[1] - others
    if given.shape[2] != wanted.shape[2] or tokens < 1 or math.isqrt(tokens) ** 2 != tokens:
        return state
    from timm.layers import resample_abs_pos_embed

    return state | {name: resample_abs_pos_embed(given, list(grid), num_prefix_tokens=others)}


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file; nothing is unpickled but tensors. Raises InputError."""
    if not path.is_file():
        raise InputError(f"there is no weights file {path}", "check the path")
    require_intact(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors, or is not a weights file; nothing of it was executed",
            "save the tensors alone: safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from None
    except Exception as error:
        raise InputError(
            f"cannot read weights from {path}: {first_line(error)}",
            "save them with safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from None
    if isinstance(state, dict):
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict", "save model.state_dict() with safetensors")
    return state
