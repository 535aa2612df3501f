"""`hwnas report`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Json, print_json

EXAMPLE = "Example: `hwnas report runs/demo`"


def report(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress`.")],
    device: Annotated[str | None, typer.Option(help="Only of this device.", show_default="all")] = None,
    as_json: Json = False,
) -> None:
    """Make the report of a run again: one offline HTML file a device, from what is stored."""
    from hwnas import api

    paths = [str(path) for path in api.Run(run).report(device)]
    if as_json:
        print_json({"schema": "hwnas.report/1", "run": str(run), "reports": paths})
    else:
        typer.echo("\n".join(paths))
