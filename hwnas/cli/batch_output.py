"""Several devices of one library, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hwnas.cli.tables import Column, figures, print_table, print_text

if TYPE_CHECKING:
    from hwnas.compress.emit.cross_device import Comparison, OnDevice
    from hwnas.compress.emit.summary import Summary


def show_comparison(comparison: Comparison, report: Path | None) -> None:
    """The table "best for A, run on B", and where the report lies."""
    if comparison.fronts:
        title = (
            "best for A, run on B: cost / reference there (more than the cheapest known at no higher loss)"
        )
        columns = [
            Column(name="best for"),
            *(Column(name=f"on {front.device}") for front in comparison.fronts),
        ]
        rows = []
        for pick in comparison.picked:
            rules = [f"{name}: {', '.join(rules)}" for name, rules in pick.best_for.items()]
            cells = [_cell(pick.on[front.device]) for front in comparison.fronts]
            rows.append(["\n".join(rules), *cells, "-".join(map(str, pick.choices))])
        print_table([*columns, Column(name="choices", kind="name", rank=1)], [rows], title)
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
    rows = checkpoint_rows(runs)
    print_text(f"{len(rows)} checkpoints of {len(runs)} references")
    model, path, ratio, quality, params = COLUMNS
    columns = [
        Column(name=model, rank=1),
        Column(name=path),
        *figures(ratio, quality),
        *figures(params, rank=2),
    ]
    print_table(columns, [rows])
    if report is not None:
        typer.echo(f"report: {report}")
