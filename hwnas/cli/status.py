"""`hwnas status`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.output import Json, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text

if TYPE_CHECKING:
    from hwnas.compress.emit.status import RunStatus

SCHEMA = "hwnas.status/1"
EXAMPLE = "Example: `hwnas status runs/demo --json`"
CHECKPOINTS = (
    Column(name="checkpoint"),
    *figures("latency ratio"),
    Column(name="quality", kind="name"),
)
SPENT = (Column(name="step"), Column(name="device"), *figures("minutes"), *figures("epochs", rank=1))


def status(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress`.")],
    as_json: Json = False,
) -> None:
    """Show how far a run is: what is done, what is left, and whether a process works on it.

    Nothing is changed, so it can be asked at any time, from any terminal.
    """
    from hwnas import api
    from hwnas.files import encode

    found = api.Run(run).status()
    if as_json:
        print_json({"schema": SCHEMA, **encode(found), "run": str(run)})
    else:
        _show(found)


def _show(found: RunStatus) -> None:
    from hwnas.compress.tasks.task import quantity

    candidates = found.candidates
    print_text(f"{found.run}: {'a process works on it' if found.is_running else 'no process works on it'}")
    reference = "not there yet"
    if found.metric is not None:
        reference = f"{found.metric.name} {quantity(found.accuracy, found.metric)}"
    print_text(f"reference: {found.model} on {found.data}, {reference}")
    failed = f", {candidates.failed} failed" if candidates.failed else ""
    print_text(f"candidates: {candidates.done} of {candidates.total} distilled{failed}")
    for each in found.devices:
        print_text(
            f"{each.device}: networks measured: {each.measured}, searches ended: {len(each.searches)}, "
            f"checkpoints: {len(each.checkpoints)}"
        )
    emitted = [checkpoint for each in found.devices for checkpoint in each.checkpoints]
    checkpoints = [
        [
            checkpoint.name,
            f"{checkpoint.latency_ratio.value:.3f}",
            f"{checkpoint.metric.name} {quantity(checkpoint.accuracy, checkpoint.metric)}",
        ]
        for checkpoint in emitted
    ]
    print_table(CHECKPOINTS, [checkpoints], "\ncheckpoints:")
    rows = [
        [cost.step, cost.device or "all", f"{cost.seconds / 60:.1f}", f"{cost.epochs:.1f}"]
        for cost in found.spent
    ]
    print_table(SPENT, [rows], "\ntime so far:")
    if not found.left:
        print_text("\nNothing is left to do, as far as the directory tells.")
        return
    print_text(f"\nleft: {'; '.join(found.left)}")
    if not found.is_running:
        print_text("Give its `hwnas compress` command again: it goes on from here.")
