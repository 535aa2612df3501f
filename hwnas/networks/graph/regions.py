"""What of a network can be replaced: regions, found by dominators in its graph of values.

From u to v is a region where nothing else that depends on the image goes in and nothing but v comes out. Both
may have any other users. Weights and sizes are no values; but to read the size of a value is to use it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, fx

from hwnas.networks.graph.tracing import Trace


@dataclass(frozen=True)
class Region:
    """What maps one value to another.

    Attributes:
        entry, exit: the two values.
        inside: the operations, `exit` among them, and the sizes that they need.
    """

    entry: fx.Node
    exit: fx.Node
    inside: frozenset[fx.Node]


class Flow:
    """The values of a traced network, and the regions between them."""

    def __init__(self, traced: Trace) -> None:
        self.traced = traced
        self.images = len(traced.examples[next(iter(traced.graph.nodes))])
        self.order = {node: number for number, node in enumerate(traced.graph.nodes)}
        self.output = list(traced.graph.nodes)[-1]
        self.alive = _needed([self.output])
        self.values = self._values()

    def _values(self) -> list[fx.Node]:
        """The nodes that depend on the image by more than its size, in order."""
        found: dict[fx.Node, None] = {}
        for node in self.traced.graph.nodes:
            if node not in self.alive or node is self.output:
                continue
            is_number = isinstance(self.traced.examples.get(node), int | float)
            if node.op == "placeholder" or (
                not is_number and any(each in found for each in node.all_input_nodes)
            ):
                found[node] = None
        return list(found)

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """The values that a node is computed of."""
        return [each for each in node.all_input_nodes if each in self.value_set]

    @cached_property
    def value_set(self) -> frozenset[fx.Node]:
        """The values."""
        return frozenset(self.values)

    def is_map(self, node: fx.Node) -> bool:
        """Whether a value is one tensor, with a first axis of images."""
        example = self.traced.examples[node]
        return isinstance(example, Tensor) and example.ndim > 1 and example.shape[0] == self.images

    @cached_property
    def dominators(self) -> dict[fx.Node, fx.Node]:
        """Each value's immediate dominator; Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm".

        In a graph without circles one pass in order suffices.
        """
        rank = {node: number for number, node in enumerate(self.values)}
        found = {self.values[0]: self.values[0]}
        for node in self.values[1:]:
            first, *others = self.sources(node)
            for second in others:
                ends = [first, second]
                while ends[0] is not ends[1]:
                    later = max((0, 1), key=lambda n: rank[ends[n]])
                    ends[later] = found[ends[later]]
                first = ends[0]
            found[node] = first
        return found

    @cached_property
    def links(self) -> dict[fx.Node, Region]:
        """The smallest region that ends in each value, for those that have one."""
        regions = ((node, self._smallest(node)) for node in self.values[1:] if self.is_map(node))
        return {node: region for node, region in regions if region is not None}

    def _smallest(self, exit: fx.Node) -> Region | None:
        """From the nearest dominator that is one tensor, and of which alone sizes are asked inside."""
        entry = exit
        while entry is not self.values[0]:
            entry = self.dominators[entry]
            if self.is_map(entry):
                region = self.between(entry, exit)
                if self.leaving(region) is not None:
                    return None
                if self.entering(region) is None:
                    return region
        return None

    @cached_property
    def chains(self) -> dict[fx.Node | None, list[list[fx.Node]]]:
        """Values one behind the other with a region between each two, as long as they go.

        By the exit of the smallest region that a chain lies inside of; those of the network itself by None.
        """
        smallest: dict[fx.Node, Region] = {}
        for link in sorted(self.links.values(), key=lambda each: -len(each.inside)):
            for node in link.inside:
                if node is not link.exit:
                    smallest[node] = link
        outer = {node: smallest[node].exit if node in smallest else None for node in self.values}
        after: dict[tuple[fx.Node, fx.Node | None], list[fx.Node]] = defaultdict(list)
        for exit, link in self.links.items():
            after[link.entry, outer[exit]].append(exit)
        chains: dict[fx.Node | None, list[list[fx.Node]]] = defaultdict(list)
        for (entry, around), exits in after.items():
            if entry not in self.links or len(exits) > 1 or outer[entry] is not around:
                for exit in exits:
                    chain = [entry, exit]
                    while len(following := after.get((chain[-1], around), [])) == 1:
                        chain += following
                    chains[around].append(chain)
        return chains

    def between(self, entry: fx.Node, exit: fx.Node) -> Region:
        """What lies on a way from one value to another; a region where nothing enters and leaves."""
        behind = {entry}
        for node in self.values[self.values.index(entry) + 1 : self.values.index(exit) + 1]:
            if any(source in behind for source in self.sources(node)):
                behind.add(node)
        before, stack = set(), [exit]
        while stack:
            node = stack.pop()
            if node in behind and node is not entry and node not in before:
                before.add(node)
                stack.extend(self.sources(node))
        return Region(entry, exit, frozenset(before | self.helpers(before)))

    def helpers(self, inside: Collection[fx.Node]) -> set[fx.Node]:
        """The sizes, and what is computed of weights, that operations need."""
        found: set[fx.Node] = set()
        stack = [source for node in inside for source in node.all_input_nodes]
        while stack:
            node = stack.pop()
            if node not in self.value_set and node.op != "get_attr" and node not in found:
                found.add(node)
                stack.extend(node.all_input_nodes)
        return found

    def is_batch(self, node: fx.Node) -> bool:
        """Whether a size is the number of images, which any map tells."""
        if node.op != "call_method" or node.target != "size":
            return False
        value, axis = node.args
        return isinstance(value, fx.Node) and self.is_map(value) and bool(axis == 0)

    def leaving(self, region: Region) -> tuple[fx.Node, fx.Node] | None:
        """A value of a region but its exit that is used outside, if by its size, and by what; else None."""
        inner = (node for node in self.values if node in region.inside and node is not region.exit)
        return next(filter(None, (self.outer_user(node, region) for node in inner)), None)

    def outer_user(self, node: fx.Node, region: Region) -> tuple[fx.Node, fx.Node] | None:
        """A value, and what outside of a region uses it; None where nothing does."""
        for user in node.users:
            if user in self.alive and not self.is_batch(user) and not self._is_of(user, region.inside):
                return node, user
        return None

    def _is_of(self, user: fx.Node, inside: Collection[fx.Node]) -> bool:
        """Whether a node is in a region, or a size that only the region needs."""
        if user in self.value_set or user is self.output:
            return user in inside
        return all(self._is_of(each, inside) for each in user.users if each in self.alive)

    def entering(self, region: Region) -> fx.Node | None:
        """A value beside its entry that a region reads, if only its size; None where there is none."""
        known = {region.entry, *region.inside}
        read = {
            source for node in region.inside if not self.is_batch(node) for source in node.all_input_nodes
        }
        return next((value for value in self.values if value in read - known), None)


def _needed(targets: Sequence[fx.Node]) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    stack = list(targets)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return needed
