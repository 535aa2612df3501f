"""Cut a reference into stem + N blocks + head, at places where exactly one tensor passes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, fx, nn

from hwnas.agreement import disagreement
from hwnas.errors import InputError, first_line
from hwnas.network import in_eval_mode, plain_attention, random_input
from hwnas.networks.checks import keep_input, require_found_weights, require_one_function, writes_to_input
from hwnas.networks.control_flow import require_no_decisions
from hwnas.networks.cut_points import (
    Shape,
    alive_nodes,
    batch_sizes,
    defaults_of,
    follow_changes,
    label,
    needed_by,
    run_once,
    stage_cuts,
)
from hwnas.ranges import Count, Position

TOGETHER = 5  # images that must be answered as each one alone is


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The parts of a reference, in order: `stem`, `block1` … `blockN`, `head`.

    Attributes:
        modules: the parts; each one maps one tensor to one tensor, and leaves that as it is. They may share
            weights.
        shapes: of each part's input, then of the last one's output; without the batch dimension.
        cuts: the modules of the reference behind which the cuts stand.
        max_abs_difference: between the composed parts and the whole, on a random batch.
    """

    modules: tuple[nn.Module, ...]
    shapes: tuple[Shape, ...]
    cuts: tuple[str, ...]
    max_abs_difference: float

    @property
    def names(self) -> list[str]:
        """The parts' names."""
        return part_names(self.block_count)

    @property
    def block_count(self) -> int:
        """N, the number of blocks that can be replaced."""
        return len(self.modules) - 2

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The N blocks."""
        return self.modules[1:-1]

    @property
    def shared(self) -> tuple[Shared, ...]:
        """The weights that several parts hold together; training and storing keep them one."""
        held: dict[int, list[int]] = defaultdict(list)
        sizes = {}
        for part, module in enumerate(self.modules):
            for weight in module.parameters():
                held[id(weight)].append(part)
                sizes[id(weight)] = weight.numel()
        params: Counter[tuple[int, ...]] = Counter()
        for key, parts in held.items():
            params[tuple(parts)] += sizes[key]
        return tuple(Shared(params=amount, parts=parts) for parts, amount in params.items() if len(parts) > 1)

    def part_shapes(self, part: int) -> tuple[Shape, Shape]:
        """Input and output shape of part 0 … N + 1, without the batch dimension."""
        return self.shapes[part], self.shapes[part + 1]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Weights that several parts of a reference hold together. parts: their numbers."""

    params: Count
    parts: tuple[Position, ...]


def counted_again(shared: Sequence[Shared], choices: Sequence[int]) -> int:
    """Count the parameters of an architecture that a sum over its parts holds more than once.

    Args:
        choices: of each part; only the reference's own parts, 0, share weights.
    """
    own = [[part for part in each.parts if not choices[part]] for each in shared]
    return sum(each.params * (len(parts) - 1) for each, parts in zip(shared, own, strict=True) if parts)


def part_names(block_count: int) -> list[str]:
    """`stem`, `block1` … `blockN`, `head`."""
    return ["stem", *(f"block{n}" for n in range(1, block_count + 1)), "head"]


def partition(model: nn.Module, input_shape: Sequence[int], cuts: Sequence[str] | None = None) -> Partition:
    """Cut a model and verify that the composed parts compute what the whole does.

    Args:
        model: in eval mode; it is copied, not changed.
        input_shape: (C, H, W).
        cuts: names of the modules behind which to cut, in order; None finds the model's stages.

    Raises:
        InputError: an unknown name, cuts out of order, a cut that more than one tensor crosses, a model
            without stages, or one that cannot take such images, branches on their values, or whose answer
            to an image depends on anything else.
    """
    with plain_attention():
        return _partition(in_eval_mode(model), input_shape, cuts)


def _partition(model: nn.Module, input_shape: Sequence[int], cuts: Sequence[str] | None) -> Partition:
    expected, x = run_once(model, input_shape)
    require_no_decisions(model, x)
    require_found_weights(model, x)
    require_one_function(model, random_input((TOGETHER, *input_shape)))
    cuts = tuple(cuts) if cuts is not None else stage_cuts(model, input_shape)
    if len(cuts) < 2:
        raise InputError(
            f"{len(cuts)} cut given; stem, blocks and head need at least two",
            "name the last module of the stem and the last one of each block: --cut NAME,NAME",
        )
    modules = dict(list(model.named_modules())[1:])
    for name in cuts:
        if name not in modules:
            near = get_close_matches(name, modules, n=3) or list(dict(model.named_children()))[:8]
            hint = (
                f"choose another; near: {', '.join(near)}"
                if near
                else "build the network of modules: it has none"
            )
            raise InputError(f"the model has no module {name!r}", hint)
    parts = _split(in_eval_mode(deepcopy(model)), cuts)
    shapes: list[Shape] = [tuple(input_shape)]
    value = x
    for part, name in zip(parts, [*cuts, "the output"], strict=True):
        value = _run(part, value, name)
        if value.shape[:1] != x.shape[:1]:
            raise InputError(
                f"behind {name!r} passes a tensor of {tuple(value.shape)} for {len(x)} images: its first "
                "axis is not that of the images",
                "cut where it is (batch_first=True of torch's attention layers keeps it so)",
            )
        shapes.append(tuple(value.shape[1:]))
    if disagreement(list(expected), list(value)):
        raise InputError(
            f"the composed parts differ from the whole network by {_largest(value - expected):.3g}",
            "move the cuts: the model computes something outside of its modules",
        )
    return Partition(
        modules=tuple(parts),
        shapes=tuple(shapes),
        cuts=cuts,
        max_abs_difference=_largest(value - expected),
    )


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max())


@torch.no_grad()
def _run(part: nn.Module, x: Tensor, name: str) -> Tensor:
    """What a part gives. One that changes its input in place works on a copy from here on."""
    try:
        if writes_to_input(part, x):
            keep_input(part)
        y = part(x)
    except Exception as error:
        raise InputError(
            f"the part before the cut behind {name!r} cannot be run: {first_line(error)}",
            "move the cuts: a module that they are inside of asks what its input is",
        ) from None
    if not isinstance(y, Tensor):
        raise InputError(
            f"behind {name!r} passes a {type(y).__name__}, not one tensor", "cut behind another module"
        )
    return y


class _Tracer(fx.Tracer):
    """Looks only into modules that contain a cut; everything else stays one call of the real module."""

    def __init__(self, cuts: Sequence[str]) -> None:
        super().__init__()
        self.cuts = cuts

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(cut.startswith(f"{module_qualified_name}.") for cut in self.cuts)


def _split(model: nn.Module, cuts: Sequence[str]) -> list[nn.Module]:
    try:
        graph = follow_changes(model, _Tracer(cuts).trace(model, concrete_args=defaults_of(model)))
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be traced: {first_line(error)}",
            "wrap the model so that its forward() calls modules without branching on values",
        ) from None
    boundaries = [_output_node(graph, name) for name in cuts]
    sizes = batch_sizes(graph)
    alive = alive_nodes(graph, sizes)
    for name, boundary in zip(cuts, boundaries, strict=True):
        if boundary not in alive:
            raise InputError(f"nothing needs what module {name!r} gives", "cut behind another module")
    remaining = [node for node in graph.nodes if node in alive]
    _check_order(cuts, [remaining.index(boundary) for boundary in boundaries])
    placeholder, output = remaining[0], remaining[-1]
    parts: list[nn.Module] = []
    entry = placeholder
    for name, boundary in zip([*cuts, "the output"], [*boundaries, output.args[0]], strict=True):
        needed = needed_by(boundary, entry, sizes)
        if entry is not placeholder and placeholder in needed:
            raise InputError(f"a tensor goes around the cut before {name!r}", "move the cut behind the skip")
        later = [node for node in remaining if node not in needed]
        _check_crossing(name, boundary, needed - sizes, later)
        parts.append(_submodule(model, graph, entry, boundary, needed, sizes))
        remaining, entry = later, boundary
    return parts


def _output_node(graph: fx.Graph, name: str) -> fx.Node:
    inside: list[fx.Node] = [
        n for n in graph.nodes if n.target == name or name in n.meta.get("nn_module_stack", {})
    ]
    if not inside:
        raise InputError(f"module {name!r} takes no part in the forward pass", "cut behind another module")
    return inside[-1]


def _check_order(cuts: Sequence[str], positions: Sequence[int]) -> None:
    for index in range(1, len(cuts)):
        if positions[index] <= positions[index - 1]:
            raise InputError(
                f"the cut behind {cuts[index]!r} does not come after the one behind {cuts[index - 1]!r}",
                "name each cut once, in the order of execution",
            )


def _check_crossing(name: str, boundary: fx.Node, needed: set[fx.Node], later: Sequence[fx.Node]) -> None:
    for node in needed - {boundary}:
        user = next((user for user in node.users if user in later), None)
        if user is not None and node.op != "get_attr":
            raise InputError(
                f"the cut behind {name!r} is inside a skip: {label(node)} also goes to {label(user)}",
                "move the cut behind the addition that ends the skip",
            )


def _submodule(
    model: nn.Module,
    graph: fx.Graph,
    entry: fx.Node,
    boundary: fx.Node,
    needed: Collection[fx.Node],
    sizes: Collection[fx.Node],
) -> fx.GraphModule:
    piece = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {entry: piece.placeholder("x")}
    for node in graph.nodes:
        if node in needed and node in sizes:
            copies[node] = piece.call_method("size", (copies[entry], 0))
        elif node in needed and node is not entry:
            copies[node] = piece.node_copy(node, lambda other: copies[other])
    piece.output(copies[boundary])
    return fx.GraphModule(model, piece)
