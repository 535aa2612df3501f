"""What a simulation returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hwnas.devices.simulator.accelerator import Accelerator

Model = Literal["detailed", "closed-form"]
MODELS: tuple[Model, ...] = ("detailed", "closed-form")


@dataclass(frozen=True)
class LayerRow:
    """One layer (or a stack's input) in a schedule; copies before it are included.

    Attributes:
        cycles, energy_pj: all tiles together.
        dram_read_bytes, dram_write_bytes: off-chip traffic of the layer and its copies.
        iterations: of the loop nest, what is computed twice counted twice.
    """

    name: str
    op: str
    cycles: float
    energy_pj: float
    dram_read_bytes: float
    dram_write_bytes: float
    iterations: int


@dataclass(frozen=True)
class StackRow:
    """Layers that are worked through tile by tile.

    Attributes:
        tile_cols, tile_rows, tiles: tile of the last layer's output and their number.
        live_bytes, cache_bytes, weight_bytes: what one tile has to hold: maps, overlaps, weights. Maps that
            are larger than the memories on chip spill.
        input_on_chip, output_on_chip: whether the map before, after the stack never leaves the chip.
    """

    layers: tuple[LayerRow, ...]
    mode: str
    tile_cols: int
    tile_rows: int
    tiles: int
    live_bytes: int
    cache_bytes: int
    weight_bytes: int
    input_on_chip: bool = False
    output_on_chip: bool = False

    @property
    def cycles(self) -> float:
        """Cycles of the whole stack."""
        return sum(row.cycles for row in self.layers)

    @property
    def energy_pj(self) -> float:
        """Energy of the whole stack."""
        return sum(row.energy_pj for row in self.layers)

    @property
    def dram_bytes(self) -> float:
        """Off-chip bytes of the whole stack, both ways."""
        return sum(row.dram_read_bytes + row.dram_write_bytes for row in self.layers)


def peak_onchip_bytes(stacks: Iterable[StackRow], accelerator: Accelerator) -> int:
    """Most bytes on chip at once; what does not fit there is off chip. Weights of a single tile stream."""
    for_maps, for_weights = accelerator.on_chip_bytes("I", "O"), accelerator.on_chip_bytes("W")
    return max(
        min(stack.live_bytes + stack.cache_bytes, for_maps)
        + (min(stack.weight_bytes, for_weights) if stack.tiles > 1 else 0)
        for stack in stacks
    )


@dataclass(frozen=True)
class Result:
    """Cost of one network with one schedule on one accelerator.

    Attributes:
        macs: multiply-accumulates of the network, whatever the schedule.
        iterations: of all loop nests: pooling, element-wise layers and what is computed twice included.
        utilisation: useful multiply-accumulates over those the array could have done in the time.
        peak_onchip_bytes: most bytes of maps, overlap caches and resident weights at once.
        model: which model the figures come from.
        charged: unknown operators that were charged as copies.
    """

    network: str
    accelerator: str
    latency_cycles: float
    latency_ms: float
    energy_mj: float
    dram_read_bytes: int
    dram_write_bytes: int
    peak_onchip_bytes: int
    macs: int
    iterations: int
    utilisation: float
    model: Model = "detailed"
    stacks: tuple[StackRow, ...] = ()
    charged: tuple[str, ...] = ()

    @property
    def dram_bytes(self) -> int:
        """Off-chip bytes both ways."""
        return self.dram_read_bytes + self.dram_write_bytes

    @property
    def layers(self) -> tuple[LayerRow, ...]:
        """All layers in schedule order."""
        return tuple(row for stack in self.stacks for row in stack.layers)
