"""The fast simulator: the best schedule of a network under the closed-form model.

Exact dynamic program over where stacks begin and end, their tiles, overlap modes, and whether the map
between two stacks stays on chip; optimal for the model that growth and closed_form state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import InputError

from . import closed_form as cf
from . import compiled, growth
from .accelerator import Accelerator
from .closed_form import Machine
from .layers import Network
from .result import LayerRow, Result, StackRow
from .table import ARTICULATION, BARRIER_CUT, Table, concatenate, machine, table

# Tiles that are tried: the whole map and these fractions of its rows and columns.
HEIGHTS = (1, 2, 4, 8, 16)
WIDTHS = (1, 4)

OBJECTIVES = {"latency": cf.CYCLES, "energy": cf.ENERGY, "dram": cf.DRAM_READ}
MODE_CODES = {
    "fully_recompute": growth.RECOMPUTE,
    "h_cached_v_recompute": growth.H_CACHED,
    "fully_cached": growth.FULLY_CACHED,
}
MODE_NAMES = {code: name for name, code in MODE_CODES.items()}


def mode_name(mode: str) -> str:
    """A mode in the spelling used inside: fully-cached is fully_cached.

    Raises:
        InputError: the mode is unknown.
    """
    spelled = mode.replace("-", "_")
    if spelled not in (*MODE_CODES, "layer_by_layer", "single_layer"):
        known = ", ".join(m.replace("_", "-") for m in ("layer_by_layer", "single_layer", *MODE_CODES))
        raise InputError(f"mode {mode!r} is unknown", f"use one of {known}")
    return spelled


@dataclass(frozen=True)
class Figures:
    """Totals of the best schedule, without its rows: what a search asks for, hundreds of times a second."""

    latency_cycles: float
    latency_ms: float
    energy_mj: float
    dram_read_bytes: int
    dram_write_bytes: int
    macs: int


@dataclass
class Scheduler:
    """Schedules networks on one accelerator.

    Args:
        objective: "latency", "energy" or "dram" (bytes read): what the dynamic program minimises.
    """

    accelerator: Accelerator
    objective: str = "latency"
    heights: tuple[int, ...] = HEIGHTS
    widths: tuple[int, ...] = WIDTHS
    _machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"objective {self.objective!r} is unknown", f"use one of {', '.join(OBJECTIVES)}"
            )
        self._machine = machine(self.accelerator)
        self._heights = np.array(self.heights, dtype=np.int64)
        self._widths = np.array(self.widths, dtype=np.int64)

    def part(self, network: Network) -> Table:
        """A network's part in the form that figures() concatenates; make it once and keep it."""
        return table(network, self.accelerator.weight_bits)

    def figures(self, parts: Sequence[Table]) -> Figures:
        """Totals of the best schedule of a network given as its parts, in order.

        Nothing is parsed or stitched: the parts' arrays are concatenated and handed to the compiled
        dynamic program.
        """
        rows, last_use = concatenate([p for p in parts if len(p.last_use)])
        cost, _ = self._plan(rows, last_use, np.array([0, 0, -1, 0], dtype=np.int64))
        return self._figures(cost[-1, 0])

    def schedule(
        self,
        network: Network | Sequence[Table],
        *,
        mode: str | None = None,
        tile: tuple[int, int] | None = None,
        cuts: Iterable[int] | None = None,
        name: str = "network",
    ) -> Result:
        """The best schedule with all its rows.

        Args:
            network: a padded network, or the tables of its parts.
            mode: force an overlap mode for all stacks of several tiles, or "layer-by-layer" (every map in
                one piece) or "single-layer" (every map through the off-chip memory).
            tile: force (columns, rows) of every stack's output; stacks for which it does not fit take
                whole maps.
            cuts: force stacks: positions of their last layers.

        Raises:
            InputError: an unknown mode, a cut that is no layer or divides a branch, a tile below 1.
        """
        parts = (
            [table(network, self.accelerator.weight_bits)] if isinstance(network, Network) else list(network)
        )
        rows, last_use = concatenate([p for p in parts if len(p.last_use)])
        forced = np.array([0, 0, -1, 0], dtype=np.int64)
        spelled = mode_name(mode) if mode is not None else None
        if tile is not None:
            if min(tile) < 1:
                raise InputError(f"tile {tile} is not positive", "give (columns, rows), each at least 1")
            forced[0], forced[1] = tile[1], tile[0]
        if spelled in MODE_CODES:
            forced[2] = MODE_CODES[spelled]
        elif spelled is not None:
            forced[0] = forced[1] = 1 << 30
            forced[2] = growth.FULLY_CACHED
        if spelled == "single_layer":
            rows, forced[3] = _cut_everywhere(rows), 1
        if cuts is not None:
            rows, forced[3] = _cut_at(rows, cuts), 1
        best, choice = self._plan(rows, last_use, forced)
        stacks = self._stacks(rows, last_use, choice, network if isinstance(network, Network) else None)
        figures = self._figures(best[-1, 0])
        peak = max(s.live_bytes + s.cache_bytes + (s.weight_bytes if s.tiles > 1 else 0) for s in stacks)
        label = network.name if isinstance(network, Network) else name
        return Result(
            label,
            self.accelerator.name,
            figures.latency_cycles,
            figures.latency_ms,
            figures.energy_mj,
            figures.dram_read_bytes,
            figures.dram_write_bytes,
            peak,
            figures.macs,
            figures.macs / (figures.latency_cycles * self.accelerator.multipliers)
            if figures.latency_cycles
            else 0.0,
            tuple(stacks),
            network.charged if isinstance(network, Network) else (),
        )

    def _plan(
        self, rows: NDArray[np.int64], last_use: NDArray[np.int64], forced: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        n = len(rows)
        best = np.zeros((n + 1, 2, cf.COSTS))
        choice = np.zeros((n + 1, 2, 5), dtype=np.int64)
        done = compiled.plan_network(
            rows,
            last_use,
            self._heights,
            self._widths,
            forced,
            self._machine,
            growth.scratch(n),
            OBJECTIVES[self.objective],
            best,
            choice,
        )
        if not done:
            raise InputError(
                "no schedule exists with what was forced", "force less: drop the stacks or the tile"
            )
        return best, choice

    def _figures(self, cost: NDArray[np.float64]) -> Figures:
        cycles = float(cost[cf.CYCLES])
        return Figures(
            cycles,
            cycles / (self.accelerator.clock_mhz * 1e3),
            float(cost[cf.ENERGY]) / 1e9,
            round(float(cost[cf.DRAM_READ]) / 8),
            round(float(cost[cf.DRAM_WRITE]) / 8),
            round(float(cost[cf.MACS])),
        )

    def _stacks(
        self,
        rows: NDArray[np.int64],
        last_use: NDArray[np.int64],
        choice: NDArray[np.int64],
        network: Network | None,
    ) -> list[StackRow]:
        """Follow the choices backwards and cost each stack again, layer by layer."""
        stacks = []
        end, rout = len(rows), 0
        while end > 0:
            start, rin, tile_y, tile_x, mode = (int(v) for v in choice[end, rout])
            stacks.append(
                self._stack(rows, last_use, (start, end - 1), (rin, rout), (tile_y, tile_x), mode, network)
            )
            end, rout = start, rin
        return stacks[::-1]

    def stack_costs(
        self,
        rows: NDArray[np.int64],
        last_use: NDArray[np.int64],
        start: int,
        end: int,
        tile: tuple[int, int],
        mode: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Costs (rin, rout, COSTS) of one stack, which of them are allowed, what it holds, and its trace.

        tile: (rows, columns). The trace (layers, rout, COSTS) is the running total from the last layer back.
        """
        made = growth.scratch(len(rows), traced=True)
        compiled.grow_stack(rows, last_use, start, end, tile[0], tile[1], mode, self._machine, made)
        return made.costs[start], made.allowed[start], made.held[start], made.trace[start : end + 1]

    def _stack(
        self,
        rows: NDArray[np.int64],
        last_use: NDArray[np.int64],
        span: tuple[int, int],
        on_chip: tuple[int, int],
        tile: tuple[int, int],
        mode: int,
        network: Network | None,
    ) -> StackRow:
        start, end = span
        rin, rout = on_chip
        costs, _, held, trace = self.stack_costs(rows, last_use, start, end, tile, mode)
        last = end
        while rows[last, cf.RIDER] == 1 and last > start:
            last -= 1
        out_y, out_x = int(rows[last, cf.OY]), int(rows[last, cf.OX])
        ty, tx = min(tile[0], out_y), min(tile[1], out_x)
        totals = [trace[i, rout] for i in range(end - start + 1)]
        layer_rows = [_row("input", "", costs[rin, rout] - totals[0])]
        for i, p in enumerate(range(start, end + 1)):
            own = totals[i] - (totals[i + 1] if i + 1 < len(totals) else 0.0)
            label, op = (
                (network.layers[p].name, network.layers[p].op) if network is not None else (str(p), "")
            )
            layer_rows.append(_row(label, op, own))
        tiles = -(-out_y // ty) * -(-out_x // tx)
        live = round(held[0] / 8)
        if tiles > 1:
            # Maps at either end that stay on chip stand there whole beside the tiles.
            first = rows[start]
            live += (
                rin
                * int(first[cf.IN_CH] * first[cf.IN_Y] * first[cf.IN_X])
                * self.accelerator.activation_bits
                // 8
            )
            own = int(rows[last, cf.K] * rows[last, cf.G]) * out_y * out_x
            live += rout * own * self.accelerator.activation_bits // 8
        weights = int(rows[start : end + 1][rows[start : end + 1, cf.RIDER] == 0, cf.WEIGHT_BITS].sum()) // 8
        return StackRow(
            tuple(layer_rows),
            MODE_NAMES[mode] if tiles > 1 else "whole_maps",
            tx,
            ty,
            tiles,
            live,
            round(held[1] / 8),
            weights,
            rin == 1,
            rout == 1,
        )


def _row(name: str, op: str, cost: NDArray[np.float64]) -> LayerRow:
    return LayerRow(
        name,
        op,
        float(cost[cf.CYCLES]),
        float(cost[cf.ENERGY]),
        float(cost[cf.DRAM_READ]) / 8,
        float(cost[cf.DRAM_WRITE]) / 8,
        round(float(cost[cf.MACS])),
    )


def _cut_everywhere(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A cut after every layer, none of whose maps stays on chip. Vectors still belong to the layer before."""
    cut = rows.copy()
    follows = np.append(rows[1:, cf.RIDER] == 0, True)
    cut[:, cf.UNIT_END] = np.where(follows, BARRIER_CUT, 0)
    cut[-1, cf.UNIT_END] = ARTICULATION
    return cut


def _cut_at(rows: NDArray[np.int64], cuts: Iterable[int]) -> NDArray[np.int64]:
    """Cuts only where they are asked for."""
    wanted = set(cuts) | {len(rows) - 1}
    for position in sorted(wanted):
        if not 0 <= position < len(rows):
            raise InputError(f"stack cut {position} is no layer", f"cut after layers 0 to {len(rows) - 1}")
        if position + 1 < len(rows) and rows[position + 1, cf.RIDER]:
            raise InputError(
                f"stack cut {position} divides a map from the pooling that reads it",
                "cut after the vector layers that follow",
            )
    cut = rows.copy()
    for position in range(len(rows)):
        cut[position, cf.UNIT_END] = (
            max(int(rows[position, cf.UNIT_END]), BARRIER_CUT) if position in wanted else 0
        )
    return cut
