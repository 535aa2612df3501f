"""What a network must be before anything is measured or trained: found out once, when it is taken.

Each check is of a kind of network whose numbers would be wrong without a word: what is measured, trained,
stored and loaded again would not be one and the same function.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hwnas.agreement import disagreement
from hwnas.errors import InputError, first_line
from hwnas.network import in_eval_mode, plain_attention, random_input
from hwnas.networks.control_flow import source_line
from hwnas.networks.detector_body import without_boxes
from hwnas.networks.tensors import main_output, tensors_of, written
from hwnas.wiring import Wiring

NAMED = 3  # tensors or modules in a message
ANSWER_VALUES = 32  # of one image

WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""Classes of torch that stand around a module, by name, since to import the compiler takes a second."""

INTERNAL = frozenset(vars(nn.Module()))
"""Attributes in which torch itself keeps what a module has."""

_log = logging.getLogger(__name__)


def plain_module(module: nn.Module, name: str) -> nn.Module:
    """Bring a module of the user's into the form in which hwnas takes it: in eval mode, in float32, itself.

    Wrappers for several GPUs and for the compiler are taken off, and half or double precision becomes single;
    both are said.

    Args:
        name: of the network, for messages.

    Raises:
        InputError: it has no values yet (lazy or meta), keeps modules where torch does not find them, or has
            weights that are parts of others.
    """
    module = _unwrapped(module, name)
    for key, tensor in _tensors(module):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer) or tensor.is_meta:
            raise InputError(
                f"{name} is not complete: {key} has no values yet",
                "let the function give it an image once, model(torch.zeros(1, 3, H, W)), or load its weights",
            )
    _require_registered(module, name)
    odd = [key for key, value in module.state_dict().items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(
            f"the state_dict() of {name} holds something else than tensors: {', '.join(odd[:NAMED])}",
            "let get_extra_state() return a tensor, or keep it out of what the answer depends on",
        )
    _tie(module, name)
    kinds = {str(t.dtype).removeprefix("torch.") for _, t in _tensors(module) if t.is_floating_point()}
    if kinds - {"float32"}:
        _say(f"{name} is in {', '.join(sorted(kinds))}; it is taken in float32, as all networks are")
        module = module.float()
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.requires_grad_(True)
    return in_eval_mode(module)


def copied(module: nn.Module, name: str) -> nn.Module:
    """Copy a module. Raises InputError: something that it keeps cannot be copied."""
    try:
        return deepcopy(module)
    except Exception as error:  # of whatever it keeps in its attributes
        raise InputError(
            f"{name} cannot be copied: {first_line(error)}",
            "let it keep no locks, files, generators or results of computations in its attributes",
        ) from None


def _unwrapped(module: nn.Module, name: str) -> nn.Module:
    """The module without wrappers of the compiler and of several GPUs, around it or inside of it.

    Of torchvision's detectors it is their body.
    """

    def inner(outer: nn.Module) -> nn.Module:
        while type(outer).__name__ in WRAPPERS:
            held: nn.Module = getattr(outer, WRAPPERS[type(outer).__name__])
            _say(f"{name}: {type(outer).__name__} is taken off its {type(held).__name__}")
            outer = held
        return outer

    shape = getattr(module, "input_shape", None)
    module = inner(module)
    if shape is not None and not hasattr(module, "input_shape"):
        module.input_shape = shape
    for key, child in list(module.named_modules()):
        if child is not inner(child):
            module.set_submodule(key, inner(child))
    for child in module.modules():
        child._compiled_call_impl = None  # of module.compile(), which compiles in place
    return without_boxes(module)


def _require_registered(module: nn.Module, name: str) -> None:
    """Refuse modules and weights in a Python list, tuple or dictionary, which torch does not look into."""
    registered = {id(each) for each in (*module.modules(), *module.parameters())}
    for key, child in module.named_modules():
        for attribute, value in vars(child).items():
            if attribute in INTERNAL or not isinstance(value, list | tuple | dict):
                continue
            for leaf in tree_leaves(value):
                weighs = isinstance(leaf, nn.Parameter) or (isinstance(leaf, nn.Module) and _has_values(leaf))
                if weighs and id(leaf) not in registered:
                    where = f"{key}.{attribute}" if key else attribute
                    raise InputError(
                        f"{name} keeps modules or weights in a plain {type(value).__name__}, {where}, where "
                        "torch does not find them: they would be neither trained nor stored",
                        f"make it an nn.ModuleList, nn.ModuleDict or nn.ParameterList: {where}",
                    )


def _tie(module: nn.Module, name: str) -> None:
    """Make parameters one that have the same memory, as if `.data` was set to another's: copies would not.

    Raises:
        InputError: they have a part of it in common.
    """
    held: dict[int, tuple[str, nn.Parameter]] = {}
    for prefix, child in module.named_modules():
        for key, weight in child.named_parameters(recurse=False):
            here = f"{prefix}.{key}" if prefix else key
            where, first = held.setdefault(weight.untyped_storage().data_ptr(), (here, weight))
            if first is weight or not weight.numel():
                continue
            if (first.storage_offset(), first.shape, first.stride()) != (
                weight.storage_offset(),
                weight.shape,
                weight.stride(),
            ):
                raise InputError(
                    f"{name}: {here} is a part of the memory of {where}, and would not be in a copy",
                    "make it of the other one in forward(), or give it values of its own: weight.clone()",
                )
            setattr(child, key, first)


def _has_values(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@cache
def _say(text: str) -> None:
    """Tell the user once, however often the network is built."""
    _log.warning("%s", text)


@torch.no_grad()
def require_found_weights(model: nn.Module, x: Tensor) -> None:
    """Refuse a model that computes with weights which torch does not find in it.

    Args:
        model: in eval mode.
        x: a batch (B, C, H, W) that it can take.

    Raises:
        InputError: names the first such weight and the line that uses it.
    """
    known = {id(parameter) for parameter in model.parameters()}

    def see(_: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter) and id(leaf) not in known:
                raise InputError(
                    f"the network computes with a weight of shape {tuple(leaf.shape)} which torch does not "
                    f"find in it ({source_line()}): it would be neither trained nor stored",
                    "let the module that uses it have it as an attribute, or in an nn.ModuleList, "
                    "nn.ModuleDict or nn.ParameterList",
                )

    with plain_attention(), _Seeing(see):
        model(x.clone())


class _Seeing(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hooks have no types
    """Shows each operation of torch, with its arguments, before it runs."""

    def __init__(self, see: Callable[[Any, Sequence[Any], Mapping[str, Any]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see = see

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self._see(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def require_one_function(model: nn.Module, x: Tensor) -> None:
    """Refuse a model whose answer to an image depends on anything but that image.

    Args:
        model: in eval mode.
        x: a batch (B, C, H, W) of two images or more that it can take.

    Raises:
        InputError: it answers otherwise when it is asked again, or when the image is alone; names the module.
    """
    together = _one_by_one(model(x.clone()), len(x))
    if disagreement(together, _one_by_one(model(x.clone()), len(x))):
        raise InputError(
            f"{type(model).__name__} gives another answer each time, {_first_apart(model, x, x)}",
            "let it draw no random numbers and keep no memory in eval mode: "
            "F.dropout(x, p, training=self.training)",
        )
    alone = [model(image.clone()) for image in torch.split(x, 1)]
    if disagreement(together, alone):
        raise InputError(
            f"{type(model).__name__} answers to an image otherwise when others are beside it, "
            f"{_first_apart(model, x, x[:1])}",
            "let each image be computed for itself in eval mode, as batch normalisation does with "
            "track_running_stats=True",
        )


def _one_by_one(output: object, images: int) -> list[object]:
    """The answers to each image of a batch, every tensor still with a batch dimension."""
    from torch.utils._pytree import tree_map

    return [
        tree_map(
            lambda leaf, i=i: leaf[i : i + 1] if isinstance(leaf, Tensor) and leaf.ndim else leaf, output
        )
        for i in range(images)
    ]


def _first_apart(model: nn.Module, first: Tensor, second: Tensor) -> str:
    """Where a model first gives something else for two batches; the images of the shorter are in both."""
    calls = [_calls(model, x.clone()) for x in (first, second)]
    images = min(len(first), len(second))
    for (name, given, found), (_, given_again, found_again) in zip(*calls, strict=False):
        if _alike(given, given_again, images) and not _alike(found, found_again, images):
            return f"in its module {name!r}" if name else "in its own forward()"
    return "in its own forward()"


def _calls(model: nn.Module, x: Tensor) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    """Inputs and outputs of every call of a module, in the order in which the calls end."""
    calls: list[tuple[str, list[Tensor], list[Tensor]]] = []
    given: list[list[Tensor]] = []

    def before(_: nn.Module, args: Any) -> None:
        given.append(_leaves(args))

    def after(name: str, output: Any) -> None:
        calls.append((name, given.pop(), _leaves(output)))

    handles = [module.register_forward_pre_hook(before) for module in model.modules()]
    handles += [
        module.register_forward_hook(lambda _, __, output, name=name: after(name, output))
        for name, module in model.named_modules()
    ]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _leaves(values: object) -> list[Tensor]:
    return [leaf.clone() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _alike(first: Sequence[Tensor], second: Sequence[Tensor], images: int) -> bool:
    pairs = zip(first, second, strict=False)
    return all(torch.allclose(a[:images], b[:images], rtol=1e-3, atol=1e-5) for a, b in pairs)


@torch.no_grad()
def require_rebuildable(model: nn.Module, again: nn.Module, x: Tensor, name: str) -> None:
    """Refuse a network that is another one each time it is built, though it is given the same weights.

    Args:
        model, again: in eval mode, built one after the other; `again` gets the weights of `model`.
        x: a batch (B, C, H, W) of two images or more.
        name: by which it is built, for messages.

    Raises:
        InputError: names what its state_dict() does not hold.
    """
    fix = (
        "let its state_dict() hold all that its answer depends on, self.register_buffer(NAME, tensor), or "
        "make that the same each time, from a seed of its own"
    )
    try:
        again.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise InputError(
            f"{name} is built otherwise each time: {' '.join(str(error).split())[:200]}", fix
        ) from None
    if not disagreement(*(_one_by_one(each(x.clone()), len(x)) for each in (model, again))):
        return
    stored = model.state_dict().keys()
    others = dict(_attributes(again))
    changed = [
        key
        for key, tensor in _attributes(model)
        if key not in stored and not (key in others and torch.equal(tensor, others[key]))
    ]
    what = f", since {', '.join(changed[:NAMED])} is not in its state_dict()" if changed else ""
    raise InputError(f"{name} is another network each time it is built, with the same weights{what}", fix)


def _attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers and plain attributes that are tensors, by name."""
    for prefix, module in model.named_modules():
        for key, value in (*vars(module).items(), *module._buffers.items()):
            if isinstance(value, Tensor):
                yield (f"{prefix}.{key}" if prefix else key), value


@torch.no_grad()
def writes_to_input(module: nn.Module, *inputs: Tensor) -> bool:
    """Find out whether a module changes a tensor that it is given, in eval or in train mode.

    Known by the operations of torch that write to its memory, whatever they change there, and by its values,
    for what others do.

    Args:
        module: in eval mode.

    Raises:
        Exception: whatever the module raises in eval mode. What it raises in train mode is left to
            `require_trainable`.
    """
    if _writes(module, inputs):
        return True
    training = copied(module, type(module).__name__)
    training.train()
    with contextlib.suppress(Exception):
        return _writes(training, inputs)
    return False


def _writes(module: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether it writes to the memory of what it is given, also by a view of it or by `.data`."""
    given = [x.clone() for x in inputs]
    memory, found = {x.untyped_storage().data_ptr() for x in given}, False

    def see(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        nonlocal found
        found |= any(t.untyped_storage().data_ptr() in memory for t in written(func, args, kwargs))

    with plain_attention(), _Seeing(see):
        module(*given)
    return found or not all(map(torch.equal, given, inputs))


def keep_input(module: nn.Module) -> None:
    """Let a module work on a copy of what it is given, wherever it is copied to or exported."""
    if not isinstance(module, fx.GraphModule):
        module.register_forward_pre_hook(_copied)
        return
    for given in [node for node in module.graph.nodes if node.op == "placeholder"]:  # copies lose their hooks
        with module.graph.inserting_after(given):
            copy = module.graph.call_method("clone", (given,))
        given.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    module.recompile()


def _copied(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in arguments)


def require_trainable(modules: Mapping[str, nn.Module], wiring: Wiring, x: Tensor) -> None:
    """Make one training step's forward and backward pass of each part; nothing of it is kept.

    Args:
        modules: the parts by name, in order.
        x: a batch (B, C, H, W) of two images or more.

    Raises:
        InputError: a part cannot be trained; names it.
    """
    values = {0: x}
    copies = deepcopy(dict(modules))
    for (name, module), reads, gives in zip(copies.items(), wiring.reads, wiring.gives, strict=True):
        module.train()
        try:
            given = module(*(values[each] for each in reads))
            outputs = given if len(gives) > 1 else (given,)
            learning = [y.square().mean() for y in outputs if y.requires_grad]
            if learning:
                sum(learning, torch.zeros(())).backward()
        except Exception as error:
            raise InputError(
                f"{name} of the network cannot be trained: {first_line(error)}",
                "change nothing in place that a gradient needs (y = y * 2 for y.mul_(2)), and let it take "
                "batches in train mode",
            ) from None
        values.update(zip(gives, (y.detach() for y in outputs), strict=True))


@torch.no_grad()
def answer_of(model: nn.Module, input_shape: Sequence[int]) -> tuple[float, ...]:
    """Take some values of a model's output for two random images, by which it is known again.

    Args:
        input_shape: (C, H, W).

    Returns:
        As many of each image, evenly spaced over all tensors that it gives.
    """
    output = main_output(in_eval_mode(model)(random_input((2, *input_shape))))
    leaves = [leaf for leaf in tensors_of(output) if leaf.shape[:1] == (2,)]
    values = torch.cat([leaf.float().flatten(1) for leaf in leaves], 1)
    chosen = torch.linspace(0, values.shape[1] - 1, min(ANSWER_VALUES, values.shape[1])).long()
    return tuple(values[:, chosen].flatten().tolist())


def is_answer(model: nn.Module, input_shape: Sequence[int], expected: Sequence[float]) -> bool:
    """Whether a model gives, as far as rounding lets it, what `answer_of` gave."""
    was, is_now = (
        list(torch.tensor(each).reshape(2, -1)) for each in (expected, answer_of(model, input_shape))
    )
    return not disagreement(was, is_now)
