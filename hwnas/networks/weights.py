"""Weights from files of any origin: which of a file's tensors are the network's, and whether they fit it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.networks.intact import require_intact
from hwnas.networks.tensors import unusual
from hwnas.networks.weight_files import read_file
from hwnas.progress import Progress

IMAGENET_CLASSES = 1000
NAMED_AT_MOST = 3
DEPTH = 4
STATES = (
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "net",
    "network",
    "weights",
    "params",
    "module",
)
"""What weights are called in a file that holds more, the most usual first."""

AVERAGED = {"ema", "swa", "averaged"}
SHELLS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Levels that torch.compile and others put between a network and its layers."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def load_weights(
    module: nn.Module, path: Path, classes: Sequence[int] = (), progress: Progress | None = None
) -> dict[str, Tensor]:
    """Load a state dict from safetensors, or from a `.pth` file without unpickling objects, strictly.

    Levels around a network (`module.` of DataParallel, `_orig_mod.` of torch.compile, `model.` of Lightning)
    are taken off the names where they fit without them alone. Floating-point tensors get the module's type.

    Args:
        classes: of ImageNet's classes, to which a timm model's weights for all of them are narrowed.
        progress: hears what is taken, taken off and converted.

    Returns:
        What was narrowed, as it was: `whole_classifier`.

    Raises:
        InputError: unreadable or damaged, or its tensors do not fit the module; the first few are named.
    """
    progress = progress or Progress()
    expected = module.state_dict()
    state = _unwrapped(read_state(path, progress), expected.keys(), path, progress)
    whole = whole_classifier(state, module) if classes else {}
    state |= _rows(whole, classes)
    state = _with_all_names(_fit_positions(state, module), module, path)
    _refuse(
        path,
        "does not fit the model",
        _misfits(state, expected),
        "give the weights of this very model and number of classes",
    )
    given = {key: value.dtype for key, value in state.items()}
    faults = []
    for key, wanted in expected.items():
        try:
            state[key] = _converted(state[key], wanted)
        except ValueError as error:
            faults.append(f"{key} {error}")
    _refuse(
        path,
        "holds tensors that are no weights of the model",
        faults,
        "save the finite floating-point weights of this model",
    )
    module.load_state_dict(state)
    converted = Counter(
        (given[key], wanted.dtype) for key, wanted in expected.items() if given[key] != wanted.dtype
    )
    for (before, after), count in converted.items():
        progress.say(f"{path.name}: {count} tensors are converted from {_plain(before)} to {_plain(after)}")
    return {key: value.to(expected[key].dtype) for key, value in whole.items()}


def tensor_names(module: nn.Module) -> list[list[str]]:
    """The names in a module's state dict of each tensor; several of one that stands in several places."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in module.state_dict(keep_vars=True).items():
        names[id(value)].append(name)
    return list(names.values())


def _with_all_names(state: dict[str, Tensor], module: nn.Module, path: Path) -> dict[str, Tensor]:
    """A state dict with every name of a tensor that has several and may be stored under one.

    Raises:
        InputError: two names of one tensor have different values: it is of a module whose weights are apart.
    """
    state = dict(state)
    for names in tensor_names(module):
        known = [name for name in names if name in state]
        for name in names if known else ():
            first, value = state[known[0]], state.setdefault(name, state[known[0]])
            if value is not first and (value.dtype != first.dtype or not torch.equal(value, first)):
                raise InputError(
                    f"{path} has different values for {known[0]} and {name}, one tensor in the model",
                    "give weights of this very model, in which they are shared",
                )
    return state


def _refuse(path: Path, what: str, faults: Sequence[str], fix: str) -> None:
    if faults:
        more = " …" if len(faults) > NAMED_AT_MOST else ""
        raise InputError(f"{path} {what}: {'; '.join(faults[:NAMED_AT_MOST])}{more}", fix)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    return [
        *(f"{key} is missing" for key in expected if key not in state),
        *(f"{key} is not in the model" for key in state if key not in expected),
        *(
            f"{key} has shape {tuple(state[key].shape)} instead of {tuple(wanted.shape)}"
            for key, wanted in expected.items()
            if key in state and state[key].shape != wanted.shape
        ),
    ]


def _converted(given: Tensor, wanted: Tensor) -> Tensor:
    """A tensor in the module's type. Raises ValueError that says why it cannot be."""
    kinds: tuple[torch.dtype, ...] = (
        FLOATS if wanted.is_floating_point() else (*FLOATS, *INTEGERS, wanted.dtype)
    )
    if wanted.is_complex():
        kinds = (torch.complex64, torch.complex128)
    if given.dtype not in kinds:
        raise ValueError(f"is {_plain(given.dtype)} instead of {_plain(wanted.dtype)}")
    found = given.to(wanted.dtype)
    if not (wanted.is_floating_point() or wanted.is_complex()):
        if not torch.equal(found.to(given.dtype), given):
            raise ValueError(f"holds values that {_plain(wanted.dtype)} does not")
        return found
    if found.sum().isfinite():  # in one pass, and most often the end of it
        return found
    wrong = ~found.isfinite() & wanted.isfinite()  # a mask of −∞ that the module builds itself is right
    if (wrong & ~given.isfinite()).any():
        raise ValueError("holds NaN or infinity")
    if wrong.any():
        raise ValueError(f"holds values beyond {_plain(wanted.dtype)}")
    return found


def _unwrapped(
    state: dict[str, Tensor], expected: Collection[str], path: Path, progress: Progress
) -> dict[str, Tensor]:
    """The state under the names of a module: without levels around or between them, where it fits so alone.

    Raises:
        InputError: it fits under several names equally well.
    """
    names, prefixes, hits = {key: key for key in state}, [""], len(state.keys() & expected)
    for shells in ((), SHELLS, (*SHELLS, "module")):
        tried = {_without(key, shells): key for key in state}
        counts = _prefixes(tried, expected)
        most = max(counts.values(), default=0)
        if len(tried) == len(state) and most > hits and 2 * most >= len(expected):
            names, hits = tried, most
            prefixes = [prefix for prefix, count in counts.items() if count == most]
    if len(prefixes) > 1:
        prefixes = [prefix for prefix in prefixes if _is_averaged(prefix)] or prefixes
    if len(prefixes) > 1:
        raise InputError(
            f"{path} holds several networks that fit: {', '.join(sorted(prefixes))}",
            "save the one that is meant alone: safetensors.torch.save_file(network.state_dict(), FILE)",
        )
    prefix = prefixes[0]
    inside = {name: key for name, key in names.items() if name.startswith(prefix)}
    levels = {level for name, key in inside.items() for level in _levels(key) - _levels(name)}
    off = [*filter(None, [prefix]), *(f"{level}." for level in sorted(levels))]
    if off:
        aside = sorted({key.split(".")[0] for name, key in names.items() if name not in inside})
        progress.say(f"{path.name}: {', '.join(off)} is taken off the names of the weights{_aside(aside)}")
    return {name.removeprefix(prefix): state[key] for name, key in inside.items()}


def _levels(name: str) -> set[str]:
    return set(name.split("."))


def _aside(names: Sequence[str]) -> str:
    more = " …" if len(names) > NAMED_AT_MOST else ""
    return f"; left aside: {', '.join(names[:NAMED_AT_MOST])}{more}" if names else ""


def _without(name: str, levels: Collection[str]) -> str:
    return ".".join(level for level in name.split(".") if level not in levels)


def _prefixes(names: Collection[str], expected: Collection[str]) -> Counter[str]:
    """How many of the expected names follow each prefix."""
    counts: Counter[str] = Counter()
    for name in names:
        start = 0
        while True:
            if name[start:] in expected:
                counts[name[:start]] += 1
            start = name.find(".", start) + 1
            if not start:
                break
    return counts


def _is_averaged(name: str) -> bool:
    return bool(AVERAGED & set(re.split(r"[^a-z]+", name.lower())))


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


def read_state(path: Path, progress: Progress | None = None) -> dict[str, Tensor]:
    """The state dict of a network in a file; of a training checkpoint the averaged weights where it has them.

    Args:
        progress: hears which part of a checkpoint is taken.

    Raises:
        InputError: no weights file, one that holds no state dict or several, or tensors without plain values;
            or it is of a checkpoint or a run's reference, and not the one that was written.
    """
    require_intact(path)
    content = read_file(path)
    chosen: list[str] = []
    others: list[str] = []
    while not _is_state(content) and not (isinstance(content, dict) and not content):
        found = _leading(content)
        key = _choice(found)
        if key is None:
            raise InputError(
                f"{path} {_why_none(content, found)}", "save model.state_dict() with safetensors"
            )
        chosen.append(key)
        others += (".".join([*chosen[:-1], other]) for other in found if other != key)
        content = content[key]  # type: ignore[index]
    assert isinstance(content, dict)
    if chosen:
        (progress or Progress()).say(f"{path.name}: the weights are {'.'.join(chosen)}{_aside(others)}")
    strange = [f"{key} is {kind}" for key, value in content.items() if (kind := unusual(value))]
    _refuse(
        path,
        "holds tensors that cannot be read",
        strange,
        "save dense tensors with their values; of a quantised network the weights before it was quantised",
    )
    return dict(content)


def _is_state(content: object) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _leading(content: object, depth: int = DEPTH) -> list[str]:
    """The keys of a mapping behind which a state dict lies, an optimizer's apart."""
    if not isinstance(content, dict) or not depth or not all(isinstance(key, str) for key in content):
        return []
    return [
        key
        for key, value in content.items()
        if "optim" not in key.lower() and (_is_state(value) or _leading(value, depth - 1))
    ]


def _choice(keys: Sequence[str]) -> str | None:
    """Averaged weights, as they are the ones that get judged; or the most usual name, or the only one."""
    averaged = [key for key in keys if _is_averaged(key)]
    usual = [key for key in STATES if key in keys]
    for group in (averaged, usual[:1], keys):
        if group:
            return group[0] if len(group) == 1 else None
    return None


def _why_none(content: object, found: Sequence[str]) -> str:
    if found:
        return f"holds several networks: {', '.join(sorted(found))}"
    if not isinstance(content, dict):
        return f"holds no state dict, it holds a {type(content).__name__}"
    strange = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strange and len(strange) < len(content):
        return f"holds no state dict: {strange[0]} is a {type(content[strange[0]]).__name__}, not a tensor"
    return f"holds no state dict, it holds {', '.join(map(str, list(content)[:NAMED_AT_MOST]))}"


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
    return {**state, **_rows(whole_classifier(state, module), classes)}


def whole_classifier(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm model by which it tells all of ImageNet's classes apart; none where it does not.

    Args:
        state: of the model.
        module: the model, with any number of classes.
    """
    named = module.pretrained_cfg["classifier"]  # type: ignore[index]
    layers = (named,) if isinstance(named, str) else named
    heads = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    return {key: state[key] for key in heads if key in state and len(state[key]) == IMAGENET_CLASSES}


def _rows(classifier: Mapping[str, Tensor], classes: Sequence[int]) -> dict[str, Tensor]:
    return {key: value[list(classes)] for key, value in classifier.items()}
