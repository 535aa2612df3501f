"""`hwnas space`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.compress.options import SpaceOptions

if TYPE_CHECKING:
    from hwnas.api import Candidates

COLUMNS = (
    Column(name="part", kind="name"),
    *figures("choice"),
    Column(name="candidate", kind="name"),
    Column(name="shapes", kind="name", rank=3),
    *figures("MACs"),
    *figures("of the part", rank=1),
    *figures("parameters"),
    *figures("of the part", rank=2),
)

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
    parts = found.partition
    variants = sum(c.part not in range(1, parts.block_count + 1) for c in found.candidates)
    print_text(
        f"{model}, input {parts.shapes[0]}: {len(found.candidates) - variants} candidates of blocks "
        f"({found.space}), {variants} variants of stem and head, {found.architectures:,} architectures; the "
        f"composed parts differ from the whole network by {parts.max_abs_difference:.2g} at most"
    )
    print_text(f"blocks between {', '.join(parts.ends)}")
    for n, reasons in found.dropped.items():
        for family, reason in reasons.items():
            print_text(f"{parts.names[n]} has no {family}: {reason}")
    sections = []
    for n, (macs, params) in enumerate(found.counts):
        before, after = parts.part_shapes(n)
        own = ("the reference's own", f"{before} → {after}")
        rows = [[parts.names[n], "0", *own, f"{macs:,}", "1.00", f"{params:,}", "1.00"]]
        for c in found.candidates:
            if c.part == n:
                cells = (f"{c.macs:,}", _share(c.macs, macs), f"{c.params:,}", _share(c.params, params))
                rows.append([c.part_name, str(c.choice), c.spec.name, "", *cells])
        sections.append(rows)
    print_table(COLUMNS, sections, is_marked=lambda row: row[1] == "0")


def _share(amount: int, whole: int) -> str:
    return f"{amount / whole:.2f}" if whole else "–"
