"""`hwnas similarity`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Json, TerminalProgress, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text

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
    from hwnas import api

    opened = api.Run(run)
    with TerminalProgress() as progress:
        found = opened.similarity(device, allow_code=allow_code, progress=progress)
        pages = opened.report(found.device)
    if as_json:
        print_json({**found.to_json(), "run": str(run), "report": str(pages[0])})
        return
    tau = "–" if found.kendall_tau is None else f"{found.kendall_tau:.2f}"
    print_text(f"Kendall's tau with the loss over the front: {tau}")
    rows = [
        [network.name, f"{network.between_blocks:.3f}", f"{network.loss:.4f}"] for network in found.networks
    ]
    columns = [Column(name="network"), *figures("CKA", "loss")]
    print_table(columns, [rows], f"{found.device}: CKA of layers of different parts, mean")
    typer.echo(f"report: {pages[0]}")
