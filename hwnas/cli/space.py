"""`hwnas space`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, print_json, print_table
from hwnas.compress.options import SpaceOptions

if TYPE_CHECKING:
    from hwnas.api import Candidates

EXAMPLE = "Example: `hwnas space efficientnet_b0 --image-size 224 --space donnav2`"


@takes(SpaceOptions)
def space(
    model: Annotated[
        str, typer.Argument(help="timm or torchvision name, module:function, or a checkpoint directory.")
    ],
    options: SpaceOptions,
    as_json: Json = False,
) -> None:
    """Show the candidates of each part of a network, with MACs and parameters, and the size of the space."""
    from hwnas import api

    found = api.find_candidates(model, **vars(options))
    if as_json:
        print_json(_plain(model, found))
    else:
        _show(model, found)


def _plain(model: str, found: Candidates) -> dict[str, object]:
    parts = found.partition
    return {
        "schema": "hwnas.space/2",
        "model": model,
        "input_shape": list(parts.shapes[0]),
        "regions": [[list(ends) for ends in places] for places in parts.regions],
        "max_abs_difference": parts.max_abs_difference,
        "space": found.space,
        "parts": [
            {
                "part": n,
                "name": parts.names[n],
                "in_shape": list(parts.part_shapes(n)[0]),
                "out_shape": list(parts.part_shapes(n)[1]),
                "macs": macs,
                "params": params,
                "candidates": [
                    {"choice": c.choice, "name": c.spec.name, "macs": c.macs, "params": c.params}
                    for c in found.candidates
                    if c.part == n
                ],
            }
            for n, (macs, params) in enumerate(found.counts)
        ],
        "candidates": len(found.candidates),
        "architectures": found.architectures,
        "dropped": [
            {"part": n, "family": family, "reason": reason}
            for n, reasons in found.dropped.items()
            for family, reason in reasons.items()
        ],
    }


def _show(model: str, found: Candidates) -> None:
    from rich.table import Table

    parts = found.partition
    table = Table(
        title=f"{model}, input {parts.shapes[0]}, blocks between {', '.join(parts.ends)}",
        title_justify="left",
    )
    table.add_column("part")
    table.add_column("choice", justify="right")
    table.add_column("candidate", no_wrap=True)
    for column in ("MACs", "of the part", "parameters", "of the part"):
        table.add_column(column, justify="right")
    for n, (macs, params) in enumerate(found.counts):
        before, after = parts.part_shapes(n)
        title = f"the reference's own, {before} → {after}"
        table.add_row(parts.names[n], "0", title, f"{macs:,}", "1.00", f"{params:,}", "1.00", style="bold")
        for c in found.candidates:
            if c.part == n:
                cells = (f"{c.macs:,}", _share(c.macs, macs), f"{c.params:,}", _share(c.params, params))
                table.add_row(c.part_name, str(c.choice), c.spec.name, *cells)
        table.add_section()
    print_table(table)
    for n, reasons in found.dropped.items():
        for family, reason in reasons.items():
            typer.echo(f"{parts.names[n]} has no {family}: {reason}")
    variants = sum(c.part not in range(1, parts.block_count + 1) for c in found.candidates)
    typer.echo(
        f"{len(found.candidates) - variants} candidates of blocks ({found.space}), {variants} variants of "
        f"stem and head, {found.architectures:,} architectures; the composed parts differ from the whole "
        f"network by {parts.max_abs_difference:.2g} at most"
    )


def _share(amount: int, whole: int) -> str:
    return f"{amount / whole:.2f}" if whole else "–"
