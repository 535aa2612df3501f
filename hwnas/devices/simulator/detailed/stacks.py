"""Fusion stacks: runs of layers that are worked through tile by tile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwnas.devices.simulator.accelerator import Accelerator
from hwnas.devices.simulator.layers import Layer, Network, articulation_points
from hwnas.errors import InputError

MODES = ("fully_recompute", "h_cached_v_recompute", "fully_cached")


@dataclass(frozen=True)
class Stack:
    """Some layers of a network that are tiled together.

    Attributes:
        layers: positions in the network, in topological order; the last one's output is tiled.
        sources: maps read from outside, as positions of their producers (-1 is the network's input).
        kept: layers inside whose output is also read after the stack, or leaves the network.
        input_on_chip: the source lies whole in the outermost on-chip memory for maps; else it is off chip.
        target: where the last layer's output goes: off chip, to the outermost on-chip memory for maps, or
            nowhere further, because only vector layers of the same stack read it.
    """

    layers: tuple[int, ...]
    sources: tuple[int, ...]
    kept: tuple[int, ...] = ()
    input_on_chip: bool = False
    target: Literal["off chip", "on chip", "consumed"] = "off chip"

    @property
    def last(self) -> int:
        """Position of the layer whose output is tiled."""
        return self.layers[-1]


def cut_stacks(network: Network, cuts: Iterable[int]) -> tuple[Stack, ...]:
    """Cut a network after the given layer positions.

    A run whose layers lead to several outputs (a cut inside a branch) is divided further, one stack
    for each output.
    """
    wanted = sorted(set(cuts))
    for cut in wanted:
        if not 0 <= cut < len(network.layers):
            raise InputError(
                f"stack cut {cut} is no layer of {network.name}",
                f"cut after layers 0 to {len(network.layers) - 1}",
            )
    last = len(network.layers) - 1
    stacks: list[Stack] = []
    start = 0
    for end in [*[c for c in wanted if c != last], last]:
        run = range(start, end + 1)
        for group in by_sink(network, run):
            stacks.append(_stack(network, group))
        start = end + 1
    return tuple(stacks)


def by_sink(network: Network, run: range) -> list[tuple[int, ...]]:
    """Divide a run so that every layer leads to its group's last layer."""
    free = set(run)
    groups = []
    for sink in run:
        if any(c in run for c in network.consumers[sink]):
            continue
        group: set[int] = set()
        todo = [sink]
        while todo:
            position = todo.pop()
            if position in free and position not in group:
                group.add(position)
                todo.extend(network.layers[position].inputs)
        free -= group
        groups.append(tuple(sorted(group)))
    return groups


def _stack(network: Network, group: tuple[int, ...]) -> Stack:
    inside = set(group)
    sources = dict.fromkeys(s for p in group for s in network.layers[p].inputs if s not in inside)
    kept = tuple(
        p for p in group[:-1] if p in network.outputs or any(c not in inside for c in network.consumers[p])
    )
    return Stack(group, tuple(sources), kept)


def automatic_cuts(network: Network, accelerator: Accelerator) -> tuple[int, ...]:
    """Cuts that keep every stack's weights within the largest on-chip weight memory (DeFiNES' default).

    Undividable units are added to a stack while the sum of weights fits; a unit that does not fit by
    itself is broken into single layers.
    """
    chain = accelerator.chain("W")
    limit_bits = accelerator.memories[chain[-2] if len(chain) > 1 else chain[-1]].size_bits
    cuts: list[int] = []
    total = 0
    start = 0
    last: int | None = None
    for point in articulation_points(network.layers):
        unit = range(start, point + 1)
        bits = sum(network.layers[p].weight_elements for p in unit) * accelerator.weight_bits
        if bits > limit_bits:
            if last is not None and last not in cuts:
                cuts.append(last)
            cuts.extend(unit)
            total = 0
        elif total + bits > limit_bits:
            if last is not None:
                cuts.append(last)
            total = bits
        else:
            total += bits
        last = point
        start = point + 1
    return tuple(c for c in dict.fromkeys(cuts) if c != len(network.layers) - 1)


def map_channels(layers: Sequence[Layer], position: int, input_channels: int) -> int:
    """Channels of a map: of a layer's output, or of the network's input for -1."""
    return input_channels if position < 0 else layers[position].output_channels
