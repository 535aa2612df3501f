"""Running sums of what the layers and copies of a stack cost."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.devices.simulator.detailed.copies import CopyCost
from hwnas.devices.simulator.detailed.mapper import TileCost
from hwnas.devices.simulator.detailed.stacks import Stack


@dataclass
class Account:
    """A running sum for one layer."""

    energy_pj: float = 0.0
    cycles: float = 0.0
    dram_read_bits: float = 0.0
    dram_write_bits: float = 0.0
    iterations: int = 0

    def add_tile(self, cost: TileCost, count: int, iterations: int) -> None:
        """Add a layer tile that occurs a number of times."""
        self.energy_pj += cost.energy_pj * count
        self.cycles += cost.latency_cycles * count
        self.dram_read_bits += cost.dram_read_bits * count
        self.dram_write_bits += cost.dram_write_bits * count
        self.iterations += iterations * count

    def add_copy(self, cost: CopyCost, count: int) -> None:
        """Add copies that occur a number of times."""
        self.energy_pj += cost.energy_pj * count
        self.cycles += cost.cycles * count
        self.dram_read_bits += cost.dram_read_bits * count
        self.dram_write_bits += cost.dram_write_bits * count


@dataclass(frozen=True)
class StackCost:
    """What one stack costs.

    Attributes:
        copies, layers: accounts of the copies before, and of the loop nest of, every layer or source.
        live_bits, cache_bits: what the largest tile keeps on chip: live maps; overlap caches.
        weight_memory: index of the memory that holds the stack's weights.
    """

    stack: Stack
    mode: str
    tile: tuple[int, int]
    tiles: int
    copies: dict[int, Account]
    layers: dict[int, Account]
    live_bits: int
    cache_bits: int
    weight_bits: int
    weight_memory: int
