"""A traced network, taken apart into blocks and the fixed parts between them, in an order that runs."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from hwnas.errors import InputError
from hwnas.networks.graph.names import is_item
from hwnas.networks.graph.regions import Flow, Region
from hwnas.networks.graph.tracing import label
from hwnas.wiring import Value, Wiring


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part that was cut out. block: the number of the block that it is; None for what stays as it is."""

    module: nn.Module
    block: int | None


def compose(flow: Flow, blocks: Sequence[Sequence[Region]]) -> tuple[list[Piece], Wiring]:
    """Take a traced network apart.

    Args:
        blocks: the places of each, regions that do not overlap.

    Raises:
        InputError: something else than tensors of images passes between the parts, or the places of a block
            follow one another.
    """
    numbers: dict[fx.Node, int] = {flow.values[0]: 0}
    pieces: list[Piece] = []
    reads, gives = [], []
    for unit in _merged(_ordered(flow, _units(flow, blocks))):
        inside = {*unit.nodes, *flow.helpers(unit.nodes)}
        if unit.block is None:
            read = {source for node in inside if not flow.is_batch(node) for source in node.all_input_nodes}
            given = [node for node in flow.values if node in read - inside]
            kept = [node for node in unit.nodes if any(_is_needed(flow, user, inside) for user in node.users)]
        else:
            given, kept = ([getattr(place, end) for place in blocks[unit.block]] for end in ("entry", "exit"))
        for node in kept:
            _require_images(flow, node)
            numbers[node] = len(numbers)
        reads.append(tuple(numbers[node] for node in given))
        gives.append(tuple(numbers[node] for node in kept))
        pieces.append(Piece(module=_module(flow, inside, given, kept), block=unit.block))
    as_value: Any = lambda node: Value(numbers[node])  # noqa: E731 - no argument of a node, says its type
    tree = fx.map_arg(flow.output.args[0], as_value)
    return pieces, Wiring(reads=tuple(reads), gives=tuple(gives), tree=_plain(tree))


@dataclass(frozen=True)
class _Unit:
    nodes: list[fx.Node]
    block: int | None = None


def _units(flow: Flow, blocks: Sequence[Sequence[Region]]) -> list[_Unit]:
    """Each block, and each other operation with the items that are taken out of what it gives."""
    block_of = {node: n for n, places in enumerate(blocks) for place in places for node in place.inside}
    units = [_Unit([], n) for n in range(len(blocks))]
    unit_of: dict[fx.Node, _Unit] = {}
    for node in flow.values[1:]:
        if node in block_of:
            unit_of[node] = units[block_of[node]]
        elif is_item(flow.traced, node):
            unit_of[node] = unit_of[node.args[0]]  # type: ignore[index]
        else:
            unit_of[node] = _Unit([])
            units.append(unit_of[node])
        unit_of[node].nodes.append(node)
    return units


def _ordered(flow: Flow, units: Sequence[_Unit]) -> list[_Unit]:
    """In Kahn's order, those first that come first in the graph."""
    unit_of = {node: number for number, unit in enumerate(units) for node in unit.nodes}
    users: dict[int, set[int]] = defaultdict(set)
    waiting = []
    for number, unit in enumerate(units):
        nodes = [node for node in (*unit.nodes, *flow.helpers(unit.nodes)) if not flow.is_batch(node)]
        needs = {unit_of[source] for node in nodes for source in node.all_input_nodes if source in unit_of}
        for need in needs - {number}:
            users[need].add(number)
        waiting.append(len(needs - {number}))
    ready = [(flow.order[units[n].nodes[-1]], n) for n, amount in enumerate(waiting) if not amount]
    heapq.heapify(ready)
    found = []
    while ready:
        _, number = heapq.heappop(ready)
        found.append(units[number])
        for user in users[number]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (flow.order[units[user].nodes[-1]], user))
    if len(found) < len(units):
        raise InputError(
            "a module that is used in several places needs in one what it gives in another: its weights are "
            "used one after the other",
            "leave it out of the regions",
        )
    return found


def _merged(order: Sequence[_Unit]) -> list[_Unit]:
    """Neighbouring fixed operations as one part each."""
    merged: list[_Unit] = []
    for unit in order:
        if merged and unit.block is None and merged[-1].block is None:
            merged[-1].nodes.extend(unit.nodes)
        else:
            merged.append(unit)
    return merged


def _is_needed(flow: Flow, user: fx.Node, inside: Collection[fx.Node]) -> bool:
    """Whether a part has to give a value for the sake of one that uses it."""
    if user not in flow.alive or flow.is_batch(user):
        return False
    if user in flow.value_set or user is flow.output:
        return user not in inside
    return any(_is_needed(flow, each, inside) for each in user.users)


def _require_images(flow: Flow, node: fx.Node) -> None:
    value = flow.traced.examples[node]
    if isinstance(value, Tensor) and value.dtype == torch.float32 and value.shape[:1] == (flow.images,):
        return
    what = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise InputError(
        f"what {label(node)} gives would pass between parts, and it is {what} for {flow.images} images, not "
        "float32 with an axis of images first",
        "let the regions lie elsewhere (--cut, --region)",
    )


def alone(flow: Flow, place: Region) -> fx.GraphModule:
    """The module that computes a region's exit from its entry, with the traced network's weights."""
    return _module(flow, place.inside, [place.entry], [place.exit])


def _module(
    flow: Flow, inside: Collection[fx.Node], given: Sequence[fx.Node], kept: Sequence[fx.Node]
) -> fx.GraphModule:
    """The module that computes some values of others, with the traced network's weights."""
    made = fx.Graph()
    copies = {node: made.placeholder("x" if len(given) == 1 else f"x{n}") for n, node in enumerate(given)}
    for node in flow.traced.graph.nodes:
        if node in inside and flow.is_batch(node) and node.args[0] not in copies:
            copies[node] = made.call_method("size", (next(iter(copies.values())), 0))
        elif node in inside or (node.op == "get_attr" and not node.users.keys().isdisjoint(inside)):
            copies[node] = made.node_copy(node, lambda other: copies[other])
    results = tuple(copies[node] for node in kept)
    made.output(results if len(results) > 1 else results[0])
    return fx.GraphModule(flow.traced.module, made)


def _plain(tree: Any) -> Any:
    """fx's immutable lists and dictionaries as Python's own."""
    if isinstance(tree, tuple):
        return type(tree)(*map(_plain, tree)) if hasattr(tree, "_fields") else tuple(map(_plain, tree))
    if isinstance(tree, list):
        return [_plain(each) for each in tree]
    if isinstance(tree, dict):
        return {key: _plain(each) for key, each in tree.items()}
    return tree
