"""`hwnas predict`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Json, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text

SCHEMA = "hwnas.prediction/1"
EXAMPLE = "Example: `hwnas predict runs/demo 0-3-1-2-0 0-0-0-0-0`"


def predict(
    run: Annotated[Path, typer.Argument(help="Run directory of `hwnas compress --quality predictor`.")],
    architectures: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCH...",
            help="A choice for each part, 0 the reference's own, as the front shows them: 0-3-1-2-0.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Predict the accuracy that networks of a run will have once they are finetuned."""
    from hwnas import api
    from hwnas.compress.quality.model import describe
    from hwnas.files import encode

    predictor, rows = api.Run(run).predict(*architectures)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "run": str(run),
                "predictor": {
                    "networks": predictor.networks,
                    "epochs": predictor.epochs,
                    "penalty": predictor.penalty,
                    "left_out": encode(predictor.left_out),
                    "mean_mse_points2": predictor.mean_mse_points2,
                },
                "architectures": [encode(row) for row in rows],
            }
        )
        return
    shown = [
        [
            "-".join(map(str, row.choices)),
            f"{row.predicted_accuracy * 100:.1f} %{'*' if row.extrapolates else ''}",
            "–" if row.finetuned_accuracy is None else f"{row.finetuned_accuracy * 100:.1f} %",
            f"{row.macs / 1e6:,.2f}",
            f"{row.params / 1e3:,.0f}",
            f"{row.dna_score:.3f}",
            f"{row.nsr:.3f}",
        ]
        for row in rows
    ]
    columns = [
        Column(name="choices", kind="name"),
        *figures("predicted"),
        *figures("finetuned", "MMACs", "k params", "DNA score", "Σ NSR", rank=1),
    ]
    print_table(columns, [shown], f"accuracy predictor: {describe(predictor)}")
    if any(row.extrapolates for row in rows):
        print_text("* beyond the networks that the predictor was fitted to")
