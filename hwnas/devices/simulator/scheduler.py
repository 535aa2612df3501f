"""The best schedule of a network, and what it costs.

Exact dynamic program over where stacks begin and end, their tiles, overlap modes, and whether the map
between two stacks stays on chip; optimal for the closed form. What is
reported is the detailed model's cost of that schedule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.accelerator import Accelerator, check_weights
from hwnas.devices.simulator.closed_form.growing import CACHES, PEAK, Rows, Way, scratch
from hwnas.devices.simulator.closed_form.machine import Machine, machine
from hwnas.devices.simulator.closed_form.plan import (
    INPUT_STAYS,
    MODE,
    START,
    TILE_X,
    TILE_Y,
    Best,
    Tries,
    nothing_found,
    plan,
)
from hwnas.devices.simulator.closed_form.stack_search import grow
from hwnas.devices.simulator.closed_form.table import Table, concatenate, table
from hwnas.devices.simulator.detailed.scheduled import Detailer
from hwnas.devices.simulator.forced import MODE_CODES, MODE_NAMES, Forced, force
from hwnas.devices.simulator.layers import Network
from hwnas.devices.simulator.result import MODELS, LayerRow, Model, Result, StackRow, peak_onchip_bytes
from hwnas.devices.simulator.schedule import Choice, Detail
from hwnas.errors import InputError

# Tiles that are tried: the whole map and these fractions of its rows and columns.
HEIGHTS = (1, 2, 4, 8, 16)
WIDTHS = (1, 4)

OBJECTIVES = {"latency": col.CYCLES, "energy": col.ENERGY, "dram": col.DRAM_READ}


@dataclass(frozen=True)
class Figures:
    """Totals of the best schedule, without its rows: what a search asks for, hundreds of times a second.

    Attributes:
        macs: multiply-accumulates of the network, whatever the schedule.
        iterations: of all loop nests: pooling, element-wise layers and what is computed twice included.
    """

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
        model: whose figures are given: those of the detailed model for the schedule that was found, or those
            of the closed form by which it was found.
    """

    accelerator: Accelerator
    objective: str = "latency"
    model: Model = "detailed"
    heights: tuple[int, ...] = HEIGHTS
    widths: tuple[int, ...] = WIDTHS
    _machine: Machine = field(init=False)
    _detailer: Detailer = field(init=False)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"model {self.model!r} is unknown", f"use one of {', '.join(MODELS)}")
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"objective {self.objective!r} is unknown", f"use one of {', '.join(OBJECTIVES)}"
            )
        self._machine = machine(self.accelerator)
        self._detailer = Detailer(self.accelerator)
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
        if self.model == "closed-form":
            rows, forced = force(rows, mode, tile, cuts)
            return self._figures(rows, self._plan(rows, last_use, forced).cost[-1, 0])
        stacks = self._best(rows, last_use, mode, tile, cuts)
        return self._figures(rows, _total(stacks))

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
        costs = self._best(rows, last_use, mode, tile, cuts)
        names = (
            [(layer.name, layer.op) for layer in network.layers]
            if isinstance(network, Network)
            else [(str(p), "") for p in range(len(rows))]
        )
        stacks = [self._stack(rows, each, cost, names) for each, cost in costs]
        figures = self._figures(rows, _total(costs))
        return Result(
            network.name if isinstance(network, Network) else name,
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
            self.model,
            tuple(stacks),
            network.charged if isinstance(network, Network) else (),
        )

    def _best(
        self,
        rows: NDArray[np.int64],
        last_use: NDArray[np.int64],
        mode: str | None,
        tile: tuple[int, int] | None,
        cuts: Iterable[int] | None,
    ) -> list[tuple[Choice, Detail]]:
        """The stacks of the best schedule with their costs in this scheduler's model.

        Where nothing is forced the program's schedule and the best one of whole maps are both costed: what
        the closed form gains by tiles may be less than what it errs by.
        """
        ways = [(mode, tile, cuts)]
        if self.model == "detailed" and mode is None and tile is None and cuts is None:
            ways.append(("layer-by-layer", None, None))
        found = []
        for way in ways:
            cut, forced = force(rows, *way)
            choice = self._plan(cut, last_use, forced).choice
            found.append([(each, self._cost(cut, last_use, each)) for each in chosen(choice)])
        return min(found, key=lambda stacks: float(_total(stacks)[OBJECTIVES[self.objective]]))

    def _plan(self, rows: NDArray[np.int64], last_use: NDArray[np.int64], forced: Forced) -> Best:
        check_weights(self.accelerator, int(rows[:, col.WEIGHT_BITS].sum()))
        best = nothing_found(len(rows))
        tries = Tries(self._heights, self._widths, forced)
        made = scratch(len(rows))
        if not plan(Rows(rows, last_use), tries, self._machine, made, OBJECTIVES[self.objective], best):
            raise InputError(
                "no schedule exists with what was forced", "force less: drop the stacks or the tile"
            )
        return best

    def _figures(self, rows: NDArray[np.int64], cost: NDArray[np.float64]) -> Figures:
        cycles = float(cost[col.CYCLES])
        return Figures(
            cycles,
            cycles / (self.accelerator.clock_mhz * 1e3),
            float(cost[col.ENERGY]) / 1e9,
            round(float(cost[col.DRAM_READ]) / 8),
            round(float(cost[col.DRAM_WRITE]) / 8),
            int(rows[:, col.PRODUCTS].sum()) * self.accelerator.batch,
            round(float(cost[col.ITERATIONS])),
        )

    def stack_costs(
        self, rows: NDArray[np.int64], last_use: NDArray[np.int64], choice: Choice
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """A stack in the closed form, whichever of its boundary maps stay on chip.

        Returns:
            costs (input on chip, output on chip, COSTS); which of them are allowed; bits of live maps and of
            caches; a trace (layers, output on chip, COSTS), the running total from the last layer back.
        """
        made = scratch(len(rows), traced=True)
        start, end, way = choice.start, choice.end, Way(*choice.tile, MODE_CODES[choice.mode])
        grow(Rows(rows, last_use), start, end, way, self._machine, made)
        return made.costs[start], made.allowed[start], made.held[start], made.trace[start : end + 1]

    def cost(self, rows: NDArray[np.int64], last_use: NDArray[np.int64], choice: Choice) -> Detail | None:
        """Cost of one stack of a network's table, in its model; None where it may not be chosen."""
        _, allowed, _, _ = self.stack_costs(rows, last_use, choice)
        possible = allowed[int(choice.input_on_chip), int(choice.output_on_chip)]
        return self._cost(rows, last_use, choice) if possible else None

    def _cost(self, rows: NDArray[np.int64], last_use: NDArray[np.int64], choice: Choice) -> Detail:
        if self.model == "detailed":
            return self._detailer.stack(rows, last_use, choice)
        rin, rout = int(choice.input_on_chip), int(choice.output_on_chip)
        costs, _, held, trace = self.stack_costs(rows, last_use, choice)
        running = np.append(trace[:, rout], np.zeros((1, col.COSTS)), axis=0)
        sources = costs[rin, rout] - running[0]
        return Detail(
            np.append(sources[None], running[:-1] - running[1:], axis=0),
            costs[rin, rout],
            round(held[PEAK]),
            round(held[CACHES]),
        )

    def _stack(
        self, rows: NDArray[np.int64], choice: Choice, cost: Detail, names: Sequence[tuple[str, str]]
    ) -> StackRow:
        own = rows[choice.start : choice.end + 1]
        maps = own[own[:, col.RIDER] == 0] if (own[:, col.RIDER] == 0).any() else own
        first, last = own[0], maps[-1]
        rows_cols = int(last[col.OY]), int(last[col.OX])
        tile = min(choice.tile[0], rows_cols[0]), min(choice.tile[1], rows_cols[1])
        tiles = -(-rows_cols[0] // tile[0]) * -(-rows_cols[1] // tile[1])
        live_bits = cost.live_bits
        if tiles > 1:
            # Maps at either end that stay on chip stand there whole beside the tiles.
            ends = choice.input_on_chip * first[col.IN_CH] * first[col.IN_Y] * first[col.IN_X]
            ends += choice.output_on_chip * last[col.K] * last[col.G] * last[col.OY] * last[col.OX]
            live_bits += int(ends) * self.accelerator.activation_bits
        return StackRow(
            tuple(
                _row(*label, values)
                for label, values in zip(
                    [("input", ""), *names[choice.start : choice.end + 1]], cost.rows, strict=True
                )
            ),
            choice.mode if tiles > 1 else "whole_maps",
            tile[1],
            tile[0],
            tiles,
            live_bits // 8,
            cost.cache_bits // 8,
            int(maps[:, col.WEIGHT_BITS].sum()) // 8,
            choice.input_on_chip,
            choice.output_on_chip,
        )


def _total(stacks: Sequence[tuple[Choice, Detail]]) -> NDArray[np.float64]:
    total = np.zeros(col.COSTS)
    for _, cost in stacks:
        total += cost.total
    return total


def chosen(choice: NDArray[np.int64]) -> list[Choice]:
    """The stacks of the best schedule, first to last: the program's choices followed backwards."""
    stacks = []
    end, on_chip = len(choice) - 1, 0
    while end > 0:
        row = [int(v) for v in choice[end, on_chip]]
        start, before, tile = row[START], row[INPUT_STAYS], (row[TILE_Y], row[TILE_X])
        stacks.append(Choice(start, end - 1, before == 1, on_chip == 1, tile, MODE_NAMES[row[MODE]]))
        end, on_chip = start, before
    return stacks[::-1]


def _row(name: str, op: str, cost: NDArray[np.float64]) -> LayerRow:
    return LayerRow(
        name,
        op,
        float(cost[col.CYCLES]),
        float(cost[col.ENERGY]),
        float(cost[col.DRAM_READ]) / 8,
        float(cost[col.DRAM_WRITE]) / 8,
        round(float(cost[col.ITERATIONS])),
    )
