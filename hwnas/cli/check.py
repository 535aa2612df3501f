"""`hwnas check record` and `hwnas check run`"""

from __future__ import annotations

import os
import shlex
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, TerminalProgress, Verdict, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.errors import InputError
from hwnas.profiles.options import CheckOptions, RecordOptions

if TYPE_CHECKING:
    from hwnas.profiles.gate.baseline import Recorded
    from hwnas.profiles.gate.report import Checked, Report

EXAMPLE = """Examples:

`hwnas check record model.onnx --device cpu` writes hwnas-baseline.json, which is committed

`hwnas check run --threshold 5%` measures now and decides
"""
EXAMPLE_RECORD = (
    "Example: `hwnas check record model.onnx tiny.onnx --device cpu --out hwnas-baseline.json --json`"
)
EXAMPLE_RUN = """Examples:

`hwnas check run --threshold 5% --json`

`hwnas check run model.onnx --baseline origin/main --device cpu --threshold 5% --junit check.xml`

`hwnas check run new.onnx --baseline old.onnx --device cpu`

Exit codes: 0 pass, 1 regression, 2 could not run, 3 inconclusive.
"""

app = typer.Typer(
    help="Gate latencies in CI: is a network slower than its baseline?",
    no_args_is_help=True,
    epilog=EXAMPLE,
    rich_markup_mode="markdown",
)


@app.command("record", epilog=EXAMPLE_RECORD)
@takes(RecordOptions)
def record(
    models: Annotated[
        list[str],
        typer.Argument(help="timm or torchvision name, .onnx file, checkpoint, or module:function."),
    ],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    out: Annotated[Path, typer.Option(help="The baseline file to write.")] = Path(CheckOptions.baseline),
    *,
    options: RecordOptions,
    as_json: Json = False,
) -> None:
    """Measure networks and write the baseline file that later checks compare with; commit it."""
    from hwnas import api
    from hwnas.profiles.gate.baseline import write_baseline

    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}", f"mkdir -p {shlex.quote(str(out.parent))}")
    with TerminalProgress(moves=False) as progress:
        baseline = api.record(
            *models,
            device=device,
            on_result=lambda recorded: progress.say(_recorded(recorded)),
            progress=progress,
            **vars(options),
        )
    write_baseline(out, baseline)
    if as_json:
        print_json(baseline.to_json())
    else:
        typer.echo(
            f"{out}: commit it; later: hwnas check run --baseline {shlex.quote(str(out))} --threshold 5%"
        )


@app.command("run", epilog=EXAMPLE_RUN)
@takes(CheckOptions)
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Networks to check.", show_default="those of the baseline file"),
    ] = None,
    *,
    options: CheckOptions,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    action_benchmark: Annotated[
        Path | None,
        typer.Option(help="Write the JSON of github-action-benchmark (customSmallerIsBetter) here."),
    ] = None,
    bencher: Annotated[
        Path | None,
        typer.Option(help="Write Bencher Metric Format JSON here."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write a table and a plot for a comment here, as Markdown.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure networks beside their baseline and decide whether they became slower.

    A check that was stopped goes on when the same command is given again within a day.
    """
    from hwnas import api
    from hwnas.files import write_bytes, write_json
    from hwnas.profiles.gate import formats

    for path in (junit, action_benchmark, bencher, markdown):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent}", f"mkdir -p {shlex.quote(str(path.parent))}")
    if models and options.device is None and not options.baseline.endswith(".json"):
        raise InputError(
            f"with --baseline {options.baseline}, --device NAME must be given",
            f"hwnas check run {shlex.join(models)} --baseline {shlex.quote(options.baseline)} --device NAME",
        )
    with TerminalProgress(moves=False) as progress:
        report = api.check(
            *(models or ()),
            on_result=lambda checked: progress.say(_checked(checked)),
            progress=progress,
            **vars(options),
        )
    _show_annotations(report, as_json)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    if junit is not None:
        write_bytes(junit, formats.junit(report).encode())
    if action_benchmark is not None:
        write_json(action_benchmark, formats.action_benchmark(report))
    if bencher is not None:
        write_json(bencher, formats.bencher(report))
    if markdown is not None:
        write_bytes(markdown, formats.markdown(report).encode())
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(formats.markdown(report))
    raise Verdict(report.exit_code)


def _checked(checked: Checked) -> str:
    """One line as soon as a network is decided."""
    from hwnas.profiles.gate.formats import TITLES

    return f"{checked.model}: {TITLES[checked.verdict]}: {checked.reason}"


def _show_annotations(report: Report, as_json: bool) -> None:
    """Print GitHub's annotations where GitHub runs this; beside JSON on stderr."""
    from hwnas.profiles.gate.formats import github_annotations

    if os.environ.get("GITHUB_ACTIONS") == "true":
        typer.echo(github_annotations(report), nl=False, err=as_json)


def _show(report: Report) -> None:
    from hwnas.profiles.gate import formats

    outcome = {0: "pass", 1: "regression", 2: "could not run", 3: "inconclusive"}[report.exit_code]
    print_text(
        f"{outcome} (exit code {report.exit_code}): {report.device} against {report.baseline}, "
        f"threshold {report.threshold:.1%}; latencies are lower deciles: without what else ran"
    )
    rows = []
    for checked in report.networks:
        count = str(checked.decision.repeats) if checked.decision else "–"
        rows.append(
            [checked.model, formats.TITLES[checked.verdict], *formats.figures(checked), count, checked.how]
        )
    columns = [
        Column(name="network"),
        Column(name="result", kind="name"),
        *figures("baseline ms", "now ms", rank=1),
        *figures("slower by"),
        *figures("noise floor", "repeats", rank=3),
        Column(name="how", kind="name", rank=5),
    ]
    print_table(columns, [rows])
    for text in report.judgement:
        print_text(text)


def _recorded(recorded: Recorded) -> str:
    """One line as soon as a network is recorded."""
    median_ms = statistics.median(recorded.medians_ms)
    low, high = min(recorded.repeats_ms), max(recorded.repeats_ms)
    spread = (high - low) / statistics.median(recorded.repeats_ms)
    count = len(recorded.repeats_ms)
    return f"{recorded.model}: median {median_ms:.3f} ms, {count} repeats that differ by {spread:.1%}"
