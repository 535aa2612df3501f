"""What a network computes, as a graph: it is run once, and all that depends on the image is recorded.

It is run on a batch of images in eval mode. Sizes that are read off tensors stay arithmetic on sizes, so the
graph holds for other batches, and mostly for images of other sizes; what Python decides by them is decided.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from hwnas.errors import InputError, first_line, is_out_of_memory
from hwnas.network import in_eval_mode, plain_attention
from hwnas.networks.tensors import main_output

ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
IN_PLACE = {f"__i{name}__": getattr(operator, name) for name in ARITHMETIC}
ASKED = ("dim", "ndimension", "element_size", "stride", "is_contiguous", "is_floating_point", "is_complex")


@dataclass
class Trace:
    """A network's graph.

    Attributes:
        module: a copy of the network, which holds what the graph's nodes name.
        graph: placeholder, operations and whole modules, output.
        examples: what each node gave.
        modules: each node's modules whose forward() it is in, the outermost first.
        ends: what each call of a module took and gave, where that is one tensor each.
        many: modules that were looked into and take or give several tensors at once: lists may grow in them.
    """

    module: nn.Module
    graph: fx.Graph
    examples: dict[fx.Node, Any] = field(default_factory=dict)
    modules: dict[fx.Node, tuple[str, ...]] = field(default_factory=dict)
    ends: dict[str, list[tuple[fx.Node | None, fx.Node | None]]] = field(default_factory=dict)
    many: set[str] = field(default_factory=set)


def trace(model: nn.Module, x: Tensor, is_whole: Callable[[str, nn.Module], bool] | None = None) -> Trace:
    """Run a network once and record it.

    Args:
        model: in eval mode; it is copied.
        x: images (B, C, H, W).
        is_whole: whether a module, given with its name, is one node; None looks into all that is no layer.

    Raises:
        InputError: it cannot be recorded: values leave torch, or it does what a graph cannot hold.
    """
    stubborn: set[str] = set()
    is_node = is_whole or _is_layer
    while True:
        module = in_eval_mode(deepcopy(model))
        for child in module.modules():
            if getattr(child, "inplace", None) is True:
                child.inplace = False  # type: ignore[assignment]
        recorder = _Recorder(module, lambda name, child: name in stubborn or is_node(name, child))
        try:
            with torch.no_grad(), plain_attention(), recorder.watching():
                output = module(recorder.begin(x))
            recorder.graph.output(recorder.argument(main_output(output)))
            return recorder.found
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if recorder.failed and recorder.failed not in stubborn:
                stubborn.add(recorder.failed)  # it runs where nothing is recorded: it stays whole
                continue
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{type(model).__name__} cannot be traced: {first_line(error)}",
                "let its forward() call modules and torch's own functions on tensors",
            ) from error


def _is_layer(_: str, module: nn.Module) -> bool:
    """Whether a module is one of torch's layers, or has no modules inside."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    bases = [base for base in type(module).__mro__ if base is not nn.Module]
    is_torchs = any(base.__module__.startswith("torch.nn.modules.") for base in bases)
    return is_torchs or not any(True for _ in module.children())


def label(node: fx.Node) -> str:
    """What a node is called for people: a module by its name, an operation by its own."""
    if node.op in ("call_module", "call_method"):
        return str(node.target)
    return str(getattr(node.target, "__name__", node.name)) if node.op == "call_function" else node.name


class Number(int):
    """A size that was read off a tensor."""

    node: fx.Node
    recorder: _Recorder


class Fraction(float):
    """What was computed of sizes."""

    node: fx.Node
    recorder: _Recorder


class Sizes(tuple[int, ...]):
    """The sizes of a tensor."""

    def numel(self) -> int:
        """Return their product."""
        return math.prod(self)


def _arithmetic(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def compute(self: Number | Fraction, *others: Any) -> Any:
        if not all(isinstance(other, int | float) for other in others):
            return NotImplemented
        return self.recorder.computed(function, (self, *others))

    return compute


def _reflected(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def compute(self: Number | Fraction, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        return self.recorder.computed(function, (other, self))

    return compute


for _kind in (Number, Fraction):
    for _name in ARITHMETIC:
        setattr(_kind, f"__{_name}__", _arithmetic(_name))
        setattr(_kind, f"__r{_name}__", _reflected(_name))
    _kind.__neg__ = _arithmetic("neg")  # type: ignore[method-assign]
for _name, _function in (("ceil", math.ceil), ("floor", math.floor), ("round", round)):
    setattr(
        Fraction, f"__{_name}__", lambda self, *rest, f=_function: self.recorder.computed(f, (self, *rest))
    )


def set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    """Return a tensor after values were written into it, in place."""
    x[index] = value
    return x


def after(x: Tensor, _: Any) -> Tensor:
    """Return a tensor whose memory something else has written to meanwhile."""
    return x


class _Recorder(TorchFunctionMode):
    def __init__(self, module: nn.Module, is_whole: Callable[[str, nn.Module], bool]) -> None:
        super().__init__()
        self.module, self.is_whole = module, is_whole
        self.graph = fx.Graph()
        self.found = Trace(module, self.graph)
        self.names = {id(child): name for name, child in reversed(list(module.named_modules()))}
        weights = [*module.named_parameters(), *module.named_buffers()]
        self.weights = {id(tensor): name for name, tensor in reversed(weights)}
        self.nodes: dict[int, fx.Node] = {}
        self.kept: list[Any] = []  # as long as it lives, no other tensor has its id
        self.stored: dict[int, list[Tensor]] = {}
        self.busy = False
        self.frames: list[str] = []
        self.failed = ""
        self.constants = 0

    # What is recorded.

    def begin(self, x: Tensor) -> Tensor:
        image: Tensor = self.tracked(x.clone(), self.graph.placeholder("x"))
        return image

    def tracked(self, value: Any, node: fx.Node) -> Any:
        """Let a value stand for a node; what a tuple, list or dictionary holds, for an item of it."""
        self.found.examples[node] = value
        self.found.modules[node] = tuple(filter(None, self.frames))
        if isinstance(value, Tensor):
            self.nodes[id(value)] = node
            self.kept.append(value)
            self.stored.setdefault(_memory(value), []).append(value)
        elif isinstance(value, tuple | list | dict):
            keys = value.keys() if isinstance(value, dict) else range(len(value))
            for key in keys:
                if _tensors(value[key]):
                    item = self.graph.call_function(operator.getitem, (node, key))
                    self.tracked(value[key], item)
        return value

    def number(self, value: Any, node: fx.Node) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        made = Number(value) if isinstance(value, int) else Fraction(value)
        made.node, made.recorder = node, self
        self.found.examples[node] = value
        self.found.modules[node] = tuple(filter(None, self.frames))
        return made

    def computed(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        plain = [_plain(each) for each in args]
        node = self.graph.call_function(function, tuple(self.argument(each) for each in args))
        return self.number(function(*plain), node)

    def argument(self, value: Any) -> Any:
        """A value as an argument of a node."""
        if isinstance(value, Number | Fraction):
            return value.node
        if isinstance(value, Tensor):
            return self.node_of(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.argument, value))
        if isinstance(value, tuple):
            return tuple(map(self.argument, value))
        if isinstance(value, list):
            return [self.argument(each) for each in value]
        if isinstance(value, dict):
            return {key: self.argument(each) for key, each in value.items()}
        if isinstance(value, slice):
            return slice(*map(self.argument, (value.start, value.stop, value.step)))
        return value

    def node_of(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self.nodes:
            name = self.weights.get(id(tensor))
            if name is None:
                name = f"_constant{self.constants}"
                self.constants += 1
                self.module.register_buffer(name, tensor, persistent=False)
            node = self.graph.get_attr(name)
            self.nodes[id(tensor)] = node
            self.kept.append(tensor)
            self.found.examples[node] = tensor
        return self.nodes[id(tensor)]

    def is_known(self, value: Any) -> bool:
        if isinstance(value, Number | Fraction):
            return True
        if isinstance(value, Tensor):
            return id(value) in self.nodes or id(value) in self.weights
        if isinstance(value, tuple | list):
            return any(map(self.is_known, value))
        if isinstance(value, dict):
            return any(map(self.is_known, value.values()))
        if isinstance(value, slice):
            return any(map(self.is_known, (value.start, value.stop, value.step)))
        return False

    # Where it is watched.

    @contextmanager
    def watching(self) -> Iterator[None]:
        call = nn.Module.__call__

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.call(call, module, args, kwargs)

        nn.Module.__call__ = watched  # type: ignore[method-assign]
        try:
            with self:
                yield
        finally:
            nn.Module.__call__ = call  # type: ignore[method-assign]

    def call(self, call: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        name = self.names.get(id(module))
        if self.busy or name is None:
            return call(module, *args, **kwargs)
        entries = [each for each in _tensors((args, kwargs)) if id(each) in self.nodes]
        entry = self.nodes[id(entries[0])] if len(entries) == 1 else None
        if isinstance(module, nn.Identity):
            result = call(module, *args, **kwargs)
        elif name and (entries or self.is_known((args, kwargs))) and self.is_whole(name, module):
            given = (self.argument(args), self.argument(kwargs))
            self.busy = True
            try:
                result = call(module, *args, **kwargs)
            finally:
                self.busy = False
            self.tracked(result, self.graph.call_module(name, *given))
        else:
            self.frames.append(name)
            try:
                result = call(module, *args, **kwargs)
            except Exception:
                self.failed = self.failed or name
                raise
            finally:
                self.frames.pop()
            if not all(
                isinstance(each, Tensor) for each in (result, *args, *kwargs.values()) if _tensors(each)
            ):
                self.found.many.add(name)
        exits = self.nodes.get(id(result)) if isinstance(result, Tensor) else None
        self.found.ends.setdefault(name, []).append((entry, exits))
        return result

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.busy or not self.is_known((args, kwargs)):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self.attribute(func, args[0])
        if name == "size":
            sizes = self.sizes(args[0])
            index = args[1] if len(args) > 1 else kwargs.get("dim")
            return sizes if index is None else sizes[index]
        if name in ASKED or name == "__len__":
            return func(*args, **kwargs)
        if name == "numel":
            return math.prod(self.sizes(args[0]), start=1)
        return self.operation(func, name, args, kwargs)

    def attribute(self, func: Any, tensor: Tensor) -> Any:
        name = func.__self__.__name__
        if name == "shape":
            return self.sizes(tensor)
        value = func(tensor)
        if not isinstance(value, Tensor):
            return value
        return self.tracked(value, self.graph.call_function(getattr, (self.node_of(tensor), name)))

    def sizes(self, tensor: Tensor) -> Sizes:
        if id(tensor) not in self.nodes:  # a weight's
            return Sizes(tuple.__iter__(tensor.size()))
        node = self.node_of(tensor)
        return Sizes(
            self.number(size, self.graph.call_method("size", (node, axis)))
            for axis, size in enumerate(torch.Size(tensor.size()))
        )

    def operation(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        given, named = self.argument(args), self.argument(kwargs)
        before = {id(each) for each in _tensors((args, kwargs))}
        if name == "__setitem__":
            func(*_plain(args))
            return self.written(args[0], self.graph.call_function(set_item, given))
        value = func(*_plain(args), **_plain(kwargs))
        held = _tensors(value)
        if not held:
            if isinstance(value, bool | int | float | list) and not name.startswith("is_"):
                raise InputError(
                    f"{name}() takes values out of torch", "let forward() compute by tensors alone"
                )
            return value
        is_same = isinstance(value, Tensor) and id(value) in before
        if is_same and not self.aliases(value):
            func, name, named = _not_in_place(func, name, named)
        method = getattr(torch.Tensor, name, None)
        if name == "__getitem__":
            node = self.graph.call_function(operator.getitem, given)
        elif method is not None and (method is func or name.startswith("__")):
            node = self.graph.call_method(name, given, named)
        else:
            node = self.graph.call_function(func, given, named)
        if is_same:
            return self.written(value, node)
        return self.tracked(value, node)

    def written(self, tensor: Tensor, node: fx.Node) -> Tensor:
        """A tensor was changed in place: what is read of it from now on is the change's result."""
        others = self.aliases(tensor)
        self.tracked(tensor, node)
        for other in others:
            if id(other) in self.nodes:
                changed = self.graph.call_function(after, (self.nodes[id(other)], node))
                self.tracked(other, changed)
        return tensor

    def aliases(self, tensor: Tensor) -> list[Tensor]:
        found = {id(other): other for other in self.stored.get(_memory(tensor), ()) if other is not tensor}
        return list(found.values())


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)


def _not_in_place(func: Any, name: str, kwargs: dict[str, Any]) -> tuple[Any, str, dict[str, Any]]:
    """The operation that gives the same and leaves its input as it is."""
    if name in IN_PLACE:
        return IN_PLACE[name], IN_PLACE[name].__name__, kwargs
    if kwargs.get("inplace") is True:
        return func, name, {**kwargs, "inplace": False}
    plain = name.removesuffix("_")
    if plain != name and not name.endswith("__"):
        for place in (torch.Tensor, torch, nn.functional):
            if getattr(place, name, None) is func and hasattr(place, plain):
                return getattr(place, plain), plain, kwargs
    return func, name, kwargs


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        return int.__int__(value)
    if isinstance(value, Fraction):
        return float.__float__(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_plain, value))
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, slice):
        return slice(*map(_plain, (value.start, value.stop, value.step)))
    return value


def _tensors(value: Any) -> Sequence[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for each in value for tensor in _tensors(each)]
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in _tensors(each)]
    return []
