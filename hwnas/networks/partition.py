"""Take a reference apart into stem, N blocks and head, and the fixed parts between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hwnas.agreement import disagreement
from hwnas.composed import put_into
from hwnas.errors import InputError, first_line
from hwnas.network import in_eval_mode, plain_attention, random_input
from hwnas.networks.architecture import Places
from hwnas.networks.checks import keep_input, require_found_weights, require_one_function, writes_to_input
from hwnas.networks.chosen_blocks import BY_DEFAULT, Blocks, chosen_places
from hwnas.networks.control_flow import require_no_decisions
from hwnas.networks.cut_points import Shape, fine_flow, run_once
from hwnas.networks.graph.composition import Piece, alone, compose
from hwnas.networks.graph.names import Names, opened
from hwnas.networks.graph.regions import Flow
from hwnas.networks.graph.tracing import trace
from hwnas.networks.tensors import by_image, tensors_of
from hwnas.ranges import Count, Position
from hwnas.wiring import Wiring

TOGETHER = 5  # images that must be answered as each one alone is


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The parts of a reference: `stem`, `block1` … `blockN`, `head`, and `joint1` … between them.

    A block maps one tensor to one tensor, in each of its places. Values are counted in the order in which
    they are computed; 0 is the image. In a chain, value n + 1 is what part n gives.

    Attributes:
        modules: stem, blocks and head, the parts with a number; a part may have several inputs and outputs,
            and leaves its inputs as they are. Parts may share weights.
        joints: the others, which stay as they are.
        order: the names of all parts, in an order in which they can run.
        wiring: which values the parts read and give, in that order.
        shapes: of the values, without the batch dimension.
        first: of each block in its first place, by its number from 1; of one place it is the block itself.
        regions: the places of each block.
        max_abs_difference: between the composed parts and the whole, on a random batch.
    """

    modules: tuple[nn.Module, ...]
    joints: tuple[nn.Module, ...]
    order: tuple[str, ...]
    wiring: Wiring
    shapes: tuple[Shape, ...]
    first: dict[int, nn.Module]
    regions: tuple[Places, ...]
    max_abs_difference: float

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network is given."""
        channels, height, width = self.shapes[0]
        return channels, height, width

    @property
    def names(self) -> list[str]:
        """The names of the parts with a number."""
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
    def ends(self) -> tuple[str, ...]:
        """The names of the values between which the blocks stand in their first places."""
        return tuple(dict.fromkeys(name for places in self.regions for name in places[0]))

    @property
    def shared(self) -> tuple[Shared, ...]:
        """The weights that several parts hold together; training and storing keep them one."""
        held: dict[int, list[int]] = defaultdict(list)
        sizes = {}
        for part, module in enumerate((*self.modules, *self.joints)):
            for weight in module.parameters():
                held[id(weight)].append(part)
                sizes[id(weight)] = weight.numel()
        params: Counter[tuple[int, ...]] = Counter()
        for key, parts in held.items():
            params[tuple(parts)] += sizes[key]
        return tuple(Shared(params=amount, parts=parts) for parts, amount in params.items() if len(parts) > 1)

    def reads(self, name: str) -> tuple[int, ...]:
        """The values that a part is given; a block is given one in each place."""
        return self.wiring.reads[self.order.index(name)]

    def gives(self, name: str) -> tuple[int, ...]:
        """The values that a part gives; a block gives one in each place."""
        return self.wiring.gives[self.order.index(name)]

    def in_shapes(self, name: str) -> list[Shape]:
        """The shapes of what a part is given, without the batch dimension."""
        return [self.shapes[value] for value in self.reads(name)]

    def part_shapes(self, part: int) -> tuple[Shape, Shape]:
        """The shapes of the first value that part 0 … N + 1 is given, and of the first that it gives."""
        name = self.names[part]
        return self.shapes[self.reads(name)[0]], self.shapes[self.gives(name)[0]]

    def ordered(self, modules: Sequence[nn.Module], joints: Sequence[nn.Module] = ()) -> dict[str, nn.Module]:
        """Return modules by name, in the order in which they run.

        Args:
            modules: one for each part with a number.
            joints: in the place of the reference's own.
        """
        fixed = joints or self.joints
        by_name = dict(zip(self.names, modules, strict=True))
        by_name |= {f"joint{n}": module for n, module in enumerate(fixed, 1)}
        return {name: by_name[name] for name in self.order}


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Weights that several parts of a reference hold together. parts: their numbers; joints from N + 2."""

    params: Count
    parts: tuple[Position, ...]


def counted_again(shared: Sequence[Shared], choices: Sequence[int]) -> int:
    """Count the parameters of an architecture that a sum over its parts holds more than once.

    Args:
        choices: of each part with a number; only the reference's own parts, 0, share weights.
    """
    own = [[part for part in each.parts if part >= len(choices) or not choices[part]] for each in shared]
    return sum(each.params * (len(parts) - 1) for each, parts in zip(shared, own, strict=True) if parts)


def part_names(block_count: int) -> list[str]:
    """`stem`, `block1` … `blockN`, `head`."""
    return ["stem", *(f"block{n}" for n in range(1, block_count + 1)), "head"]


def partition(
    model: nn.Module,
    input_shape: Sequence[int],
    blocks: Blocks | Sequence[Places] = BY_DEFAULT,
    flow: Callable[[], Flow] | None = None,
) -> Partition:
    """Take a model apart and verify that the composed parts compute what the whole does.

    Args:
        model: in eval mode; it is copied, not changed.
        input_shape: (C, H, W).
        blocks: which ones a user wants; or the places of each, by the names of values.
        flow: traces the model, every layer of it seen; `fine_flow` where None.

    Raises:
        InputError: an unknown name, cuts out of order, a block that something else enters or leaves, a model
            of which nothing can be replaced, or one that cannot take such images, branches on their values,
            or whose answer to an image depends on anything else.
    """
    with plain_attention():
        return _partition(
            in_eval_mode(model), input_shape, blocks, flow or partial(fine_flow, model, input_shape)
        )


def _partition(
    model: nn.Module,
    input_shape: Sequence[int],
    blocks: Blocks | Sequence[Places],
    traced: Callable[[], Flow],
) -> Partition:
    expected, x = run_once(model, input_shape)
    require_no_decisions(model, x)
    require_found_weights(model, x)
    require_one_function(model, random_input((TOGETHER, *input_shape)))
    fine = traced()
    regions = chosen_places(model, fine, input_shape, blocks)
    names = {name for places in regions for place in places for name in place}
    is_open = opened(names) | fine.traced.many
    flow = Flow(trace(model, x, lambda name, _: name not in is_open))
    nodes = Names(flow.traced).nodes
    found = [[flow.between(nodes[entry], nodes[exit]) for entry, exit in places] for places in regions]
    pieces, wiring = compose(flow, found)
    modules, joints, order = _sorted(pieces)
    values = _run(order, [piece.module for piece in pieces], wiring, x)
    output = put_into(wiring.tree, values)
    if disagreement(by_image(expected, len(x)), by_image(output, len(x))):
        raise InputError(
            "the composed parts compute something else than the whole network",
            "move the cuts: the model computes something outside of its modules",
        )
    return Partition(
        modules=modules,
        joints=joints,
        order=order,
        wiring=wiring,
        shapes=tuple(tuple(value.shape[1:]) for _, value in sorted(values.items())),
        first={
            n: alone(flow, places[0]) if len(places) > 1 else modules[n] for n, places in enumerate(found, 1)
        },
        regions=regions,
        max_abs_difference=_largest(expected, output),
    )


def _largest(expected: object, found: object) -> float:
    pairs = zip(tensors_of(expected), tensors_of(found), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def _sorted(pieces: Sequence[Piece]) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...], tuple[str, ...]]:
    """The parts with a number, the others, and the names of all in order."""
    blocks = {piece.block: piece.module for piece in pieces if piece.block is not None}
    fixed = [piece.module for piece in pieces if piece.block is None]
    joints = tuple(fixed[1:-1])
    order, joint = [], 0
    for number, piece in enumerate(pieces):
        if piece.block is not None:
            order.append(f"block{piece.block + 1}")
        elif number in (0, len(pieces) - 1):
            order.append("stem" if number == 0 else "head")
        else:
            joint += 1
            order.append(f"joint{joint}")
    return (fixed[0], *(blocks[n] for n in range(len(blocks))), fixed[-1]), joints, tuple(order)


@torch.no_grad()
def _run(order: Sequence[str], modules: Sequence[nn.Module], wiring: Wiring, x: Tensor) -> dict[int, Tensor]:
    """All values. A part that changes what it is given in place works on a copy from here on."""
    values = {0: x}
    for name, module, reads, gives in zip(order, modules, wiring.reads, wiring.gives, strict=True):
        given = [values[each] for each in reads]
        try:
            if writes_to_input(module, *given):
                keep_input(module)
            results = module(*given)
        except Exception as error:
            raise InputError(
                f"{name} cannot be run on its own: {first_line(error)}",
                "move the cuts: a module that they are inside of asks what its input is",
            ) from None
        values.update(zip(gives, results if len(gives) > 1 else (results,), strict=True))
    return values
