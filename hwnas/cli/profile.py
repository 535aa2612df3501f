"""`hwnas profile`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, TerminalProgress, say
from hwnas.cli.profile_output import Format, show, show_blocks, show_layers, show_schedules
from hwnas.cli.tables import print_text
from hwnas.errors import HwnasError, InputError
from hwnas.profiles.options import ProfileOptions

if TYPE_CHECKING:
    from hwnas.profiles.profile_rows import Profiled

EXAMPLE = """Examples:

`hwnas profile efficientnet_b0 mobilenetv2_100 --device cpu`

`hwnas profile runs/demo/checkpoints/cpu-knee --device cpu --protocol report --json`

`hwnas profile mobilenetv2_100 --device cpu --precision 0.5% --operators --blocks --html report.html`

`hwnas profile efficientnet_b0 --device sim-npu --explain`
"""


@takes(ProfileOptions)
def profile(
    models: Annotated[
        list[str],
        typer.Argument(
            help="timm or torchvision name, .onnx file, checkpoint directory, or module:function."
        ),
    ],
    device: Annotated[
        list[str], typer.Option(help="Device profile; see `hwnas devices`. Given again: another device.")
    ],
    options: ProfileOptions,
    form: Annotated[
        Format, typer.Option("--format", metavar="FORM", help="table, json, csv or markdown.")
    ] = "table",
    html: Annotated[
        Path | None,
        typer.Option(help="Write a report with histograms and time-lines here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how long whole networks take on a device; several are interleaved in one session."""
    from hwnas import api
    from hwnas.measurement import MeasurementFailure
    from hwnas.profiles.profile_page import write_report

    _check_page(html)
    if options.cut and not options.blocks:
        raise InputError("--cut says where --blocks cuts, and --blocks is not given", "add --blocks")
    form = "json" if as_json else form
    rows: list[Profiled] = []
    with TerminalProgress(moves=False) as progress:
        for of_device in api.profile_each(models, device, progress=progress, **vars(options)):
            rows += of_device
            if form == "table":
                _show_device(of_device)
    if html is not None:
        write_report(html, rows)
        say(str(html))
    if form != "table":
        show(rows, form)
    failures = [row.result.reason for row in rows if isinstance(row.result, MeasurementFailure)]
    if failures:
        raise HwnasError(
            f"{len(failures)} of {len(rows)} networks could not be measured: {failures[0]}",
            "see the reason; the measured ones are above",
        )


def _check_page(html: Path | None) -> None:
    """Refuse before anything is measured what would fail after it."""
    from hwnas import page

    if html is None:
        return
    if not page.is_available():
        raise InputError("--html needs the package plotly, which is not installed", page.INSTALL)
    if not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent}", f"mkdir -p {html.parent}")


def _show_device(rows: Sequence[Profiled]) -> None:
    from hwnas.measurement import Measurement
    from hwnas.profiles.judgement import judge, sentences
    from hwnas.profiles.statistics import overhead_of

    show(rows, "table")
    results = [row.result for row in rows]
    judged = [judge(result) for result in results if isinstance(result, Measurement)]
    for text in sentences(judged):
        print_text(text)
    overhead = overhead_of(results)
    if overhead:
        say(overhead)
    for row in rows:
        if row.known_layers:
            show_layers(row.model, row.known_layers)
        if row.parts is not None:
            show_blocks(row.parts)
    for row in rows:
        if row.schedules:
            others = {name: schedule for name, schedule in row.schedules.items() if name != "chosen"}
            show_schedules(row.schedules["chosen"], others)
