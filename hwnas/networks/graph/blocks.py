"""Which regions of a network are its blocks by default; nobody's names of modules are asked.

The rules stand in `docs/networks.md`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from hwnas.networks.graph.regions import Flow, Region
from hwnas.networks.graph.tracing import Trace

LARGE = 0.34  # of all MACs; a block of more is divided
SMALL = 0.01  # of all MACs; what has less stays as it is
MOST_PARTS = 4
LAYERS = 6  # that compute, in what counts as one layer: a bottleneck with attention to its channels


def count_macs(traced: Trace) -> dict[fx.Node, int]:
    """Count the multiply-accumulates of each node for one image."""
    found: dict[fx.Node, int] = {}
    x = next(iter(traced.examples.values()))

    class Counting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            before = counter.get_total_flops()
            value = super().run_node(n)
            found[n] = (counter.get_total_flops() - before) // 2
            return value

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Counting(fx.GraphModule(traced.module, traced.graph)).run(x[:1])
    return found


def default_blocks(flow: Flow, layers: bool = False) -> list[list[Region]]:
    """Choose the regions that are replaced by default, in order; those of one block together.

    Args:
        layers: each residual or bottleneck layer is a block of its own, of other layers each two.
    """
    return _Chooser(flow, layers).chosen()


def tied(flow: Flow, regions: Sequence[Region]) -> list[list[Region]]:
    """Group regions that compute with the same weights, normalisation apart: the places of one block.

    Regions of which one needs what another gives are blocks of their own.
    """
    found: dict[frozenset[int], list[Region]] = {}
    for number, region in enumerate(regions):
        weights = frozenset(_weights(flow.traced, region))
        found.setdefault(weights or frozenset({-number}), []).append(region)
    blocks: list[list[Region]] = []
    for places in found.values():
        follow = any(_follows(flow, a, b) for a, b in itertools.combinations(places, 2))
        blocks += [[place] for place in places] if follow else [places]
    return blocks


def _follows(flow: Flow, first: Region, second: Region) -> bool:
    """Whether a region needs what one before it gives."""
    return second.entry is first.exit or second.entry in flow.between(first.exit, second.entry).inside


def _weights(traced: Trace, region: Region) -> Iterator[int]:
    for node in region.inside:
        if node.op == "call_module":
            for module in traced.module.get_submodule(str(node.target)).modules():
                if not isinstance(module, nn.modules.batchnorm._NormBase):
                    yield from map(id, module.parameters(recurse=False))
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                yield id(traced.examples[source])


class _Chooser:
    def __init__(self, flow: Flow, layers: bool) -> None:
        self.flow, self.layers = flow, layers
        self.macs = count_macs(flow.traced)
        self.total = sum(macs for node, macs in self.macs.items() if node in flow.alive)
        self.answers = self._answers()
        self.spans: dict[fx.Node, set[fx.Node]] = defaultdict(set)
        for name, calls in flow.traced.ends.items():
            for entry, exit in calls if name else ():
                if entry is not None and exit is not None and entry is not exit:
                    self.spans[entry].add(exit)

    def _answers(self) -> set[fx.Node]:
        """The layers behind which no other one computes."""
        found, before = set(), set()
        for node in reversed(self.flow.values):
            if self.macs.get(node):
                if node not in before:
                    found.add(node)
                before.add(node)
            if node in before:
                before.update(self.flow.sources(node))
        return found

    def chosen(self) -> list[list[Region]]:
        ordered = sorted(self._inside(None), key=lambda region: self.flow.order[region.exit])
        blocks = tied(self.flow, ordered)
        return [places for places in blocks if sum(map(self._of, places)) >= SMALL * self.total]

    def _inside(self, outer: fx.Node | None) -> Iterator[Region]:
        for chain in self.flow.chains.get(outer, ()):
            for part in self._closed(chain):
                yield from self._along(part)

    def _closed(self, chain: Sequence[fx.Node]) -> Iterator[Sequence[fx.Node]]:
        """The parts of a chain between values that are used outside of it as well."""
        start = 0
        for number, (node, following) in enumerate(itertools.pairwise(chain)):
            if number and self.flow.outer_user(node, self.flow.links[following]) is not None:
                yield chain[start : number + 1]
                start = number
        yield chain[start:]

    def _along(self, chain: Sequence[fx.Node]) -> Iterator[Region]:
        """Choose blocks along a chain, and inside of those of its links that are none."""
        atoms: list[Region] = []
        for region in self._atoms(chain):
            if self._is_one(region):
                atoms.append(region)
                continue
            yield from self._joined(atoms)
            atoms = []
            if len(region.inside) > 1:
                yield from self._inside(region.exit)
        yield from self._joined(atoms)

    def _atoms(self, chain: Sequence[fx.Node]) -> Iterator[Region]:
        """The outermost modules along a chain that change the map's size once at most, and single links."""
        place = {node: number for number, node in enumerate(chain)}
        start = 0
        while start < len(chain) - 1:
            ends = sorted(place[exit] for exit in self.spans[chain[start]] if exit in place)
            if not self.layers:
                ends.reverse()
            is_atom = self._is_layer if self.layers else self._is_atom
            end = next((end for end in ends if is_atom(chain[start : end + 1])), start + 1)
            yield self.flow.between(chain[start], chain[end])
            start = end

    def _is_atom(self, nodes: Sequence[fx.Node]) -> bool:
        if len(nodes) == 2:
            return True
        changes = sum(a != b for a, b in itertools.pairwise(map(self._shape, nodes)))
        return changes <= 1 and self._is_one(self.flow.between(nodes[0], nodes[-1]))

    def _is_layer(self, nodes: Sequence[fx.Node]) -> bool:
        """Whether a module is made of a few layers that compute: an inverted bottleneck, a residual block."""
        region = self.flow.between(nodes[0], nodes[-1])
        return 2 <= self._computing(region) <= LAYERS and self._is_one(region)

    def _computing(self, region: Region) -> int:
        return sum(bool(self.macs.get(node)) for node in region.inside)

    def _is_one(self, region: Region) -> bool:
        """Whether a region can be a block, or one with its neighbours."""
        is_kept = self._is_scaled(region.entry, region.exit) and not self._comes_back(region)
        is_small = self.layers or self._of(region) <= LARGE * self.total or len(region.inside) == 1
        return is_kept and is_small and not self._is_fixed(region)

    def _joined(self, atoms: Sequence[Region]) -> Iterator[Region]:
        """Join atoms whose outputs have one size to blocks, and divide those that are large."""
        if self.layers:
            yield from self._paired(atoms)
            return
        computing = itertools.dropwhile(lambda atom: not self._of(atom), atoms)
        kinds: list[tuple[tuple[int, ...], bool]] = []
        atoms = list(computing)
        for atom in atoms:
            is_repeated = self._is_repeated(atom) if self._of(atom) else kinds[-1][1]
            kinds.append((self._shape(atom.exit), is_repeated))
        groups: list[list[Region]] = []
        for (_, is_repeated), run in itertools.groupby(range(len(atoms)), key=kinds.__getitem__):
            same = [atoms[number] for number in run]
            macs = sum(map(self._of, same))
            parts = min(MOST_PARTS, len(same), max(1, -(-macs // max(1, int(LARGE * self.total)))))
            parts = 1 if is_repeated else parts  # alike in all places, large and small
            for group in self._equal(same, parts):
                if groups and not is_repeated and self._are_small(groups[-1], group):
                    groups[-1] += group
                else:
                    groups.append(group)
        for group in groups:
            yield self.flow.between(group[0].entry, group[-1].exit)

    def _are_small(self, first: Sequence[Region], second: Sequence[Region]) -> bool:
        """Whether one of two neighbours is too small to be a block, and both can be one."""
        least = min(sum(map(self._of, atoms)) for atoms in (first, second))
        return least < SMALL * self.total and self._is_one(self.flow.between(first[0].entry, second[-1].exit))

    def _paired(self, atoms: Sequence[Region]) -> Iterator[Region]:
        """Each atom of several layers by itself, and single layers by twos, with what follows them."""
        group: list[Region] = []
        for atom in atoms:
            amount = self._computing(atom)
            is_full = amount > 1 or sum(map(self._computing, group)) != 1
            if group and (is_full if amount else self._shape(atom.entry) != self._shape(atom.exit)):
                yield self.flow.between(group[0].entry, group[-1].exit)
                group = []
            if group or amount:
                group.append(atom)
        if group:
            yield self.flow.between(group[0].entry, group[-1].exit)

    def _equal(self, atoms: Sequence[Region], parts: int) -> list[list[Region]]:
        """Neighbouring atoms in so many groups of about equal MACs."""
        whole, done = sum(map(self._of, atoms)), 0.0
        groups: list[list[Region]] = [[] for _ in range(parts)]
        for atom in atoms:
            middle = done + self._of(atom) / 2
            groups[min(parts - 1, int(parts * middle / max(1, whole)))].append(atom)
            done += self._of(atom)
        return [group for group in groups if group]

    def _is_repeated(self, region: Region) -> bool:
        """Whether weights of a region are used in other places as well."""
        calls = self.flow.traced.ends
        modules = {
            str(node.target) for node in region.inside if node.op == "call_module" and self.macs.get(node)
        }
        return any(len(calls.get(module, ())) > 1 for module in modules)

    def _of(self, region: Region) -> int:
        return sum(self.macs.get(node, 0) for node in region.inside)

    def _is_fixed(self, region: Region) -> bool:
        """The first layer of the network, and the layers that answer, stay."""
        return region.entry is self.flow.values[0] or not region.inside.isdisjoint(self.answers)

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        """Rows and columns of a map, the number of tokens."""
        shape = tuple(self.flow.traced.examples[node].shape[1:])
        return shape[1:] if len(shape) == 3 else shape[:1]

    def _comes_back(self, region: Region) -> bool:
        """Whether a map becomes smaller inside and larger again; one pixel, as in a gate, is no map."""
        inner = (self._shape(node) for node in region.inside if self.flow.is_map(node))
        size = min(torch.Size(self._shape(node)).numel() for node in (region.entry, region.exit))
        return any(1 < torch.Size(shape).numel() < size for shape in inner if len(shape) == 2)

    def _is_scaled(self, entry: fx.Node, exit: fx.Node) -> bool:
        """Whether a map becomes no larger map or grows by a whole factor, or tokens no more tokens."""
        before, after = self._shape(entry), self._shape(exit)
        is_kept = len(before) == len(after) and self.flow.traced.examples[exit].ndim > 2
        if not is_kept or torch.Size(after).numel() <= torch.Size(before).numel():
            return is_kept
        return len(after) == 2 and after[0] % before[0] == 0 and after[0] // before[0] * before[1] == after[1]
