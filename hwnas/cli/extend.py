"""`hwnas extend`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, TerminalProgress, print_json
from hwnas.compress.options import ExtendOptions

SCHEMA = "hwnas.extended/1"
EXAMPLE = "Example: `hwnas extend runs/demo --space more.toml`"


@takes(ExtendOptions)
def extend(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress`.")],
    options: ExtendOptions,
    as_json: Json = False,
) -> None:
    """Distil the candidates of another space into a run's library; what is there already stays as it is.

    Give the run's `hwnas compress` command again to search with them. A fitted accuracy predictor serves
    the new candidates too.
    """
    from hwnas import api
    from hwnas.files import encode

    with TerminalProgress() as progress:
        done = api.Run(run).extend(progress=progress, **vars(options))
    if as_json:
        print_json({"schema": SCHEMA, "run": str(run), **encode(done)})
    else:
        typer.echo(f"{run}: {done.added} candidates of {done.space} added, {done.done} distilled")
