"""The detailed model's cost of a schedule that the dynamic program has found.

The closed form finds the schedule; what is reported is what the detailed model says of it. Stacks are read
back from the scheduler's table, so one that a search meets again, in whichever network, is costed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import NDArray

from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.accelerator import Accelerator
from hwnas.devices.simulator.detailed.evaluator import Evaluator
from hwnas.devices.simulator.detailed.mapper import Mapper
from hwnas.devices.simulator.detailed.stacks import Stack, by_sink
from hwnas.devices.simulator.detailed.traffic import StackCost
from hwnas.devices.simulator.layers import Layer, Network
from hwnas.devices.simulator.schedule import Choice, Detail

Rows = NDArray[np.int64]


@dataclass
class Detailer:
    """Costs stacks of the scheduler in detail, and remembers them."""

    accelerator: Accelerator
    _mapper: Mapper = field(init=False)
    _memo: dict[tuple[object, ...], Detail] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._mapper = Mapper(self.accelerator)

    def stack(self, rows: Rows, last_use: NDArray[np.int64], choice: Choice) -> Detail:
        """Cost of a stack of a network's table.

        Raises:
            InputError: a tile fits no memory.
        """
        own, used = rows[choice.start : choice.end + 1], last_use[choice.start : choice.end + 1]
        later, leaves = used > choice.end, used > len(rows)
        key = (
            own.tobytes(),
            later.tobytes(),
            leaves.tobytes(),
            choice.input_on_chip,
            choice.output_on_chip,
            choice.tile,
            choice.mode,
        )
        if key not in self._memo:
            self._memo[key] = self._cost(own, later, leaves, choice)
        return self._memo[key]

    def _cost(
        self, rows: Rows, later: NDArray[np.bool_], leaves: NDArray[np.bool_], choice: Choice
    ) -> Detail:
        maps = [i for i in range(len(rows)) if rows[i, col.RIDER] == 0] or [*range(len(rows))]
        last = maps[-1]
        whole = int(rows[last, col.OY]), int(rows[last, col.OX])
        counts = tuple(ceil(size / min(size, tile)) for size, tile in zip(whole, choice.tile, strict=True))
        found = np.zeros((1 + len(rows), col.COSTS))
        network, at = _network(rows, maps)
        evaluator = Evaluator(self.accelerator, network, self._mapper)
        live_bits = cache_bits = 0
        for group in by_sink(network, range(at.index(maps[0]), len(at))):
            sink = at[group[-1]]
            # A map that is made beside the last one is cut into as many tiles.
            tile = choice.tile if sink == last else _parts(rows[sink], counts)
            on_chip = choice.output_on_chip and sink == last
            stack = Stack(
                group,
                tuple(dict.fromkeys(s for p in group for s in network.layers[p].inputs if s not in group)),
                tuple(p for p in group[:-1] if later[at[p]] or _is_read_beside(network, p, group)),
                choice.input_on_chip,
                ("on chip" if on_chip else "off chip") if later[sink] else "consumed",
            )
            cost = evaluator.stack(stack, choice.mode, (tile[1], tile[0]))
            _add(found, cost, at)
            live_bits, cache_bits = max(live_bits, cost.live_bits), max(cache_bits, cost.cache_bits)
        for i in range(len(rows)):
            if i not in maps:
                of_map = i - rows[i, col.SRC0] in maps
                self._add_vector(found, rows, i, counts if of_map else (1, 1), bool(leaves[i]))
        return Detail(found, found.sum(axis=0), live_bits, cache_bits)

    def _add_vector(
        self, found: NDArray[np.float64], rows: Rows, i: int, counts: tuple[int, ...], leaves: bool
    ) -> None:
        """A layer that makes a vector, computed once; a map that it pools is read in its tiles."""
        row = rows[i].copy()
        whole = row[col.IN_Y] * row[col.IN_X]
        if row[col.FY] * row[col.FX] == whole:
            for side, window, count in ((col.IN_Y, col.FY, counts[0]), (col.IN_X, col.FX, counts[1])):
                row[side] = row[window] = ceil(row[side] / count)
        times = whole / (row[col.IN_Y] * row[col.IN_X])
        network, at = _network(row[None], [0])
        sources = tuple(range(len(at) - 1))
        stack = Stack((len(at) - 1,), sources, (), True, "off chip" if leaves else "consumed")
        one = np.zeros((2, col.COSTS))
        cost = Evaluator(self.accelerator, network, self._mapper).stack(stack, "fully_recompute", (1, 1))
        _add(one, cost, at)
        found[1 + i] += one.sum(axis=0) * times


def _parts(row: NDArray[np.int64], counts: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a layer's output divided into a number of tiles along each axis."""
    return ceil(row[col.OY] / counts[0]), ceil(row[col.OX] / counts[1])


def _is_read_beside(network: Network, position: int, group: tuple[int, ...]) -> bool:
    return any(reader not in group for reader in network.consumers[position])


def _network(rows: Rows, maps: list[int]) -> tuple[Network, list[int]]:
    """The layers of a stack behind its sources as a network, and the row of each of them; -1 of sources."""
    position: dict[int, int] = {}
    layers: list[Layer] = []
    for i in maps:
        for back, channels in ((col.SRC0, col.IN_CH), (col.SRC1, col.SRC1_CH)):
            source = i - int(rows[i, back])
            if rows[i, back] > 0 and source not in maps and source not in position:
                position[source] = len(layers)
                g, oy, ox = (int(rows[i, column]) for column in (channels, col.IN_Y, col.IN_X))
                layers.append(Layer("source", "copy", (), g=g, oy=oy, ox=ox))
    at = [-1] * len(layers)
    for i in maps:
        position[i] = len(layers)
        sources = [i - int(rows[i, back]) for back in (col.SRC0, col.SRC1) if rows[i, back] > 0]
        layers.append(_layer(rows[i], tuple(position[s] for s in sources)))
        at.append(i)
    return Network("stack", tuple(layers), 1, 1, 1), at


def _layer(row: NDArray[np.int64], inputs: tuple[int, ...]) -> Layer:
    """The loop nest of a row of a table."""
    values = [int(v) for v in row]
    kind, second = "concat", None
    if values[col.KIND] == col.ELEMENTWISE:
        kind = "elementwise" if len(inputs) > 1 else "copy"
    elif values[col.KIND] == col.CONV:
        kind, second = (
            ("matmul", 1) if len(inputs) > 1 else ("conv" if values[col.WEIGHT_BITS] else "pool", None)
        )
    return Layer(
        "",
        kind,
        inputs,
        k=values[col.K],
        c=values[col.C],
        g=values[col.G],
        oy=values[col.OY],
        ox=values[col.OX],
        fy=values[col.FY],
        fx=values[col.FX],
        stride_y=values[col.SY],
        stride_x=values[col.SX],
        dilation_y=values[col.DY],
        dilation_x=values[col.DX],
        pads=(values[col.PAD_T], values[col.PAD_L], 0, 0),
        whole_input=bool(values[col.WHOLE]),
        second=second,
        scale_y=values[col.SCALE_Y],
        scale_x=values[col.SCALE_X],
    )


def _add(found: NDArray[np.float64], cost: StackCost, at: list[int]) -> None:
    """Add a stack's cost to the rows of its layers; what brings sources in goes to the first one."""
    for accounts in (cost.copies, cost.layers):
        for position, account in accounts.items():
            found[1 + at[position]] += (
                account.cycles,
                account.energy_pj,
                account.dram_read_bits,
                account.dram_write_bits,
                account.iterations,
            )
