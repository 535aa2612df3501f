"""`hwnas space`"""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli.output import AllowCode, Cut, Json, parse_cuts, print_json, print_table

EXAMPLE = "Example: `hwnas space efficientnet_b0 --image-size 224`"


def space(
    model: Annotated[str, typer.Argument(help="timm name, module:function, or a checkpoint directory.")],
    candidates: Annotated[int, typer.Option(min=1, help="Candidates a block.")] = 27,
    cut: Cut = "",
    image_size: Annotated[int, typer.Option(min=0, help="Rows and columns; 0: the model's own.")] = 0,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Show the candidates of each block of a network, with MACs and parameters, and the size of the space."""
    from rich.table import Table

    from hwnas.compress.blocks import count
    from hwnas.compress.models import input_shape
    from hwnas.compress.partition import partition
    from hwnas.compress.reference import build_reference, find_reference
    from hwnas.compress.space import architecture_count, compression_space

    spec = find_reference(model)
    module = build_reference(spec, allow_code=allow_code or spec.source == "function")
    shape = input_shape(spec, module)
    if image_size:
        shape = (shape[0], image_size, image_size)
    parts = partition(module, shape, parse_cuts(cut) or None)
    found = compression_space(parts, candidates)
    blocks = [count(block, parts.shapes[n]) for n, block in enumerate(parts.blocks, 1)]
    total = architecture_count(found)
    if as_json:
        print_json(
            {
                "model": model,
                "input_shape": list(shape),
                "cuts": list(parts.cuts),
                "max_abs_difference": parts.max_abs_difference,
                "blocks": [
                    {
                        "block": n,
                        "in_shape": list(parts.shapes[n]),
                        "out_shape": list(parts.shapes[n + 1]),
                        "macs": macs,
                        "params": params,
                        "candidates": [
                            {"choice": c.choice, "name": c.spec.name, "macs": c.macs, "params": c.params}
                            for c in found
                            if c.part == n
                        ],
                    }
                    for n, (macs, params) in enumerate(blocks, 1)
                ],
                "candidates": len(found),
                "architectures": total,
            }
        )
        return
    table = Table(title=f"{model}, input {shape}, cut behind {', '.join(parts.cuts)}", title_justify="left")
    table.add_column("block")
    table.add_column("choice", justify="right")
    table.add_column("candidate", no_wrap=True)
    for column in ("MACs", "of the block", "parameters", "of the block"):
        table.add_column(column, justify="right")
    for n, (macs, params) in enumerate(blocks, 1):
        title = f"the reference's own, {parts.shapes[n]} → {parts.shapes[n + 1]}"
        table.add_row(str(n), "0", title, f"{macs:,}", "1.00", f"{params:,}", "1.00", style="bold")
        for c in found:
            if c.part == n:
                share = (f"{c.macs / macs:.2f}", f"{c.params / params:.2f}")
                table.add_row(
                    str(n), str(c.choice), c.spec.name, f"{c.macs:,}", share[0], f"{c.params:,}", share[1]
                )
        table.add_section()
    print_table(table)
    typer.echo(
        f"{len(found)} candidates, {total:,} architectures; the composed parts differ from the whole network "
        f"by {parts.max_abs_difference:.2g} at most"
    )
