"""`hwnas similarity`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Json, TerminalProgress, print_json, print_table

EXAMPLE = "Example: `hwnas similarity runs/demo`"


def similarity(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress`.")],
    device: Annotated[str | None, typer.Option(help="Whose networks.", show_default="the only one")] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let a checkpoint import the module:function it names.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the layers of the reference, the checkpoints and the front's networks, by linear CKA.

    The report then has a section with heat maps.
    """
    from rich.table import Table

    from hwnas import api

    opened = api.Run(run)
    with TerminalProgress() as progress:
        found = opened.similarity(device, allow_code=allow_code, progress=progress)
        pages = opened.report(found.device)
    if as_json:
        print_json({**found.to_json(), "run": str(run), "report": str(pages[0])})
        return
    table = Table(title=f"{found.device}: CKA of layers of different parts, mean", title_justify="left")
    for name in ("network", "CKA", "loss"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for network in found.networks:
        table.add_row(network.name, f"{network.between_blocks:.3f}", f"{network.loss:.4f}")
    print_table(table)
    tau = "–" if found.kendall_tau is None else f"{found.kendall_tau:.2f}"
    typer.echo(f"Kendall's tau with the loss over the front: {tau}")
    typer.echo(f"report: {pages[0]}")
