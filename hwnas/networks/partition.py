"""Cut a reference into stem + N blocks + head, at places where exactly one tensor passes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, fx, nn

from hwnas.agreement import disagreement
from hwnas.errors import InputError, first_line
from hwnas.network import in_eval_mode, plain_attention, random_input
from hwnas.networks.checks import keep_input, require_found_weights, require_one_function, writes_to_input
from hwnas.networks.control_flow import require_no_decisions
from hwnas.networks.cut_points import Shape, run_once, stage_cuts
from hwnas.networks.graph.pieces import piece
from hwnas.networks.graph.regions import Flow
from hwnas.networks.graph.tracing import label, trace
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
    parts = _split(model, x, cuts)
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


def _split(model: nn.Module, x: Tensor, cuts: Sequence[str]) -> list[nn.Module]:
    """The parts between cuts; modules in which no cut stands stay whole."""
    flow = Flow(trace(model, x, lambda name, _: not any(cut.startswith(f"{name}.") for cut in cuts)))
    answer = flow.output.args[0]
    boundaries = [flow.values[0], *(_value_behind(flow, name) for name in cuts), answer]
    _check_order(cuts, [flow.order[boundary] for boundary in boundaries[1:-1]])
    parts: list[nn.Module] = []
    for name, entry, exit in zip([*cuts, "the output"], boundaries[:-1], boundaries[1:], strict=True):
        region = flow.between(entry, exit)
        crossing = flow.outer_user(entry, region) or flow.leaving(region)
        if crossing is not None:
            node, user = crossing
            raise InputError(
                f"the cut behind {name!r} is inside a skip: {label(node)} also goes to {label(user)}",
                "move the cut behind the addition that ends the skip",
            )
        if exit not in region.inside or flow.entering(region) is not None:
            raise InputError(f"a tensor goes around the cut before {name!r}", "move the cut behind the skip")
        parts.append(piece(flow, region))
    return parts


def _value_behind(flow: Flow, name: str) -> fx.Node:
    """What a module gives."""
    calls = flow.traced.ends.get(name)
    if not calls:
        raise InputError(f"module {name!r} takes no part in the forward pass", "cut behind another module")
    value = calls[-1][1]
    if value is None:
        raise InputError(
            f"behind {name!r} passes something else than one tensor", "cut behind another module"
        )
    if value not in flow.value_set:
        raise InputError(f"nothing needs what module {name!r} gives", "cut behind another module")
    return value


def _check_order(cuts: Sequence[str], positions: Sequence[int]) -> None:
    for index in range(1, len(cuts)):
        if positions[index] <= positions[index - 1]:
            raise InputError(
                f"the cut behind {cuts[index]!r} does not come after the one behind {cuts[index - 1]!r}",
                "name each cut once, in the order of execution",
            )
