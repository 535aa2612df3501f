"""`hwnas explore`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Json, print_json
from hwnas.cli.tables import Column, figures, print_table

EXAMPLE = 'Example: `hwnas explore runs/demo --line k5=kernel=5 --line "narrow=width<1,se=no"`'


def explore(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress`.")],
    line: Annotated[
        list[str],
        typer.Option(
            help="A part of the library, NAME=FILTER: conditions on candidates with commas between, such as "
            "kernel=3+5, width<1, se=no, family=cut, part=block2. The reference's own parts stay, unless "
            "own=no. May be repeated.",
        ),
    ],
    device: Annotated[str | None, typer.Option(help="Whose front.", show_default="the only one")] = None,
    as_json: Json = False,
) -> None:
    """Show what a device's front would be with a part of the candidates; nothing is trained or measured."""
    from hwnas import api

    found, page = api.Run(run).explore(*line, device=device)
    if as_json:
        print_json({**found.to_json(), "run": str(run), "page": str(page)})
        return
    names, rows = found.table()
    name, *sizes = names[:3]
    columns = [Column(name=name), *figures(*sizes, rank=1), *figures(*names[3:])]
    print_table(columns, [rows], f"{found.device}: loss is {found.loss}, predicted")
    typer.echo(f"page: {page}")
