"""Several devices of one library, on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hwnas.cli.output import print_table

if TYPE_CHECKING:
    from hwnas.compress.emit.cross_device import Comparison, OnDevice


def show_comparison(comparison: Comparison, report: Path | None) -> None:
    """The table "best for A, run on B", and where the report lies."""
    from rich.table import Table

    if comparison.fronts:
        title = (
            "best for A, run on B: cost / reference there (more than the cheapest known at no higher loss)"
        )
        table = Table(title=title, title_justify="left")
        table.add_column("best for")
        table.add_column("choices", no_wrap=True)
        for front in comparison.fronts:
            table.add_column(f"on {front.device}", justify="right")
        for pick in comparison.picked:
            rules = [f"{name}: {', '.join(rules)}" for name, rules in pick.best_for.items()]
            cells = [_cell(pick.on[front.device]) for front in comparison.fronts]
            table.add_row("\n".join(rules), "-".join(map(str, pick.choices)), *cells)
        print_table(table)
    if report is not None:
        typer.echo(f"report of all devices: {report}")


def _cell(here: OnDevice) -> str:
    if here.cost_ratio is None:
        return f"– ({here.reason})"
    return f"{here.cost_ratio:.3f} (+{here.excess or 0.0:.1%})"


COLUMNS = ("reference", "checkpoint", "latency / reference", "quality", "k params")


def checkpoint_rows(done: dict[str, Any]) -> list[list[str]]:
    """A row for each network that a plan emitted, over all references."""
    from hwnas.compress.tasks.task import Metric, quantity
    from hwnas.files import decode
    from hwnas.measurement import Interval

    rows = []
    for reference in done["references"]:
        for checkpoint in _checkpoints_of(reference["result"]):
            metric = decode(Metric, checkpoint["metric"], "the result")
            accuracy = checkpoint["accuracy"]
            known = None if accuracy is None else decode(Interval, accuracy, "the result")
            rows.append(
                [
                    reference["model"],
                    checkpoint["path"],
                    f"{checkpoint['latency_ratio']['value']:.3f}",
                    f"{metric.name} {quantity(known, metric)}",
                    f"{checkpoint['params'] / 1e3:.0f}",
                ]
            )
    return rows


def show_batch(done: dict[str, Any]) -> None:
    """What a plan emitted, and where the report lies."""
    from rich.table import Table

    table = Table(title="checkpoints", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    for row in checkpoint_rows(done):
        table.add_row(*row)
    print_table(table)
    if done["report"]:
        typer.echo(f"report: {done['report']}")


def _checkpoints_of(result: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The checkpoints in what `hwnas compress --json` prints."""
    if result is None:
        return []
    return [each for device in result["devices"].values() for each in device["checkpoints"]]
