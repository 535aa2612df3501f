"""`hwnas extend`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import AllowCode, Json, TerminalProgress, print_json
from hwnas.compress.options import SPACES
from hwnas.ranges import LARGEST_SIZE

SCHEMA = "hwnas.extended/1"
EXAMPLE = "Example: `hwnas extend runs/demo --space more.toml`"


def extend(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress`.")],
    space: Annotated[
        str,
        typer.Option(help=f"The new candidates: {SPACES}."),
    ],
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1, max=LARGEST_SIZE, help="New candidates a block at most.", show_default="the space's own"
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Distil the candidates of another space into a run's library; what is there already stays as it is.

    Give the run's `hwnas compress` command again to search with them. A fitted accuracy predictor serves
    the new candidates too.
    """
    from hwnas import api
    from hwnas.files import encode

    with TerminalProgress() as progress:
        done = api.Run(run).extend(
            space, candidates=candidates or 0, allow_code=allow_code, progress=progress
        )
    if as_json:
        print_json({"schema": SCHEMA, "run": str(run), **encode(done)})
    else:
        typer.echo(f"{run}: {done.added} candidates of {done.space} added, {done.done} distilled")
