"""A schedule in plain text: which layers are fused, what each tile holds, where the off-chip bytes go."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.devices.simulator.result import Result, StackRow

# Width of the bar that compares off-chip traffic; operators named of one stack.
BAR, SHOWN = 24, 8


COLUMNS = ("ms", "Mcycles", "mJ", "DRAM read", "written", "on chip", "array", "time", "energy")
"""Of `schedule_rows`, behind the schedule's name."""


def schedule_rows(chosen: Result, others: Mapping[str, Result]) -> list[list[str]]:
    """Return a row for each schedule of a network: its name, then the figures that `COLUMNS` names.

    Args:
        chosen: time and energy of the others are ratios to it.
        others: by name, such as layer-by-layer and single-layer.
    """
    return [_row(name, result, chosen) for name, result in {"chosen": chosen, **others}.items()]


def _row(name: str, result: Result, base: Result) -> list[str]:
    slower = result.latency_cycles / base.latency_cycles if base.latency_cycles else 1.0
    dearer = result.energy_mj / base.energy_mj if base.energy_mj else 1.0
    return [
        name,
        f"{result.latency_ms:.3f}",
        f"{result.latency_cycles / 1e6:.3f}",
        f"{result.energy_mj:.3f}",
        size(result.dram_read_bytes),
        size(result.dram_write_bytes),
        size(result.peak_onchip_bytes),
        f"{result.utilisation:.0%}",
        f"{slower:.2f}x",
        f"{dearer:.2f}x",
    ]


def explain(chosen: Result) -> str:
    """Return the stacks of a schedule in plain text."""
    lines = []
    if chosen.charged:
        lines += [
            f"charged as copies through memory, not known: {', '.join(sorted(set(chosen.charged)))}",
            "",
        ]
    most = max((stack.dram_bytes for stack in chosen.stacks), default=0.0)
    for number, stack in enumerate(chosen.stacks, 1):
        lines += _stack(number, stack, most)
    return "\n".join(lines)


def _stack(number: int, stack: StackRow, most: float) -> list[str]:
    inner = [row for row in stack.layers if row.name != "input" and not row.name.startswith("input ")]
    first, last = (inner[0], inner[-1]) if inner else (stack.layers[0], stack.layers[-1])
    title = first.name if first is last else f"{first.name} .. {last.name}"
    tiled = "whole maps"
    if stack.tiles > 1:
        shape = f"{stack.tile_cols} x {stack.tile_rows}"
        tiled = f"{stack.tiles} tiles of {shape}, {stack.mode.replace('_', '-')}"
    shown = "-".join(row.op or row.name for row in inner[:SHOWN]) + ("-..." if len(inner) > SHOWN else "")
    source = "on chip" if stack.input_on_chip else "DRAM"
    target = "on chip" if stack.output_on_chip else "DRAM"
    maps, overlaps, weights = (size(b) for b in (stack.live_bytes, stack.cache_bytes, stack.weight_bytes))
    needed = f"maps {maps}, overlaps {overlaps}, weights {weights}"
    bar = "#" * round(BAR * stack.dram_bytes / most) if most else ""
    return [
        f"[{number}] {title} ({len(inner)} layers): {tiled}",
        f"     {source} -> {shown} -> {target}",
        f"     needs {needed}; {stack.cycles / 1e3:.1f} kcycles, {stack.energy_pj / 1e6:.1f} uJ",
        f"     DRAM {size(stack.dram_bytes):>10} {bar}".rstrip(),
    ]


def size(n_bytes: float) -> str:
    """Bytes in the unit that reads best."""
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.2f} {unit}"
    return f"{n_bytes:.0f} B"
