"""The cost of a given schedule: every class of tiles of every stack, layer by layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from hwnas.devices.simulator.accelerator import Accelerator
from hwnas.devices.simulator.detailed.axes import AxisTile, axis_tiles, full_sizes
from hwnas.devices.simulator.detailed.copies import Copy, copy_cost, copy_path
from hwnas.devices.simulator.detailed.mapper import Mapper, TileCost
from hwnas.devices.simulator.detailed.placement import (
    Demand,
    cache_levels,
    demand,
    edge_channels,
    fitting,
    input_bits,
    outermost_on_chip,
    raised,
    tile_levels,
    weight_level,
)
from hwnas.devices.simulator.detailed.stacks import MODES, Stack, map_channels
from hwnas.devices.simulator.detailed.traffic import Account, StackCost
from hwnas.devices.simulator.layers import Network
from hwnas.errors import InputError


@dataclass
class Evaluator:
    """Evaluates stacks of one network on one accelerator; the mapper's memo is shared between calls."""

    accelerator: Accelerator
    network: Network
    mapper: Mapper
    _heights: dict[int, int] = field(init=False)
    _widths: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._heights = full_sizes(self.network, "y")
        self._widths = full_sizes(self.network, "x")

    def stack(self, stack: Stack, mode: str, tile: tuple[int, int]) -> StackCost:
        """Cost of a stack.

        Args:
            mode: one of MODES.
            tile: (columns, rows) of the last layer's output; larger ones mean the whole map.
        """
        if mode not in MODES:
            raise InputError(f"mode {mode!r} is unknown", f"use one of {', '.join(MODES)}")
        if min(tile) < 1:
            raise InputError(f"tile {tile} is not positive", "give (columns, rows), each at least 1")
        cached_x, cached_y = mode != "fully_recompute", mode == "fully_cached"
        columns = axis_tiles(self.network, stack, "x", tile[0], cached_x, self._widths)
        rows = axis_tiles(self.network, stack, "y", tile[1], cached_y, self._heights)
        plan = _plan(self, stack, rows, columns, cached_x, cached_y)
        copies: dict[int, Account] = defaultdict(Account)
        layers: dict[int, Account] = defaultdict(Account)
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                count = row.count * column.count * self.accelerator.batch
                if r == 0 and c == 0:
                    self._tile(stack, plan, r, c, True, 1, copies, layers)
                    count -= 1
                if count:
                    self._tile(stack, plan, r, c, False, count, copies, layers)
        return StackCost(
            stack,
            mode,
            (min(tile[0], self._widths[stack.last]), min(tile[1], self._heights[stack.last])),
            sum(r.count for r in rows) * sum(c.count for c in columns),
            dict(copies),
            dict(layers),
            plan.live_bits,
            plan.cache_bits,
            plan.weight_bits,
            plan.weight_memory,
        )

    def _tile(
        self,
        stack: Stack,
        plan: _Plan,
        r: int,
        c: int,
        first: bool,
        count: int,
        copies: dict[int, Account],
        layers: dict[int, Account],
    ) -> None:
        """Work through one tile; plan's row r and column c."""
        y, x = plan.rows[r], plan.columns[c]
        acc, network, bits = self.accelerator, self.network, self.accelerator.activation_bits
        use_h = plan.horizontal[r][c - 1] if c and plan.cached_x else None
        use_v = plan.vertical if r and plan.cached_y else None
        make_h = plan.horizontal[r][c] if plan.cached_x and not x.last else None
        make_v = plan.vertical if plan.cached_y and not y.last else None
        target = {"off chip": acc.dram, "on chip": outermost_on_chip(acc), "consumed": None}[stack.target]
        stored: dict[int, tuple[int, int]] = {}
        pending: list[Copy] = []
        for source in stack.sources:
            size = (
                map_channels(network.layers, source, network.input_channels)
                * y.out[source]
                * x.out[source]
                * bits
            )
            chain = acc.chain("I")
            level = fitting(acc, [m for m in chain if acc.memories[m].shared], size)
            origin = outermost_on_chip(acc) if stack.input_on_chip else acc.dram
            level = min(level, origin, key=chain.index)
            stored[source] = (level, size)
            copies[source].add_copy(
                copy_cost(acc, [Copy(size, copy_path(acc, origin, level, "I", "I"))]), count
            )
        for position in stack.layers:
            layer = network.layers[position]
            rows, cols = y.out[position], x.out[position]
            out_bits = layer.output_channels * rows * cols * bits
            if not out_bits:
                stored[position] = (acc.chain("O")[-1], 0)
                continue
            in_bits = input_bits(network, layer, position, y, x, bits)
            wanted = tile_levels(acc, in_bits, out_bits, target if position == stack.last else None)
            extents = {
                "K": layer.k,
                "C": layer.c,
                "G": layer.g,
                "OY": rows,
                "OX": cols,
                "FY": layer.fy,
                "FX": layer.fx,
            }
            taken, given = wanted
            cost: TileCost | None = None
            if layer.kind == "concat":
                # Producers write side by side; only bringing them to one memory costs something.
                cost, taken = TileCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), given
            else:
                for taken, given in raised(acc, *wanted):
                    tops = (given, acc.dram if first else plan.weight_memory, taken)
                    cost = self.mapper.cost(layer, extents, tops)
                    if cost is not None:
                        break
            if cost is None:
                raise InputError(
                    f"layer {layer.name} with a tile of {cols} x {rows} fits no memory of {acc.name}",
                    "choose a smaller tile or another accelerator",
                )
            # Bring the inputs to where this layer takes them from.
            batch = pending
            pending = []
            for i, source in enumerate(layer.inputs):
                level, size = stored[source]
                if size and (level != taken if source not in stack.sources else _above(acc, level, taken)):
                    batch.append(Copy(size, copy_path(acc, level, taken, "O", "I")))
                channels = edge_channels(network, position, i)
                if use_h is not None and use_h != taken:
                    amount = channels * y.need[position, i] * x.overlap[position, i] * bits
                    batch.append(Copy(amount, copy_path(acc, use_h, taken, "I", "I")))
                if use_v is not None and use_v != taken:
                    span = x.need[position, i] - (x.overlap[position, i] if use_h is not None else 0)
                    batch.append(
                        Copy(
                            channels * span * y.overlap[position, i] * bits,
                            copy_path(acc, use_v, taken, "I", "I"),
                        )
                    )
            copies[position].add_copy(copy_cost(acc, [b for b in batch if b.bits > 0]), count)
            iterations = layer.k * layer.c * layer.g * layer.fy * layer.fx * rows * cols
            layers[position].add_tile(cost, count, 0 if layer.kind == "concat" else iterations)
            stored[position] = (given, out_bits)
            # Hand over to the caches: rows for the tiles below first, then the columns that are left.
            below = min(y.keep.get(position, 0), rows if use_v is not None or not y.first else 1 << 60)
            beside = min(x.keep.get(position, 0), cols if use_h is not None or not x.first else 1 << 60)
            if make_v is not None and make_v != given and position in plan.read_inside:
                pending.append(
                    Copy(layer.output_channels * below * cols * bits, copy_path(acc, given, make_v, "O", "O"))
                )
            else:
                below = 0
            if make_h is not None and make_h != given and position in plan.read_inside:
                amount = layer.output_channels * max(0, rows - below) * beside * bits
                pending.append(Copy(amount, copy_path(acc, given, make_h, "O", "O")))
            if position in stack.kept and given != acc.dram:
                pending.append(Copy(out_bits, copy_path(acc, given, acc.dram, "O", "O")))


def _above(accelerator: Accelerator, level: int, taken: int) -> bool:
    """Whether a stack's input was put further out than where a layer's input chain ends."""
    chain = accelerator.chain("I")
    return level not in chain or chain.index(level) > chain.index(taken)


@dataclass(frozen=True)
class _Plan:
    """Decisions that hold for all tiles of a stack."""

    rows: list[AxisTile]
    columns: list[AxisTile]
    cached_x: bool
    cached_y: bool
    horizontal: list[list[int]]
    vertical: int
    weight_memory: int
    weight_bits: int
    live_bits: int
    cache_bits: int
    read_inside: frozenset[int]


def _plan(
    self: Evaluator,
    stack: Stack,
    rows: list[AxisTile],
    columns: list[AxisTile],
    cached_x: bool,
    cached_y: bool,
) -> _Plan:
    """Where caches and weights live: consistent over all tiles.

    A horizontal cache lies where the tile that reads it wants it, the vertical cache where the last tile
    wants it: the first tile of a row and of a map is the one without overlap, so its maps are larger, and
    they spill while the cache stays. Weights lie where the most demanding tile wants them (DeFiNES).
    """
    acc, network = self.accelerator, self.network
    weight_bits = sum(network.layers[p].weight_elements for p in stack.layers) * acc.weight_bits
    chain = acc.chain("W")
    horizontal: list[list[int]] = []
    vertical, weights = -1, -1
    live = cached = 0
    for row in rows:
        wanted = []
        for column in columns:
            needs: Demand = demand(network, stack, acc, row, column, self._widths)
            h = v = None
            if cached_x:
                h, v = cache_levels(acc, needs if cached_y else replace(needs, cache_v=0, cache_both=0))
                wanted.append(h)
                if cached_y:
                    vertical = v
            w = weight_level(acc, weight_bits, needs, h, v if cached_y else None)
            weights = w if weights < 0 or chain.index(w) > chain.index(weights) else weights
            live = max(live, needs.live)
            cached = max(
                cached,
                (needs.live_h - needs.live if cached_x else 0)
                + (needs.cache_v - needs.cache_both if cached_y else 0),
            )
        for i in range(len(wanted) - 1):
            wanted[i] = wanted[i + 1]
        horizontal.append(wanted)
    inside = set(stack.layers)
    read = frozenset(p for p in stack.layers if any(c in inside for c in network.consumers[p]))
    return _Plan(
        rows, columns, cached_x, cached_y, horizontal, vertical, weights, weight_bits, live, cached, read
    )
