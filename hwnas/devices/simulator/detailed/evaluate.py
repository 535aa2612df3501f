"""The detailed simulator: a given schedule, with the loop order of every layer tile searched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwnas.devices.simulator.accelerator import Accelerator, check_weights
from hwnas.devices.simulator.detailed.evaluator import Evaluator
from hwnas.devices.simulator.detailed.mapper import Mapper
from hwnas.devices.simulator.detailed.reference import reference_accelerator, reference_network
from hwnas.devices.simulator.detailed.stacks import automatic_cuts, cut_stacks
from hwnas.devices.simulator.detailed.traffic import Account, StackCost
from hwnas.devices.simulator.forced import WHOLE, mode_name
from hwnas.devices.simulator.layers import Network, no_layers
from hwnas.devices.simulator.result import LayerRow, Result, StackRow, peak_onchip_bytes
from hwnas.errors import InputError


def evaluate(
    network: Network,
    accelerator: Accelerator,
    *,
    mode: str = "fully_cached",
    tile: tuple[int, int] | None = None,
    cuts: Iterable[int] | None = None,
    mapper: Mapper | None = None,
) -> Result:
    """Cost of a network with a given schedule, in the detailed model.

    Sources: tiles, overlaps, placement and copies follow DeFiNES (Mei et al., HPCA 2023); loop orders,
    accesses and stalls ZigZag (Mei et al., IEEE TC 2021, DATE 2022) and LOMA (Symons et al., AICAS 2021).

    Args:
        mode: "fully-recompute", "h-cached-v-recompute", "fully-cached"; "layer-by-layer" takes every map
            in one piece, "single-layer" also cuts after every layer. Underscores are accepted too.
        tile: (columns, rows) of the last layer's output of every stack; None or larger than the map means
            the whole map, which is what the last two modes mean without a tile.
        cuts: positions of the stacks' last layers; None cuts where a stack's weights no longer fit the
            largest on-chip weight memory; () makes one stack. Ignored by "single-layer".
        mapper: a mapper to share between calls on the same accelerator: it remembers searched tiles.

    Raises:
        InputError: an unknown mode, a cut that is no layer, a tile below 1, a layer or weights that fit no
            memory, a network without layers.
    """
    spelled = mode_name(mode)
    if not network.layers:
        raise no_layers()
    if mapper is None:
        mapper = Mapper(accelerator)
    elif mapper.accelerator != accelerator:
        raise InputError("the mapper belongs to another accelerator", "make one with Mapper(accelerator)")
    size = tile if tile is not None else (WHOLE, WHOLE)
    if spelled == "single_layer":
        positions: tuple[int, ...] = tuple(range(len(network.layers) - 1))
    else:
        positions = automatic_cuts(network, accelerator) if cuts is None else tuple(cuts)
    if spelled in ("single_layer", "layer_by_layer"):
        spelled = "fully_recompute"
    check_weights(
        accelerator, sum(layer.weight_elements for layer in network.layers) * accelerator.weight_bits
    )
    evaluator = Evaluator(accelerator, network, mapper)
    costs = [evaluator.stack(stack, spelled, size) for stack in cut_stacks(network, positions)]
    return _result(network, accelerator, costs)


def evaluate_reference(
    accelerator: Accelerator | Mapping[str, Any],
    layer_list: Sequence[Mapping[str, Any]],
    *,
    mode: str,
    tile: tuple[int, int] | Sequence[int] | None = None,
    stack_cuts: Iterable[int | str] | str | None = None,
    padded: bool = False,
    name: str = "workload",
    mapper: Mapper | None = None,
) -> Result:
    """Cost of a workload in the form of the DeFiNES reference file.

    Args:
        accelerator: an accelerator, or one entry of the file's `accelerators`.
        layer_list: `workloads[...]["layer_list"]`.
        mode: as for evaluate; the file's `mode` of a case.
        tile: (columns, rows), the file's `tile`.
        stack_cuts: layer ids after which a stack ends (the file's `stack_cuts`); None or "auto" for the
            automatic cuts, () for one stack.
        padded: False takes the file's convention: no zero padding, maps grow backwards from the output.
        mapper: as for evaluate.

    Returns:
        a Result whose rows are named by layer ids; energy_mj is the file's energy_uJ / 1000.

    Raises:
        InputError: a description that cannot work, an unknown kind of layer, mode or cut.
    """
    if isinstance(accelerator, Mapping):
        accelerator = reference_accelerator(str(accelerator.get("name", "reference")), accelerator)
    network = reference_network(layer_list, name, padded=padded)
    position = {layer.name: i for i, layer in enumerate(network.layers)}
    cuts: tuple[int, ...] | None = None
    if stack_cuts is not None and not isinstance(stack_cuts, str):
        wanted = [str(c) for c in stack_cuts]
        unknown = [c for c in wanted if c not in position]
        if unknown:
            raise InputError(
                f"stack cut {unknown[0]} is no layer of {name}",
                f"use layer ids such as {network.layers[0].name}",
            )
        cuts = tuple(position[c] for c in wanted)
    elif isinstance(stack_cuts, str) and not stack_cuts.startswith("auto"):
        raise InputError(f"stack_cuts = {stack_cuts!r} is unknown", 'give layer ids, or "auto"')
    size = (int(tile[0]), int(tile[1])) if tile is not None else None
    return evaluate(network, accelerator, mode=mode, tile=size, cuts=cuts, mapper=mapper)


def _result(network: Network, accelerator: Accelerator, costs: Sequence[StackCost]) -> Result:
    stacks = tuple(_stack_row(network, accelerator, cost) for cost in costs)
    rows = [row for stack in stacks for row in stack.layers]
    cycles = sum(row.cycles for row in rows)
    macs = network.macs * accelerator.batch
    return Result(
        network.name,
        accelerator.name,
        cycles,
        cycles / (accelerator.clock_mhz * 1e3),
        sum(row.energy_pj for row in rows) / 1e9,
        round(sum(row.dram_read_bytes for row in rows)),
        round(sum(row.dram_write_bytes for row in rows)),
        peak_onchip_bytes(stacks, accelerator),
        macs,
        sum(row.iterations for row in rows),
        macs / (cycles * accelerator.multipliers) if cycles else 0.0,
        "detailed",
        stacks,
        network.charged,
    )


def _stack_row(network: Network, accelerator: Accelerator, cost: StackCost) -> StackRow:
    rows = []
    for position in (*cost.stack.sources, *cost.stack.layers):
        copies = cost.copies.get(position, Account()) if position in cost.copies else Account()
        inside = position in cost.stack.layers
        own = cost.layers.get(position, Account()) if inside else Account()
        layer = network.layers[position] if position >= 0 else None
        label = (
            (layer.name if layer is not None else "input")
            if inside or layer is None
            else f"input {layer.name}"
        )
        rows.append(
            LayerRow(
                label,
                layer.op if layer is not None and inside else "",
                copies.cycles + own.cycles,
                copies.energy_pj + own.energy_pj,
                (copies.dram_read_bits + own.dram_read_bits) / 8,
                (copies.dram_write_bits + own.dram_write_bits) / 8,
                own.iterations,
            )
        )
    return StackRow(
        tuple(rows),
        cost.mode if cost.tiles > 1 else "whole_maps",
        cost.tile[0],
        cost.tile[1],
        cost.tiles,
        cost.live_bits // 8,
        cost.cache_bits // 8,
        cost.weight_bits // 8,
    )
