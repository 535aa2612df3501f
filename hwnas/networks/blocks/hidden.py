"""Which channels inside of a part can go: those that some layers make and others read, and nothing else sees.

They are found in the graph of what the part computes, by what its operations do to channels. Where two values
are added or multiplied, their channels go together; where an operation mixes channels or is not known here,
they stay.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counted
from typing import Any

import torch
from torch import Tensor, fx, nn

from hwnas.networks.graph.tracing import Trace, trace

ACTIVATIONS = re.compile(
    r"relu6?|silu|h?swish|hardswish|hardsigmoid|sigmoid|(hard)?tanh|(quick)?gelu(tanh)?|leakyrelu|[csr]?elu|mish"
    r"|softplus|dropout2?d?|droppath"
)
"""Classes of modules, in lower case, that treat every value by itself."""
OVER_MAPS = re.compile(r"(adaptive)?avgpool2d|maxpool2d|upsample")
"""Those that treat every channel of a map alike and by itself."""
POINTWISE = re.compile(
    r"relu6?|silu|hard(swish|sigmoid|tanh)|sigmoid|tanh|gelu|leaky_relu|[csr]?elu|mish|softplus|dropout|clamp"
    r"|contiguous|to|float|abs|neg|exp|sqrt|square|adaptive_avg_pool2d|(avg|max)_pool2d|interpolate"
)
"""Functions and methods that do either."""
PAIRED = re.compile(r"(add|sub|mul|div|truediv)|__r?(add|sub|mul|truediv)__")
"""Those of two values, channel by channel."""


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
        user, *others = node.users
        is_norm = user.op == "call_module" and isinstance(
            self.modules[str(user.target)], nn.modules.batchnorm._BatchNorm
        )
        return str(user.target) if is_norm and not others else None

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
        if node.op == "call_module" and len(sources) == 1:
            self.see_module(node, sources[0], self.modules[str(node.target)])
        elif node.op in ("call_function", "call_method") and sources:
            self.see_function(node, sources)
        else:
            self.keep(node)

    def is_pooling(self, node: fx.Node) -> bool:
        """Whether a map becomes one pixel whatever its size."""
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        if name == "adaptive_avg_pool2d":
            return node.args[1] in (1, (1, 1)) if len(node.args) > 1 else False
        return name in ("mean", "amax")

    def see_module(self, node: fx.Node, source: fx.Node, module: nn.Module) -> None:
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
        elif self.is_one_by_one(module, axis, last):
            self.places[node] = group, axis
            if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
                self.through[group].append(str(node.target))
        else:
            self.keep(node)

    def is_one_by_one(self, module: nn.Module, axis: int, last: int) -> bool:
        word = type(module).__name__.lower()
        if axis != 1:
            return ACTIVATIONS.fullmatch(word) is not None
        if isinstance(module, nn.Conv2d):
            return last == 3 and module.groups == module.in_channels == module.out_channels
        is_slopes = isinstance(module, nn.PReLU) and module.num_parameters > 1
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        return is_norm or is_slopes or bool(ACTIVATIONS.fullmatch(word) or OVER_MAPS.fullmatch(word))

    def see_function(self, node: fx.Node, sources: list[fx.Node]) -> None:
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        value = self.traced.examples.get(node)
        group, axis = self.places[sources[0]]
        if not isinstance(value, Tensor):
            if name != "size":
                self.keep(node)
        elif POINTWISE.fullmatch(name) or (name == "pad" and self.pads_maps(node, axis)):
            self.places[node] = group, axis
        elif PAIRED.fullmatch(name):
            self.see_pair(node, sources, value)
        elif name in ("mean", "amax") and self.keeps_axis(node, axis, value):
            self.places[node] = group, axis
        elif name == "permute" and (order := _order(node)) is not None:
            self.places[node] = group, order.index(axis)
        elif name == "flatten" and axis == 1 and value.shape[1:] == (self.sizes[group],):
            self.places[node] = group, 1
        else:
            self.keep(node)

    def see_pair(self, node: fx.Node, sources: list[fx.Node], value: Tensor) -> None:
        tensors = [each for each in node.args if isinstance(each, fx.Node) and each not in sources]
        places = [self.places[source] for source in sources]
        axes = {
            axis - self.traced.examples[source].ndim
            for source, (_, axis) in zip(sources, places, strict=True)
        }
        sizes = {self.sizes[group] for group, _ in places}
        if tensors or len(axes) > 1 or len(sizes) > 1:
            self.keep(node)
            return
        for group, _ in places[1:]:
            self.join(places[0][0], group)
        self.places[node] = places[0][0], value.ndim + axes.pop()

    def keeps_axis(self, node: fx.Node, axis: int, value: Tensor) -> bool:
        """Whether a mean is over rows and columns."""
        return (
            axis == 1
            and value.ndim > 1
            and self.traced.examples[node.all_input_nodes[0]].ndim == 4
            and (
                value.shape[1] == self.sizes[self.places[node.all_input_nodes[0]][0]]
                and value.shape[2:] in ((), (1, 1))
            )
        )

    def pads_maps(self, node: fx.Node, axis: int) -> bool:
        amounts: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad", ())
        return axis == 1 and len(amounts) <= 4


def _order(node: fx.Node) -> list[int] | None:
    given = node.args[1:] if len(node.args) != 2 or isinstance(node.args[1], int) else node.args[1]
    order = [each for each in given if isinstance(each, int)]  # type: ignore[union-attr]
    return order if len(order) == len(given) and all(each >= 0 for each in order) else None  # type: ignore[arg-type]
