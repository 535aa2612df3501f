"""`hwnas partition`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.compress.options import PartitionOptions

if TYPE_CHECKING:
    from hwnas.api import Cuts

COLUMNS = (
    Column(name="part"),
    Column(name="from behind", rank=4),
    Column(name="to behind", rank=2),
    Column(name="input", kind="name", rank=5),
    Column(name="output", kind="name", rank=3),
    *figures("MMACs", "share"),
    *figures("k params", rank=1),
)

EXAMPLE = "Example: `hwnas partition vit_tiny_patch16_224`"


@takes(PartitionOptions)
def partition(
    model: Annotated[
        str, typer.Argument(help="timm or torchvision name, module:function, or a checkpoint directory.")
    ],
    options: PartitionOptions,
    as_json: Json = False,
) -> None:
    """Show what of a network can be replaced, where else it can be cut, and why it cannot be cut further.

    A block is what exactly one tensor enters and one leaves. The parts are run against the whole.
    """
    from hwnas import api

    cuts = api.find_cuts(model, **vars(options))
    if as_json:
        print_json(_plain(model, cuts))
    else:
        _show(model, cuts)
    if cuts.refusal is not None:
        raise cuts.refusal


def _plain(model: str, cuts: Cuts) -> dict[str, object]:
    from hwnas.files import encode

    parts, counts, rows = cuts.partition, cuts.counts, []
    if parts is not None and counts is not None:
        for n, (macs, params) in enumerate(counts.parts):
            name = parts.names[n]
            rows.append(
                {
                    "part": n,
                    "name": name,
                    "places": [list(ends) for ends in parts.regions[n - 1]]
                    if name.startswith("block")
                    else [],
                    "in_shapes": [list(shape) for shape in parts.in_shapes(name)],
                    "out_shapes": [list(parts.shapes[value]) for value in parts.gives(name)],
                    "macs": macs,
                    "params": params,
                }
            )
    return {
        "schema": "hwnas.partition/2",
        "model": model,
        "input_shape": list(cuts.input_shape),
        "regions": [[list(ends) for ends in places] for places in parts.regions] if parts else None,
        "max_abs_difference": parts.max_abs_difference if parts else None,
        "parts": rows,
        "joints": {"macs": counts.joints[0], "params": counts.joints[1]} if counts else None,
        "cut_points": [encode(place) for place in cuts.cut_points],
        "obstacles": [encode(obstacle) for obstacle in cuts.obstacles],
    }


def _show(model: str, cuts: Cuts) -> None:
    parts, counts = cuts.partition, cuts.counts
    if parts and counts:
        rows: list[list[str]] = []
        whole = sum(macs for macs, _ in (*counts.parts, counts.joints)) or 1

        def cells(macs: int, params: int) -> tuple[str, str, str]:
            return f"{macs / 1e6:.2f}", f"{macs / whole:.1%}", f"{params / 1e3:.1f}"

        for n, counted in enumerate(counts.parts):
            before, after = (str(size) for size in parts.part_shapes(n))
            places = parts.regions[n - 1] if 0 < n <= parts.block_count else (("", ""),)
            entry, exit = places[0]
            more = f" in {len(places)} places" if len(places) > 1 else ""
            rows.append([parts.names[n] + more, entry, exit, before, after, *cells(*counted)])
        if parts.joints:
            rows.append([f"{len(parts.joints)} joints", "", "", "", "", *cells(*counts.joints)])
        blocks = sum(macs for macs, _ in counts.parts[1:-1])
        print_text(
            f"{model}, input {cuts.input_shape}: {parts.block_count} blocks. "
            f"{blocks / whole:.0%} of the MACs are in blocks, which can be replaced; the rest stays.\n"
            f"The composed parts differ from the whole by {parts.max_abs_difference:.2g} at most."
        )
        print_table(COLUMNS, [rows])
    unused = [place for place in cuts.cut_points if not parts or place.name not in parts.ends]
    if unused:
        typer.echo("\nIt can be cut as well behind (--cut NAME,NAME):")
        for place in unused:
            print_text(f"  {place.name}  {place.shape}")
    if cuts.obstacles:
        typer.echo("\nIt cannot be cut further inside of:")
        for obstacle in cuts.obstacles:
            print_text(f"  {obstacle.name or 'the network'}: {obstacle.reason}")
