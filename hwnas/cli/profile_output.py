"""What `hwnas profile` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import typer

from hwnas.cli.output import print_json, print_table

if TYPE_CHECKING:
    from hwnas.measurement import Layer
    from hwnas.profiles.parts import PartsTimes
    from hwnas.profiles.profile_rows import Profiled

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
    from rich.markup import escape
    from rich.table import Table

    from hwnas.profiles.profile_rows import operator_table

    table = Table(title=f"{escape(model)}: operators, timed one by one", title_justify="left")
    table.add_column("operator")
    table.add_column("unit")
    for column in ("nodes", "ms together", "share"):
        table.add_column(column, justify="right")
    lines = operator_table(layers)
    total = sum(time_ms or 0.0 for *_, time_ms in lines)
    for operator, unit, nodes, time_ms in lines:
        share = "–" if time_ms is None or not total else f"{time_ms / total:.1%}"
        table.add_row(
            escape(operator), escape(unit), str(nodes), "–" if time_ms is None else f"{time_ms:.3f}", share
        )
    print_table(table)


def show_blocks(parts: PartsTimes) -> None:
    """Print the blocks and how wrong their sum is."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(parts.model)}: each part alone", title_justify="left")
    table.add_column("part")
    table.add_column("median ms", justify="right")
    for name, latency_ms in parts.latencies_ms.items():
        table.add_row(escape(name), "failed" if latency_ms is None else f"{latency_ms:.3f}")
    print_table(table)
    told = parts.describe()
    if told:
        typer.echo(told)


def _show_table(rows: Sequence[Profiled]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hwnas.measurement import Measurement
    from hwnas.profiles.profile_rows import figures

    table = Table()
    table.add_column("network", no_wrap=True)
    for column in (
        "median ms",
        "95 % interval",
        "p90 ms",
        "p99 ms",
        "spread",
        "runs",
        "first run ms",
        "MiB",
        "kind",
    ):
        table.add_column(column, justify="right")
    table.add_column("nodes")
    told = []
    for row in rows:
        if not isinstance(row.result, Measurement):
            table.add_row(escape(row.model), "failed")
            continue
        known = figures(row.result)
        memory = known.peak_memory_bytes
        nodes = [f"{sum(ops.values())} on {unit}" for unit, ops in row.result.placement.items()]
        cells = [
            f"{known.latency_ms.value:.3f}",
            known.interval,
            f"{known.p90_ms:.3f}",
            f"{known.p99_ms:.3f}",
            f"{known.spread:.1%}",
            known.amount,
            f"{known.first_run_ms:.3f}",
            "–" if memory is None else f"{memory / 2**20:.0f}",
            row.result.kind,
            escape(", ".join(nodes) or "–"),
        ]
        table.add_row(escape(row.model), *cells)
        told.append(f"{row.model}: {known.ending}; {known.throughput_per_s:.1f} images/s")
    print_table(table)
    if len(rows) <= 12:
        typer.echo("".join(f"{line}\n" for line in told), nl=False)
