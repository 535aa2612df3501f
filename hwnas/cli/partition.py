"""`hwnas partition`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.output import AllowCode, Cut, Json, print_json, print_table
from hwnas.ranges import LARGEST_SIZE

if TYPE_CHECKING:
    from hwnas.api import Cuts

EXAMPLE = "Example: `hwnas partition vit_tiny_patch16_224`"


def partition(
    model: Annotated[str, typer.Argument(help="timm name, module:function, or a checkpoint directory.")],
    cut: Cut = "",
    image_size: Annotated[
        int, typer.Option(min=0, max=LARGEST_SIZE, help="Rows and columns; 0: the model's own.")
    ] = 0,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Show where a network is cut, where else it can be, and why it cannot be cut further.

    Cuts stand where exactly one tensor passes, behind modules. The parts are run against the whole.
    """
    from hwnas import api

    cuts = api.find_cuts(model, cut=cut, image_size=image_size, allow_code=allow_code)
    if as_json:
        print_json(_plain(model, cuts))
    else:
        _show(model, cuts)
    if cuts.refusal is not None:
        raise cuts.refusal


def _plain(model: str, cuts: Cuts) -> dict[str, object]:
    from hwnas.files import encode

    parts, rows = cuts.partition, []
    for n, (macs, params) in enumerate(cuts.counts):
        assert parts is not None
        before, after = parts.part_shapes(n)
        rows.append(
            {
                "part": n,
                "name": parts.names[n],
                "cut_behind": (*parts.cuts, None)[n],
                "in_shape": list(before),
                "out_shape": list(after),
                "macs": macs,
                "params": params,
            }
        )
    return {
        "schema": "hwnas.partition/1",
        "model": model,
        "input_shape": list(cuts.input_shape),
        "cuts": list(parts.cuts) if parts else None,
        "max_abs_difference": parts.max_abs_difference if parts else None,
        "parts": rows,
        "cut_points": [encode(place) for place in cuts.cut_points],
        "obstacles": [encode(obstacle) for obstacle in cuts.obstacles],
    }


def _show(model: str, cuts: Cuts) -> None:
    from rich.table import Table

    parts = cuts.partition
    if parts:
        table = Table(title=f"{model}, input {cuts.input_shape}", title_justify="left")
        for column in ("part", "cut behind", "input", "output"):
            table.add_column(column, no_wrap=True)
        for column in ("MMACs", "k params"):
            table.add_column(column, justify="right")
        for n, (macs, params) in enumerate(cuts.counts):
            before, after = (str(size) for size in parts.part_shapes(n))
            behind = (*parts.cuts, "")[n]
            table.add_row(parts.names[n], behind, before, after, f"{macs / 1e6:.2f}", f"{params / 1e3:.1f}")
        print_table(table)
        typer.echo(f"The composed parts differ from the whole by {parts.max_abs_difference:.2g} at most.")
    unused = [place for place in cuts.cut_points if not parts or place.name not in parts.cuts]
    if unused:
        typer.echo("\nIt can be cut as well behind (--cut NAME,NAME):")
        for place in unused:
            typer.echo(f"  {place.name}  {place.shape}")
    if cuts.obstacles:
        typer.echo("\nIt cannot be cut further inside of:")
        for obstacle in cuts.obstacles:
            typer.echo(f"  {obstacle.name or 'the network'}: {obstacle.reason}")
