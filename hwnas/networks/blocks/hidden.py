"""Which channels inside of a part can go: those that some layers make and others read, and nothing else sees.

They are found in the graph of what the part computes, by what its operations do to channels: each is tried
with the channels of its inputs in another order, and with one of them changed. What treats all alike and each
by itself lets them pass, those of several inputs together; before and behind anything else they stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as counted
from typing import Any

import torch
from torch import Tensor, fx, nn

from hwnas.errors import is_out_of_memory
from hwnas.networks.graph.tracing import Trace, trace


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A layer that reads hidden channels, and the batch normalisation right behind it, by their names."""

    name: str
    norm: str | None


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Channels that can go together.

    Attributes:
        size: how many there are.
        makers: the convolutions and linear layers that give them.
        through: layers that they pass one by one: depthwise convolutions, batch normalisations, PReLUs.
        readers: the convolutions and linear layers that they end in; those of maps first, with most weights.
    """

    size: int
    makers: tuple[str, ...]
    through: tuple[str, ...]
    readers: tuple[Reader, ...]


def find_hidden(module: nn.Module, in_shape: Sequence[int]) -> tuple[Hidden, ...]:
    """The channels of a part that can go, in the order in which they are made.

    Args:
        module: in eval mode; takes one tensor and gives one.
        in_shape: without the batch dimension.
    """
    x = torch.randn(2, *in_shape, generator=torch.Generator().manual_seed(0))
    traced = trace(module, x)
    return _Channels(traced).found()


class _Channels:
    """The channels of each value: a group, and the axis on which they lie."""

    def __init__(self, traced: Trace) -> None:
        self.traced = traced
        self.modules = dict(traced.module.named_modules())
        self.numbers = counted()
        self.parent: dict[int, int] = {}
        self.fixed: set[int] = set()
        self.places: dict[fx.Node, tuple[int, int]] = {}
        self.makers: dict[int, list[fx.Node]] = defaultdict(list)
        self.through: dict[int, list[str]] = defaultdict(list)
        self.readers: dict[int, list[fx.Node]] = defaultdict(list)
        self.sizes: dict[int, int] = {}
        self.pooled: set[fx.Node] = set()
        for node in traced.graph.nodes:
            self.see(node)

    def found(self) -> tuple[Hidden, ...]:
        """The groups that nothing else sees; what a map was pooled to is a gate's, which stays."""
        called = [str(node.target) for node in self.traced.graph.nodes if node.op == "call_module"]
        fixed = {self.root(group) for group in self.fixed}
        joined: dict[int, list[int]] = defaultdict(list)
        for group in self.parent:
            joined[self.root(group)].append(group)
        hidden = []
        for root, groups in joined.items():
            makers = [node for group in groups for node in self.makers[group]]
            readers = [node for group in groups for node in self.readers[group]]
            through = tuple(name for group in groups for name in self.through[group])
            readers.sort(key=lambda node: (node in self.pooled, -self.weights_of(node)))
            names = {*through, *(str(node.target) for node in (*makers, *readers))}
            is_once = all(called.count(name) == 1 for name in names)
            is_of_map = not self.pooled.issuperset(makers)
            if root not in fixed and makers and readers and is_once and is_of_map:
                hidden.append(
                    Hidden(
                        size=self.sizes[groups[0]],
                        makers=tuple(str(node.target) for node in makers),
                        through=through,
                        readers=tuple(
                            Reader(name=str(node.target), norm=self.norm_behind(node)) for node in readers
                        ),
                    )
                )
        return tuple(hidden)

    def weights_of(self, node: fx.Node) -> int:
        return sum(weight.numel() for weight in self.modules[str(node.target)].parameters())

    def norm_behind(self, node: fx.Node) -> str | None:
        users = list(node.users)
        if len(users) != 1 or users[0].op != "call_module":
            return None
        name, axis = str(users[0].target), self.places[node][1]
        norm = self.modules[name]
        is_norm = isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None
        calls = sum(each.op == "call_module" and each.target == name for each in self.traced.graph.nodes)
        return name if is_norm and axis == 1 and calls == 1 else None

    # Groups of channels.

    def new(self, node: fx.Node, axis: int) -> int:
        group = next(self.numbers)
        self.parent[group] = group
        value = self.traced.examples[node]
        self.sizes[group] = value.shape[axis]
        self.places[node] = group, axis
        return group

    def root(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.parent[second] = first

    def keep(self, node: fx.Node) -> None:
        """What goes in stays, and so does what comes out."""
        for source in node.all_input_nodes:
            if source in self.places:
                self.fixed.add(self.places[source][0])
        value = self.traced.examples.get(node)
        if isinstance(value, Tensor) and value.ndim > 1:
            self.fixed.add(self.new(node, 1))

    # What operations do to channels.

    def see(self, node: fx.Node) -> None:
        sources = [source for source in node.all_input_nodes if source in self.places]
        if sources and (self.pooled.issuperset(sources) or self.is_pooling(node)):
            self.pooled.add(node)
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if module is not None and len(sources) == 1 and self.see_layer(node, sources[0], module):
            return
        axis = self.kept_axis(node, sources) if sources and not _has_channels(module) else None
        if axis is None:
            self.keep(node)
            return
        first, *others = (self.places[source][0] for source in sources)
        for group in others:
            self.join(first, group)
        self.places[node] = first, axis

    def see_layer(self, node: fx.Node, source: fx.Node, module: nn.Module) -> bool:
        """Whether a module is a layer that makes and reads channels, or has weights for each that pass."""
        if not _is_plain(module):
            return False
        group, axis = self.places[source]
        last = self.traced.examples[source].ndim - 1
        is_conv = isinstance(module, nn.Conv2d) and module.groups == 1 and last == 3
        if is_conv or isinstance(module, nn.Linear):
            own = 1 if is_conv else last
            if axis == own:
                self.readers[group].append(node)
            else:
                self.fixed.add(group)
            self.makers[self.new(node, own)].append(node)
            return True
        is_depthwise = (
            isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
        )
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        is_slopes = isinstance(module, nn.PReLU) and module.num_parameters > 1
        if axis == 1 and (is_depthwise or is_norm or is_slopes):
            self.through[group].append(str(node.target))
            self.places[node] = group, axis
            return True
        return False

    def is_pooling(self, node: fx.Node) -> bool:
        """Whether a map of more pixels becomes one."""
        value, sources = self.traced.examples.get(node), node.all_input_nodes
        before = self.traced.examples[sources[0]]
        is_one = isinstance(value, Tensor) and value.ndim in (2, 4) and value.shape[2:].numel() == 1
        return is_one and isinstance(before, Tensor) and before.ndim == 4 and before.shape[2:].numel() > 1

    def kept_axis(self, node: fx.Node, sources: Sequence[fx.Node]) -> int | None:
        """The axis of the output on which the channels lie; None where they are mixed or treated unlike."""
        sizes = {self.sizes[self.places[source][0]] for source in sources}
        y = self.traced.examples.get(node)
        if len(sizes) > 1 or sizes == {1} or not isinstance(y, Tensor):
            return None
        (size,) = sizes
        try:
            rolled = self.run(node, sources, lambda x, axis: x.roll(1, axis))
            changed = self.run(node, sources, _first_changed)
            fewer = self.run(node, sources, lambda x, axis: x.narrow(axis, 0, size - 1))
            for axis in range(1, y.ndim):
                if y.shape[axis] == size and _alike(rolled, y.roll(1, axis)):
                    others = (each.narrow(axis, 1, size - 1) for each in (changed, y))
                    return axis if _alike(*others) and _alike(fewer, y.narrow(axis, 0, size - 1)) else None
        except Exception as error:  # it has the number of channels built in, or takes no such values
            if is_out_of_memory(error):
                raise
        return None

    def run(self, node: fx.Node, sources: Sequence[fx.Node], change: Callable[[Tensor, int], Tensor]) -> Any:
        """What an operation gives where its inputs are changed."""
        values = {source: change(self.traced.examples[source], self.places[source][1]) for source in sources}

        def value_of(each: fx.Node) -> Any:
            return values.get(each, self.traced.examples[each])

        args: Any = fx.map_arg(node.args, value_of)
        kwargs: Any = fx.map_arg(node.kwargs, value_of)
        with torch.no_grad():
            if node.op == "call_module":
                return self.modules[str(node.target)](*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target)
            return node.target(*args, **kwargs)


def _first_changed(x: Tensor, axis: int) -> Tensor:
    """By more than what any channel holds, so that others show it if they see it."""
    first = x.narrow(axis, 0, 1)
    return torch.cat([first + 1 + 10 * x.abs().max(), x.narrow(axis, 1, x.shape[axis] - 1)], axis)


def _is_plain(module: nn.Module) -> bool:
    """Whether all that it has for each channel are weights and biases that it holds itself."""
    return {name for name, _ in module.named_parameters()} <= {"weight", "bias"}


def _has_channels(module: nn.Module | None) -> bool:
    """Whether a module has weights of more than one value: how they belong to channels is not known here."""
    tensors = (*module.parameters(), *module.buffers()) if module is not None else ()
    return any(tensor.numel() > 1 for tensor in tensors)


def _alike(found: Any, wanted: Tensor) -> bool:
    scale = float(wanted.abs().max()) if wanted.is_floating_point() and wanted.numel() else 1.0
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-6 * scale)
