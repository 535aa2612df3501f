"""What `hwnas profile` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import typer

from hwnas.cli.output import print_json
from hwnas.cli.tables import Column, figures, print_table, print_text

if TYPE_CHECKING:
    from hwnas.devices.simulator.result import Result
    from hwnas.measurement import Layer
    from hwnas.profiles.parts import PartsTimes
    from hwnas.profiles.profile_rows import Profiled

COLUMNS = (
    Column(name="network"),
    *figures("median ms", "95 % interval"),
    *figures("p90 ms", "p99 ms", rank=3),
    *figures("spread", "runs", rank=1),
    *figures("first run ms", "MiB", rank=5),
    Column(name="kind", kind="name", rank=7),
    Column(name="nodes", rank=8),
)

Format = Literal["table", "json", "csv", "markdown"]


def show(rows: Sequence[Profiled], form: Format) -> None:
    """Print the rows in a form."""
    from hwnas.profiles.profile_rows import as_csv, as_markdown

    match form:
        case "json":
            print_json([row.to_json() for row in rows])
        case "csv":
            typer.echo(as_csv(rows), nl=False)
        case "markdown":
            typer.echo(as_markdown(rows), nl=False)
        case "table":
            _show_table(rows)


def show_layers(model: str, layers: Sequence[Layer]) -> None:
    """Print the operators with their times, the slowest first."""
    from hwnas.profiles.profile_rows import operator_table

    lines = operator_table(layers)
    total = sum(time_ms or 0.0 for *_, time_ms in lines)
    rows = []
    for operator, unit, nodes, time_ms in lines:
        share = "–" if time_ms is None or not total else f"{time_ms / total:.1%}"
        rows.append([operator, unit, str(nodes), "–" if time_ms is None else f"{time_ms:.3f}", share])
    columns = [
        Column(name="operator"),
        Column(name="unit", rank=2),
        *figures("nodes", rank=1),
        *figures("ms together", "share"),
    ]
    print_table(columns, [rows], f"\n{model}: operators, timed one by one")


def show_blocks(parts: PartsTimes) -> None:
    """Print the blocks and how wrong their sum is."""
    told = parts.describe()
    if told:
        print_text(f"\n{told}")
    rows = [
        [name, "failed" if latency_ms is None else f"{latency_ms:.3f}"]
        for name, latency_ms in parts.latencies_ms.items()
    ]
    print_table([Column(name="part"), *figures("median ms")], [rows], f"\n{parts.model}: each part alone")


def show_schedules(chosen: Result, others: Mapping[str, Result]) -> None:
    """Print a schedule beside others, and which layers it fuses."""
    from hwnas.devices.simulator import explain
    from hwnas.devices.simulator.explanation import COLUMNS, schedule_rows

    columns = [
        Column(name="schedule"),
        *figures("ms"),
        *figures(*COLUMNS[1:-2], rank=2),
        *figures("time"),
        *figures("energy", rank=1),
    ]
    title = f"\n{chosen.network} on {chosen.accelerator}, figures of the {chosen.model} model"
    print_table(columns, [schedule_rows(chosen, others)], title)
    print_text(f"\n{explain(chosen)}")


def _show_table(rows: Sequence[Profiled]) -> None:
    from hwnas.measurement import Measurement
    from hwnas.profiles import profile_rows

    cells, told = [], []
    for row in rows:
        if not isinstance(row.result, Measurement):
            cells.append([row.model, "failed", *[""] * (len(COLUMNS) - 2)])
            continue
        known = profile_rows.figures(row.result)
        memory = known.peak_memory_bytes
        nodes = [f"{sum(ops.values())} on {unit}" for unit, ops in row.result.placement.items()]
        median = f"{known.latency_ms.value:.3f}"
        cells.append(
            [
                row.model,
                median,
                known.interval,
                f"{known.p90_ms:.3f}",
                f"{known.p99_ms:.3f}",
                f"{known.spread:.1%}",
                known.amount,
                f"{known.first_run_ms:.3f}",
                "–" if memory is None else f"{memory / 2**20:.0f}",
                row.result.kind,
                ", ".join(nodes) or "–",
            ]
        )
        told.append(
            f"{row.model}: {median} ms ({known.interval}), {known.throughput_per_s:.1f} images/s; "
            f"{known.ending}"
        )
    if len(rows) <= 12:
        for line in told:
            print_text(line)
    print_table(COLUMNS, [cells])
