"""`hwnas evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, TerminalProgress, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.compress.options import EvaluateOptions

if TYPE_CHECKING:
    from hwnas.compress.emit.evaluation import Evaluation

SCHEMA = "hwnas.evaluation/1"
EXAMPLE = """Examples:

`hwnas evaluate runs/demo/checkpoints/cpu-knee --device openvino-int8 --data digits`

`hwnas evaluate runs/demo/reference --device mnn --data folder:photos --json`
"""


@takes(EvaluateOptions)
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint, or the `reference` of a run.")],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    options: EvaluateOptions,
    as_json: Json = False,
) -> None:
    """Run the test images through a device's own runtime: accuracy there, beside torch and the model card."""
    from hwnas import api
    from hwnas.files import encode

    with TerminalProgress() as progress:
        found = api.evaluate(checkpoint, device, progress=progress, **vars(options))
    if as_json:
        print_json({"schema": SCHEMA, **encode(found)})
    else:
        _show(found)


def _show(found: Evaluation) -> None:
    from hwnas.compress.tasks.task import difference, quantity

    metric = found.metric
    other = "" if found.is_of_card_data else f", other images ({found.card_data or 'not named'})"
    rows = [
        [f"on {found.device}", quantity(found.quality, metric)],
        ["in torch, same images", quantity(found.in_torch, metric)],
        ["difference", difference(found.difference, metric)],
        [f"model card{other}", quantity(found.card, metric)],
        [
            f"{found.agreement_metric.name} with torch",
            quantity(found.agreement, found.agreement_metric),
        ],
        ["largest difference of outputs", _largest(found)],
    ]
    known = found.fingerprint
    print_table(
        [Column(name=""), *figures(metric.name)],
        [rows],
        f"{found.images:,} test images of {found.data} in {found.device_s:.1f} s on {found.device}",
    )
    print_text(f"{known.precision}, {known.runtime}")


def _largest(found: Evaluation) -> str:
    """`0.012 (0.08 % of the largest)`."""
    if found.largest_difference is None:
        return "not finite"
    share = found.largest_difference / found.largest_output if found.largest_output else 0.0
    return f"{found.largest_difference:.2g} ({share:.2%} of the largest)"
