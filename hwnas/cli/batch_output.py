"""Several devices of one library, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hwnas.cli.output import print_table

if TYPE_CHECKING:
    from hwnas.compress.emit.cross_device import Comparison, OnDevice
    from hwnas.compress.emit.summary import Summary


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


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What a `hwnas compress` of a plan did.

    Attributes:
        result: what its `--json` printed; None where that was nothing.
    """

    model: str
    run: str
    exit_code: int
    result: dict[str, Any] | None

    @property
    def checkpoints(self) -> list[tuple[str, Summary]]:
        """The folders of those that it names, and what these say."""
        from hwnas.compress.emit.summary import CheckpointRecord

        devices = self.result["devices"].values() if self.result else ()
        paths = [checkpoint["path"] for device in devices for checkpoint in device["checkpoints"]]
        return [(path, CheckpointRecord.read(Path(path)).summary) for path in paths]


def checkpoint_rows(runs: Sequence[PlannedRun]) -> list[list[str]]:
    """A row for each network that a plan emitted, over all references."""
    from hwnas.compress.tasks.task import quantity

    return [
        [
            each.model,
            path,
            f"{summary.latency_ratio.value:.3f}",
            f"{summary.metric.name} {quantity(summary.accuracy, summary.metric)}",
            f"{summary.params / 1e3:.0f}",
        ]
        for each in runs
        for path, summary in each.checkpoints
    ]


def show_batch(runs: Sequence[PlannedRun], report: Path | None) -> None:
    """What a plan emitted, and where the report lies."""
    from rich.table import Table

    table = Table(title="checkpoints", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    for row in checkpoint_rows(runs):
        table.add_row(*row)
    print_table(table)
    if report is not None:
        typer.echo(f"report: {report}")
