"""Networks as integer tables: what the compiled scheduler works on.

A row is a layer. Sources are distances backwards, so tables of parts that follow one another in a
network are simply concatenated: distance p + 1 from row p of a part is the part's input, which is the
last row of the part before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import InputError

from . import closed_form as cf
from .accelerator import Accelerator
from .layers import Layer, Network, no_layers

ARTICULATION, BARRIER_CUT = 2, 1

# Last use of a map that leaves the network: behind every layer.
NEVER = 1 << 40


@dataclass(frozen=True, eq=False)
class Table:
    """A part (or a whole network) as arrays.

    Attributes:
        rows: (layers, LAYER_COLUMNS).
        last_use: (layers,) position of the last reader of every map, within the part; the number of layers
            for the part's output, NEVER for a map that leaves the network.
        input_last_use: position of the last reader of the part's input.
        weight_bits_per_element: what WEIGHT_BITS was computed with.
    """

    rows: NDArray[np.int64]
    last_use: NDArray[np.int64]
    input_last_use: int
    weight_bits_per_element: int


def table(network: Network, weight_bits: int = 8) -> Table:
    """Turn a network (or a part of one) into a table.

    Raises:
        InputError: the network follows the reference's convention without padding, which only evaluate knows.
    """
    if not network.padded:
        raise InputError(
            f"network {network.name} has no padding and cannot be scheduled",
            "use evaluate, or read it with padded=True",
        )
    layers = network.layers
    n = len(layers)
    if n == 0:
        # Nothing but reshaping: the part's output is its input.
        return Table(
            np.zeros((0, cf.LAYER_COLUMNS), dtype=np.int64), np.zeros(0, dtype=np.int64), 0, weight_bits
        )
    riders = _riders(layers)
    last_use = np.array(
        [NEVER if not c or p in network.outputs else max(c) for p, c in enumerate(network.consumers[:n])],
        dtype=np.int64,
    )
    last_use[n - 1] = n
    rows = np.zeros((n, cf.LAYER_COLUMNS), dtype=np.int64)
    for p in range(n):
        rows[p] = _row(network, p, riders, weight_bits)
    for p, kind in _cuts(layers, riders).items():
        rows[p, cf.UNIT_END] = kind
    rows[n - 1, cf.UNIT_END] = ARTICULATION
    input_last = max(network.consumers[n], default=0)
    return Table(rows, last_use, input_last, weight_bits)


def concatenate(parts: Sequence[Table]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and last uses of a network that is made of parts; nothing is parsed or stitched.

    Raises:
        InputError: there is no layer in any of them.
    """
    parts = [part for part in parts if len(part.last_use)]
    if not parts:
        raise no_layers()
    rows = np.concatenate([p.rows for p in parts])
    last_use = np.concatenate([p.last_use for p in parts])
    base = 0
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        size = len(part.last_use)
        last_use[base : base + size] += base
        end = base + size
        last_use[end - 1] = end + following.input_last_use if following is not None else NEVER
        base = end
    return rows, last_use


def _riders(layers: Sequence[Layer]) -> list[bool]:
    """Layers that turn maps into vectors, and layers on vectors: computed once beside the stack they follow.

    Their results are a few hundred bytes and always stay on chip, so they do not stand in the way of a cut.
    """
    riders: list[bool] = []
    for p, layer in enumerate(layers):
        vector = layer.oy == 1 and layer.ox == 1 and p > 0
        small = all(s >= 0 and riders[s] for s in layer.inputs)
        riders.append(vector and (layer.whole_input or small or layer.kind == "free"))
    return riders


def _cuts(layers: Sequence[Layer], riders: Sequence[bool]) -> dict[int, int]:
    """Where a stack may end: at articulation points of the maps, and before a barrier."""
    last_use: dict[int, int] = {}
    for p, layer in enumerate(layers):
        for source in layer.inputs:
            if source < 0 or not riders[source]:
                last_use[source] = p
    cuts: dict[int, int] = {}
    alive = -1
    reach = last_use.get(-1, -1)
    for p in range(len(layers)):
        if not riders[p]:
            if alive != p:
                reach = max(reach, last_use.get(alive, -1)) if alive >= 0 else reach
            alive = p
        follows_rider = p + 1 < len(layers) and riders[p + 1]
        if reach <= p and not follows_rider:
            cuts[p] = ARTICULATION
    for p, layer in enumerate(layers):
        if not riders[p] and p > 0 and any(s >= 0 and riders[s] for s in layer.inputs):
            cuts.setdefault(p - 1, BARRIER_CUT)
    return cuts


def _row(network: Network, p: int, riders: Sequence[bool], weight_bits: int) -> NDArray[np.int64]:
    layer = network.layers[p]
    row = np.zeros(cf.LAYER_COLUMNS, dtype=np.int64)
    maps = [s for i, s in enumerate(layer.inputs) if riders[p] or s < 0 or not riders[s]] or list(
        layer.inputs[:1]
    )
    first = maps[0]
    source = network.layers[first] if first >= 0 else None
    in_y, in_x = (source.oy, source.ox) if source is not None else (network.input_rows, network.input_cols)
    kind = {
        "conv": cf.CONV,
        "matmul": cf.CONV,
        "pool": cf.CONV,
        "elementwise": cf.ELEMENTWISE,
        "copy": cf.ELEMENTWISE,
    }.get(layer.kind, cf.FREE)
    row[[cf.K, cf.C, cf.G, cf.OY, cf.OX, cf.FY, cf.FX]] = (
        layer.k,
        layer.c,
        layer.g,
        layer.oy,
        layer.ox,
        layer.fy,
        layer.fx,
    )
    row[[cf.SY, cf.SX, cf.DY, cf.DX]] = layer.stride_y, layer.stride_x, layer.dilation_y, layer.dilation_x
    row[[cf.PAD_T, cf.PAD_L, cf.IN_Y, cf.IN_X]] = layer.pads[0], layer.pads[1], in_y, in_x
    row[[cf.SCALE_Y, cf.SCALE_X]] = layer.scale_y, layer.scale_x
    row[cf.IN_CH] = (
        layer.input_channels
        if layer.kind != "concat"
        else (source.output_channels if source else network.input_channels)
    )
    row[cf.SRC0] = p - first
    if len(maps) > 1 and not riders[p]:
        second = network.layers[maps[1]] if maps[1] >= 0 else None
        row[cf.SRC1] = p - maps[1]
        row[cf.SRC1_CH] = second.output_channels if second else network.input_channels
        if layer.second is not None and second is not None:
            row[cf.SRC1_CH] = -(-layer.k * layer.c * layer.g // (second.oy * second.ox))
    row[cf.KIND] = kind
    row[cf.WEIGHT_BITS] = layer.weight_elements * weight_bits
    row[cf.RIDER] = int(riders[p])
    row[cf.PRODUCTS] = layer.macs
    row[cf.BARRIER] = int(not riders[p] and any(s >= 0 and riders[s] for s in layer.inputs))
    row[cf.WHOLE] = int(not riders[p] and (layer.whole_input or layer.second is not None))
    return row


def machine(accelerator: Accelerator) -> cf.Machine:
    """Turn an accelerator into arrays."""
    memories = accelerator.memories
    array = np.ones(7)
    for dim, size in accelerator.unroll:
        array[("K", "C", "G", "OY", "OX", "FY", "FX").index(dim)] = size
    chains = np.full((3, 8), -1, dtype=np.int64)
    for op, operand in enumerate(("O", "W", "I")):
        shared = [m for m in accelerator.chain(operand) if memories[m].shared]
        chains[op, : len(shared)] = shared
        registers = [m for m in accelerator.chain(operand) if not memories[m].shared]
        if registers:
            chains[op, 7] = registers[-1]
    outputs, inputs = list(chains[0]), list(chains[2])
    common = [m for m in outputs[:7] if m >= 0 and m in inputs]
    levels = np.array([[outputs.index(m) for m in common], [inputs.index(m) for m in common]], dtype=np.int64)
    sizes = np.array([memories[m].size_bits for m in common], dtype=np.float64)
    memory = np.array(
        [
            [m.size_bits for m in memories],
            [m.read_bits_per_cycle for m in memories],
            [m.write_bits_per_cycle for m in memories],
            [m.read_pj for m in memories],
            [m.write_pj for m in memories],
            [m.instances for m in memories],
            [int(m.ports[2] > 0 and m.ports[0] == 0) for m in memories],
        ],
        dtype=np.float64,
    )
    scalars = np.array(
        [
            accelerator.mac_pj,
            accelerator.activation_bits,
            accelerator.weight_bits,
            accelerator.partial_sum_bits,
            len(memories),
        ],
        dtype=np.float64,
    )
    on_chip_weights = [m for m in accelerator.chain("W") if m != accelerator.dram and memories[m].shared]
    activation = common[-2] if len(common) > 1 else -1
    limits = np.array(
        [
            memories[activation].size_bits if activation >= 0 else 0.0,
            memories[on_chip_weights[-1]].size_bits if on_chip_weights else 0.0,
            float(bool(on_chip_weights) and on_chip_weights[-1] == activation),
        ]
    )
    return cf.Machine(
        array, chains, levels, sizes, len(common), memory, scalars, limits, float(accelerator.batch)
    )
