"""From a layer tile to the arguments of the loop-order search, with a memo of what was searched before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from hwnas.devices.simulator.accelerator import BANK_BITS, DIMENSIONS, Accelerator
from hwnas.devices.simulator.detailed.loop_nest import (
    CYCLES,
    DRAM_READ_BITS,
    DRAM_WRITE_BITS,
    ENERGY,
    FOUND,
    LOAD,
    LOOPS,
    MAX_LEVELS,
    OPERANDS,
    STALL,
    Hardware,
    I,
    Nest,
    O,
    W,
    Windows,
)
from hwnas.devices.simulator.detailed.loop_order import best_order
from hwnas.devices.simulator.layers import Layer

# How finely a loop nest is cut for the search: at most this many loop factors, merged smallest first.
# Six give at most 720 orders; eight change the reference case 4 x 72 by nothing.
LOOP_FACTORS = 6


@dataclass(frozen=True)
class TileCost:
    """What one layer tile costs on the array, copies between memories apart.

    Attributes:
        cycles: array cycles, spatial under-utilisation included.
        stall_cycles: cycles lost because ports cannot deliver in time.
        load_cycles: first loads before the array can start.
        dram_read_bits, dram_write_bits: off-chip traffic of operands whose chain reaches the off-chip memory.
    """

    energy_pj: float
    cycles: float
    stall_cycles: float
    load_cycles: float
    dram_read_bits: float
    dram_write_bits: float

    @property
    def latency_cycles(self) -> float:
        """Cycles from the first load to the last result."""
        return self.cycles + self.stall_cycles + self.load_cycles


def unrolling(
    accelerator: Accelerator, layer: Layer, tile: Mapping[str, int]
) -> list[tuple[str, str, float]]:
    """How a layer tile spreads over the array: (array dimension, layer dimension, average unrolling).

    Array dimension K takes the groups of a layer that has one channel per group (depthwise, pooling,
    element-wise). A dimension that is no multiple of the array size is spread evenly over ceil(n / u)
    steps, so the average unrolling is n / ceil(n / u) (ZigZag's greedy mapping).
    """
    forced = dict(layer.spatial)
    spread = []
    for dim, size in accelerator.unroll:
        target = "G" if dim == "K" and layer.k == 1 and layer.g > 1 else dim
        if dim in ("OX", "OY") and layer.ox == 1 and layer.oy > 1:
            # A map of one column (tokens) spreads its rows over both spatial axes of the array.
            lanes = prod(s for d, s in accelerator.unroll if d in ("OX", "OY"))
            if dim == next(d for d, _ in accelerator.unroll if d in ("OX", "OY")):
                spread.append((dim, "OY", tile["OY"] / ceil(tile["OY"] / lanes)))
            continue
        if dim == "C" and layer.c == 1 and layer.g > 1:
            continue
        limit = min(size, forced[target]) if target in forced else (1 if forced else size)
        steps = ceil(tile[target] / limit)
        spread.append((dim, target, tile[target] / steps))
    return spread


def loop_factors(sizes: Mapping[str, int], limit: int = LOOP_FACTORS) -> list[tuple[int, int]]:
    """Prime factors of the temporal loops as (dimension index, size), merged down to a limit.

    While there are too many, the dimension with most factors has its two smallest merged (LOMA).
    """
    factors = {dim: _primes(size) for dim, size in sizes.items()}
    while sum(len(f) for f in factors.values()) > limit:
        longest = max(factors, key=lambda d: len(factors[d]))
        if len(factors[longest]) < 2:
            break
        first, second, *rest = factors[longest]
        factors[longest] = sorted([first * second, *rest])
    return [(DIMENSIONS.index(dim), f) for dim, fs in factors.items() for f in fs]


def _primes(n: int) -> list[int]:
    found = []
    p = 2
    while p * p <= n:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return [*found, n] if n > 1 else found


@dataclass
class Mapper:
    """Searches loop orders on one accelerator and remembers the results.

    Args:
        fastest_tie: among loop orders of equal energy take the fastest. The reference keeps the first it
            meets; so does False, visiting orders as the reference does.
        loop_factor_limit: how finely loop nests are cut; see LOOP_FACTORS.
    """

    accelerator: Accelerator
    fastest_tie: bool = False
    loop_factor_limit: int = LOOP_FACTORS
    _memo: dict[tuple[object, ...], TileCost | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        memories = self.accelerator.memories
        self._hardware = Hardware(
            size=np.array([m.size_bits for m in memories], dtype=np.float64),
            read_bits=np.array([m.read_bits_per_cycle for m in memories], dtype=np.float64),
            write_bits=np.array([m.write_bits_per_cycle for m in memories], dtype=np.float64),
            read_pj=np.array([m.read_pj for m in memories], dtype=np.float64),
            write_pj=np.array([m.write_pj for m in memories], dtype=np.float64),
            ports=np.array([m.ports for m in memories], dtype=np.int64),
            bank_bits=BANK_BITS,
            mac_pj=self.accelerator.mac_pj,
        )

    def cost(self, layer: Layer, tile: Mapping[str, int], tops: tuple[int, int, int]) -> TileCost | None:
        """Cost of one layer tile.

        Args:
            tile: extents of the seven dimensions in this tile.
            tops: outermost memory (its index) in use for outputs, weights and inputs.

        Returns:
            the cheapest order's cost, or None where the tile does not fit the memories.
        """
        two_maps = len(layer.inputs) > 1 and (layer.kind == "elementwise" or layer.second is not None)
        weightless = layer.kind in ("elementwise", "copy") and not two_maps
        weight_bits = self.accelerator.weight_bits if layer.kind in ("conv", "matmul") else 0
        if two_maps:
            weight_bits = self.accelerator.activation_bits
        forced = layer.spatial
        key = (
            *(tile[d] for d in DIMENSIONS),
            layer.k,
            layer.g,
            layer.c == 1,
            layer.stride_y,
            layer.stride_x,
            layer.dilation_y,
            layer.dilation_x,
            layer.fy == 1,
            layer.fx == 1,
            two_maps,
            weightless,
            weight_bits,
            tops,
            forced,
        )
        if key not in self._memo:
            self._memo[key] = self._search(layer, tile, tops, two_maps, weightless, weight_bits)
        return self._memo[key]

    def _search(
        self,
        layer: Layer,
        tile: Mapping[str, int],
        tops: tuple[int, int, int],
        two_maps: bool,
        weightless: bool,
        weight_bits: int,
    ) -> TileCost | None:
        acc = self.accelerator
        chains = [acc.chain("O"), acc.chain("I") if two_maps else acc.chain("W"), acc.chain("I")]
        tops = (tops[O], tops[I] if two_maps else tops[W], tops[I])
        spread = unrolling(acc, layer, tile)
        unroll = np.ones(LOOPS)
        for _, dim, size in spread:
            unroll[DIMENSIONS.index(dim)] = size
        nlev = np.zeros(OPERANDS, dtype=np.int64)
        levels = np.zeros((OPERANDS, MAX_LEVELS), dtype=np.int64)
        mem_level = np.full((len(acc.memories), OPERANDS), -1, dtype=np.int64)
        placed_at = np.zeros((OPERANDS, LOOPS), dtype=np.int64)
        for op, chain in enumerate(chains):
            for array_dim, dim, _ in spread:
                level = next((i for i, m in enumerate(chain) if array_dim in acc.served(m)), len(chain))
                placed_at[op, DIMENSIONS.index(dim)] = level
            if op == W and weightless:
                continue
            for m in chain[: chain.index(tops[op]) + 1]:
                levels[op, nlev[op]] = m
                mem_level[m, op] = nlev[op]
                nlev[op] += 1
        temporal = {}
        for dim in DIMENSIONS:
            steps = ceil(tile[dim] / unroll[DIMENSIONS.index(dim)] - 1e-9)
            if steps > 1:
                temporal[dim] = steps
        factors = loop_factors(temporal, self.loop_factor_limit)
        macs = 1.0
        for dim in DIMENSIONS:
            macs *= tile[dim]
        nest = Nest(
            fdim=np.array([d for d, _ in factors], dtype=np.int64),
            fsize=np.array([s for _, s in factors], dtype=np.int64),
            unroll=unroll,
            placed_at=placed_at,
            nlev=nlev,
            levels=levels,
            mem_level=mem_level,
            precision=np.array(
                [acc.activation_bits, weight_bits, acc.activation_bits, acc.partial_sum_bits],
                dtype=np.float64,
            ),
            windows=Windows(
                *(layer.stride_y, layer.stride_x, layer.dilation_y, layer.dilation_x),
                flat=layer.kind in ("elementwise", "copy"),
                one_row=layer.fy == 1,
                one_column=layer.fx == 1,
            ),
            macs=macs,
        )
        return _tile_cost(best_order(nest, self._hardware, self.fastest_tie))


def _tile_cost(row: NDArray[np.float64]) -> TileCost | None:
    if row[FOUND] == 0.0:
        return None
    return TileCost(
        energy_pj=float(row[ENERGY]),
        cycles=float(row[CYCLES]),
        stall_cycles=float(row[STALL]),
        load_cycles=float(row[LOAD]),
        dram_read_bits=float(row[DRAM_READ_BITS]),
        dram_write_bits=float(row[DRAM_WRITE_BITS]),
    )
