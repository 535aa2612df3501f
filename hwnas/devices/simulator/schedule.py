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
from .accelerator import Accelerator, check_weights
from .closed_form import Machine
from .forced import MODE_NAMES, force
from .layers import Network
from .result import LayerRow, Result, StackRow, peak_onchip_bytes
from .table import Table, concatenate, machine, table

# Tiles that are tried: the whole map and these fractions of its rows and columns.
HEIGHTS = (1, 2, 4, 8, 16)
WIDTHS = (1, 4)

OBJECTIVES = {"latency": cf.CYCLES, "energy": cf.ENERGY, "dram": cf.DRAM_READ}


@dataclass(frozen=True)
class Figures:
    """Totals of the best schedule, without its rows: what a search asks for, hundreds of times a second."""

    latency_cycles: float
    latency_ms: float
    energy_mj: float
    dram_read_bytes: int
    dram_write_bytes: int
    macs: int
    iterations: int


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

    def figures(
        self,
        parts: Sequence[Table],
        *,
        mode: str | None = None,
        tile: tuple[int, int] | None = None,
        cuts: Iterable[int] | None = None,
    ) -> Figures:
        """Totals of the best schedule of a network given as its parts, in order.

        Nothing is parsed or stitched: the parts' arrays are concatenated and handed to the compiled
        dynamic program. Arguments and errors as for schedule.
        """
        rows, last_use = concatenate(parts)
        rows, forced = force(rows, mode, tile, cuts)
        cost, _ = self._plan(rows, last_use, forced)
        return self._figures(rows, cost[-1, 0])

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
            InputError: an unknown mode, a cut that is no layer or divides a branch, a tile below 1, weights
                that fit no memory, a network without layers.
        """
        parts = (
            [table(network, self.accelerator.weight_bits)] if isinstance(network, Network) else list(network)
        )
        rows, last_use = concatenate(parts)
        rows, forced = force(rows, mode, tile, cuts)
        best, choice = self._plan(rows, last_use, forced)
        stacks = self._stacks(rows, last_use, choice, network if isinstance(network, Network) else None)
        figures = self._figures(rows, best[-1, 0])
        label = network.name if isinstance(network, Network) else name
        return Result(
            label,
            self.accelerator.name,
            figures.latency_cycles,
            figures.latency_ms,
            figures.energy_mj,
            figures.dram_read_bytes,
            figures.dram_write_bytes,
            peak_onchip_bytes(stacks, self.accelerator),
            figures.macs,
            figures.iterations,
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
        check_weights(self.accelerator, int(rows[:, cf.WEIGHT_BITS].sum()))
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

    def _figures(self, rows: NDArray[np.int64], cost: NDArray[np.float64]) -> Figures:
        cycles = float(cost[cf.CYCLES])
        return Figures(
            cycles,
            cycles / (self.accelerator.clock_mhz * 1e3),
            float(cost[cf.ENERGY]) / 1e9,
            round(float(cost[cf.DRAM_READ]) / 8),
            round(float(cost[cf.DRAM_WRITE]) / 8),
            int(rows[:, cf.PRODUCTS].sum()) * self.accelerator.batch,
            round(float(cost[cf.ITERATIONS])),
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
        round(float(cost[cf.ITERATIONS])),
    )
