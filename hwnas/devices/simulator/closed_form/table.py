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

from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.layers import Layer, Network, no_layers
from hwnas.errors import InputError

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
    """

    rows: NDArray[np.int64]
    last_use: NDArray[np.int64]
    input_last_use: int


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
        return Table(np.zeros((0, col.LAYER_COLUMNS), dtype=np.int64), np.zeros(0, dtype=np.int64), 0)
    riders = _riders(layers)
    last_use = np.array(
        [NEVER if not c or p in network.outputs else max(c) for p, c in enumerate(network.consumers[:n])],
        dtype=np.int64,
    )
    last_use[n - 1] = n
    rows = np.zeros((n, col.LAYER_COLUMNS), dtype=np.int64)
    for p in range(n):
        rows[p] = _row(network, p, riders, weight_bits)
    for p, kind in _cuts(layers, riders).items():
        rows[p, col.UNIT_END] = kind
    rows[n - 1, col.UNIT_END] = col.ARTICULATION
    input_last = max(network.consumers[n], default=0)
    return Table(rows, last_use, input_last)


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
            cuts[p] = col.ARTICULATION
    for p, layer in enumerate(layers):
        if not riders[p] and p > 0 and any(s >= 0 and riders[s] for s in layer.inputs):
            cuts.setdefault(p - 1, col.BARRIER_CUT)
    return cuts


def _row(network: Network, p: int, riders: Sequence[bool], weight_bits: int) -> NDArray[np.int64]:
    layer = network.layers[p]
    row = np.zeros(col.LAYER_COLUMNS, dtype=np.int64)
    maps = [s for i, s in enumerate(layer.inputs) if riders[p] or s < 0 or not riders[s]] or list(
        layer.inputs[:1]
    )
    first = maps[0]
    source = network.layers[first] if first >= 0 else None
    in_y, in_x = (source.oy, source.ox) if source is not None else (network.input_rows, network.input_cols)
    kind = {
        "conv": col.CONV,
        "matmul": col.CONV,
        "pool": col.CONV,
        "elementwise": col.ELEMENTWISE,
        "copy": col.ELEMENTWISE,
    }.get(layer.kind, col.FREE)
    row[[col.K, col.C, col.G, col.OY, col.OX, col.FY, col.FX]] = (
        layer.k,
        layer.c,
        layer.g,
        layer.oy,
        layer.ox,
        layer.fy,
        layer.fx,
    )
    row[[col.SY, col.SX, col.DY, col.DX]] = layer.stride_y, layer.stride_x, layer.dilation_y, layer.dilation_x
    row[[col.PAD_T, col.PAD_L, col.IN_Y, col.IN_X]] = layer.pads[0], layer.pads[1], in_y, in_x
    row[[col.SCALE_Y, col.SCALE_X]] = layer.scale_y, layer.scale_x
    made = source.output_channels if source else network.input_channels
    row[col.IN_CH] = layer.input_channels if layer.kind != "concat" else made
    if layer.reads:
        # Copies of one image are read where that lies.
        row[col.IN_CH] = min(made, -(-layer.reads // (in_y * in_x)))
    row[col.SRC0] = p - first
    if len(maps) > 1 and not riders[p]:
        second = network.layers[maps[1]] if maps[1] >= 0 else None
        row[col.SRC1] = p - maps[1]
        row[col.SRC1_CH] = second.output_channels if second else network.input_channels
        if layer.second is not None and second is not None:
            row[col.SRC1_CH] = -(-layer.k * layer.c * layer.g // (second.oy * second.ox))
    row[col.KIND] = kind
    row[col.WEIGHT_BITS] = layer.weight_elements * weight_bits
    row[col.RIDER] = int(riders[p])
    row[col.PRODUCTS] = layer.macs
    row[col.BARRIER] = int(not riders[p] and any(s >= 0 and riders[s] for s in layer.inputs))
    row[col.WHOLE] = int(not riders[p] and (layer.whole_input or layer.second is not None))
    return row
