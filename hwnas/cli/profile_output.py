"""What `hwnas profile` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import typer

from hwnas.cli.output import print_json, print_table

if TYPE_CHECKING:
    from hwnas.measurement import Layer

Format = Literal["table", "json", "csv", "markdown"]


def show(rows: Sequence[dict[str, Any]], form: Format) -> None:
    """Print the rows in a form."""
    from hwnas.profiles.profile_rows import as_csv, as_markdown

    match form:
        case "json":
            print_json(list(rows))
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


def show_blocks(plain: dict[str, Any]) -> None:
    """Print the blocks and how wrong their sum is."""
    from rich.markup import escape
    from rich.table import Table

    from hwnas.profiles.parts import describe_sum

    table = Table(title=f"{escape(plain['model'])}: each part alone", title_justify="left")
    table.add_column("part")
    table.add_column("median ms", justify="right")
    for name, latency_ms in plain["blocks_ms"].items():
        table.add_row(escape(name), "failed" if latency_ms is None else f"{latency_ms:.3f}")
    print_table(table)
    told = describe_sum(plain)
    if told:
        typer.echo(told)


def _show_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

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
    for row in rows:
        if "failure" in row:
            table.add_row(escape(row["model"]), "failed")
            continue
        known, measurement = row["summary"], row["measurement"]
        latency, memory = known["latency_ms"], known["peak_memory_bytes"]
        nodes = [f"{sum(ops.values())} on {unit}" for unit, ops in measurement["placement"].items()]
        cells = [
            f"{latency['value']:.3f}",
            f"{latency['low']:.3f} … {latency['high']:.3f}",
            f"{known['p90_ms']:.3f}",
            f"{known['p99_ms']:.3f}",
            f"{known['spread']:.1%}",
            f"{known['repeats']} × {known['runs'] // known['repeats']}",
            f"{known['first_run_ms']:.3f}",
            "–" if memory is None else f"{memory / 2**20:.0f}",
            measurement["kind"],
            escape(", ".join(nodes) or "–"),
        ]
        table.add_row(escape(row["model"]), *cells)
    print_table(table)
    for row in rows:
        if "summary" in row and len(rows) <= 12:
            rate = row["summary"]["throughput_per_s"]
            typer.echo(f"{row['model']}: {row['summary']['ending']}; {rate:.1f} images/s")
