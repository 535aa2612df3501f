"""`hwnas partition`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.output import AllowCode, Cut, Json, print_json, print_table
from hwnas.compress.options import parse_cuts
from hwnas.ranges import LARGEST_SIZE

if TYPE_CHECKING:
    from hwnas.networks.cut_points import CutPoint, Obstacle
    from hwnas.networks.partition import Partition

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
    from hwnas.errors import InputError
    from hwnas.network import in_eval_mode
    from hwnas.networks.cut_points import cut_points, distinct, run_once
    from hwnas.networks.find import open_model
    from hwnas.networks.partition import partition as cut_up

    module, shape = open_model(model, image_size, allow_code=allow_code)
    run_once(in_eval_mode(module), shape)
    points, obstacles = cut_points(module, shape)
    refusal: InputError | None = None
    parts: Partition | None = None
    try:
        parts = cut_up(module, shape, parse_cuts(cut) or None)
    except InputError as error:
        refusal = error
    places = distinct(points, parts.cuts if parts else ())
    if as_json:
        print_json(_plain(model, shape, parts, places, obstacles))
    else:
        _show(model, shape, parts, places, obstacles)
    if refusal is not None:
        raise refusal


def _plain(
    model: str,
    shape: Sequence[int],
    parts: Partition | None,
    places: Sequence[CutPoint],
    obstacles: Sequence[Obstacle],
) -> dict[str, object]:
    from hwnas.files import encode
    from hwnas.networks.count import count

    rows = []
    for n, part in enumerate(parts.modules if parts else ()):
        assert parts is not None
        macs, params = count(part, parts.shapes[n])
        before, after = parts.part_shapes(n)
        name, behind = parts.names[n], (*parts.cuts, None)[n]
        rows.append(
            {
                "part": n,
                "name": name,
                "cut_behind": behind,
                "in_shape": list(before),
                "out_shape": list(after),
                "macs": macs,
                "params": params,
            }
        )
    return {
        "schema": "hwnas.partition/1",
        "model": model,
        "input_shape": list(shape),
        "cuts": list(parts.cuts) if parts else None,
        "max_abs_difference": parts.max_abs_difference if parts else None,
        "parts": rows,
        "cut_points": [encode(place) for place in places],
        "obstacles": [encode(obstacle) for obstacle in obstacles],
    }


def _show(
    model: str,
    shape: Sequence[int],
    parts: Partition | None,
    places: Sequence[CutPoint],
    obstacles: Sequence[Obstacle],
) -> None:
    from rich.table import Table

    from hwnas.networks.count import count

    if parts:
        table = Table(title=f"{model}, input {tuple(shape)}", title_justify="left")
        for column in ("part", "cut behind", "input", "output"):
            table.add_column(column, no_wrap=True)
        for column in ("MMACs", "k params"):
            table.add_column(column, justify="right")
        for n, name in enumerate(parts.names):
            macs, params = count(parts.modules[n], parts.shapes[n])
            before, after = (str(size) for size in parts.part_shapes(n))
            behind = (*parts.cuts, "")[n]
            table.add_row(name, behind, before, after, f"{macs / 1e6:.2f}", f"{params / 1e3:.1f}")
        print_table(table)
        typer.echo(f"The composed parts differ from the whole by {parts.max_abs_difference:.2g} at most.")
    unused = [place for place in places if not parts or place.name not in parts.cuts]
    if unused:
        typer.echo("\nIt can be cut as well behind (--cut NAME,NAME):")
        for place in unused:
            typer.echo(f"  {place.name}  {place.shape}")
    if obstacles:
        typer.echo("\nIt cannot be cut further inside of:")
        for obstacle in obstacles:
            typer.echo(f"  {obstacle.name or 'the network'}: {obstacle.reason}")
