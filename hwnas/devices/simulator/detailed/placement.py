"""Which memory holds what while a stack is worked through.

The rules are those of DeFiNES (HPCA 2023, step 3): data go to the innermost shared memory they fit in,
live maps first, then the horizontal and the vertical overlap cache, weights last.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.devices.simulator.accelerator import Accelerator
from hwnas.devices.simulator.detailed.axes import AxisTile
from hwnas.devices.simulator.detailed.stacks import Stack, map_channels
from hwnas.devices.simulator.layers import Layer, Network


@dataclass(frozen=True)
class Demand:
    """What one class of tiles asks of the memories, in bits.

    Attributes:
        live: most bits of inputs and outputs alive at once, in topological order.
        live_h: the same with the horizontal caches that exist at that time.
        cache_v, cache_both: vertical caches, and the part that horizontal caches hold as well.
    """

    live: int
    live_h: int
    cache_v: int
    cache_both: int


def edge_channels(network: Network, position: int, index: int) -> int:
    """Channels that a layer reads of one of its inputs."""
    layer = network.layers[position]
    source = layer.inputs[index]
    if index == layer.second:
        rows_cols = (
            (network.layers[source].oy * network.layers[source].ox)
            if source >= 0
            else network.input_rows * network.input_cols
        )
        return -(-layer.k * layer.c * layer.g // rows_cols)
    if layer.kind == "concat":
        return map_channels(network.layers, source, network.input_channels)
    return layer.input_channels


def input_bits(network: Network, layer: Layer, position: int, y: AxisTile, x: AxisTile, bits: int) -> int:
    """Bits of all input tiles of a layer, cached parts included."""
    return sum(
        edge_channels(network, position, i) * y.need[position, i] * x.need[position, i] * bits
        for i in range(len(layer.inputs))
    )


def demand(
    network: Network, stack: Stack, accelerator: Accelerator, y: AxisTile, x: AxisTile, widths: dict[int, int]
) -> Demand:
    """Live maps and caches of one class of tiles. widths: full width of every map."""
    bits = accelerator.activation_bits
    inside = set(stack.layers)
    readers = {m: {c for c in network.consumers[m] if c in inside} for m in (*stack.sources, *stack.layers)}
    made = {
        m: map_channels(network.layers, m, network.input_channels) * y.out[m] * x.out[m] * bits
        for m in readers
    }
    written = {
        m: map_channels(network.layers, m, network.input_channels) * y.out[m] * x.keep.get(m, 0) * bits
        for m in readers
    }
    alive = sum(made[m] for m in stack.sources)
    peak = alive
    alive_h, peak_h = alive, alive
    cache_h = cache_v = cache_both = 0
    for position in stack.layers:
        layer = network.layers[position]
        for i in range(len(layer.inputs)):
            channels = edge_channels(network, position, i)
            edge = (position, i)
            cache_h += channels * y.need[edge] * x.overlap[edge] * bits
            cache_v += channels * y.overlap[edge] * widths[layer.inputs[i]] * bits
            cache_both += channels * y.overlap[edge] * x.overlap[edge] * bits
        sources = set(layer.inputs)
        during = (
            input_bits(network, layer, position, y, x, bits) + made[position] - sum(made[s] for s in sources)
        )
        peak, peak_h = max(peak, alive + during), max(peak_h, alive_h + during)
        alive, alive_h = alive + made[position], alive_h + made[position]
        for source in sources:
            readers[source].discard(position)
            if not readers[source]:
                alive, alive_h = alive - made[source], alive_h - made[source]
        alive_h += written[position]
        peak, peak_h = max(peak, alive), max(peak_h, alive_h)
    # In the first column caches come into being one by one, later all of the row before are there.
    return Demand(peak, peak_h if x.first else peak + cache_h, cache_v, cache_both)


def activation_levels(accelerator: Accelerator) -> list[int]:
    """Shared memories that hold both inputs and outputs, innermost first."""
    inputs = accelerator.chain("I")
    return [m for m in accelerator.chain("O") if m in inputs and accelerator.memories[m].shared]


def fitting(accelerator: Accelerator, levels: list[int], bits: int) -> int:
    """Innermost of some memories that has room for a number of bits."""
    for m in levels:
        if accelerator.memories[m].size_bits >= bits:
            return m
    return levels[-1]


def cache_levels(accelerator: Accelerator, needs: Demand) -> tuple[int, int]:
    """Memories of the horizontal and the vertical overlap cache for one class of tiles."""
    levels = activation_levels(accelerator)
    horizontal = fitting(accelerator, levels, needs.live_h)
    for m in levels:
        both = needs.cache_both if m == horizontal else 0
        if accelerator.memories[m].size_bits >= needs.live_h + needs.cache_v - both:
            return horizontal, m
    return horizontal, levels[-1]


def weight_level(
    accelerator: Accelerator, weight_bits: int, needs: Demand, horizontal: int | None, vertical: int | None
) -> int:
    """Innermost memory with room for a stack's weights beside what activations take of it."""
    levels = activation_levels(accelerator)
    reserved = levels[: levels.index(fitting(accelerator, levels, needs.live)) + 1]
    chain = accelerator.chain("W")
    for m in chain:
        size = weight_bits
        if m in reserved:
            size = weight_bits + needs.live
        if m == horizontal:
            size = weight_bits + needs.live_h
        if m == vertical:
            size = weight_bits + needs.live_h + needs.cache_v - (needs.cache_both if m == horizontal else 0)
        if accelerator.memories[m].size_bits >= size:
            return m
    return chain[-1]


def outermost_on_chip(accelerator: Accelerator) -> int:
    """The outermost shared memory on chip that holds inputs and outputs; the off-chip one where none does."""
    return next(reversed(activation_levels(accelerator)[:-1]), accelerator.dram)


def tile_levels(
    accelerator: Accelerator, in_bits: int, out_bits: int, target: int | None = None
) -> tuple[int, int]:
    """Memories up to which a layer's inputs and outputs reach during one tile.

    Args:
        target: the memory that the outputs must reach; None for the innermost one with room.
    """
    inputs = [m for m in accelerator.chain("I") if accelerator.memories[m].shared]
    taken = fitting(accelerator, inputs, in_bits)
    if target is not None:
        return taken, target
    for m in accelerator.chain("O"):
        if accelerator.memories[m].shared and accelerator.memories[m].size_bits >= out_bits + (
            in_bits if m == taken else 0
        ):
            return taken, m
    return taken, accelerator.dram


def raised(accelerator: Accelerator, taken: int, given: int) -> list[tuple[int, int]]:
    """(Input, output) memories to try in turn where partial sums need more room than final outputs."""
    inputs, outputs = accelerator.chain("I"), accelerator.chain("O")
    choices = []
    up_in = up_out = 0
    for _ in range(2 * len(accelerator.memories) + 1):
        i = inputs[min(inputs.index(taken) + up_in, len(inputs) - 1)]
        o = outputs[min(outputs.index(given) + up_out, len(outputs) - 1)]
        choices.append((i, o))
        if up_out == up_in:
            up_out += 1
        elif up_out > up_in:
            up_in, up_out = up_in + 1, up_out - 1
        else:
            up_out += 1
    return choices
