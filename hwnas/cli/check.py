"""`hwnas check record` and `hwnas check run`"""

from __future__ import annotations

import os
import shlex
import statistics
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.device_options import Batch, InputShape
from hwnas.cli.output import Json, Verdict, messages, print_json, print_table
from hwnas.cli.parsing import a_number, parse_fraction, parse_shape
from hwnas.errors import InputError
from hwnas.ranges import LARGEST_SECONDS

if TYPE_CHECKING:
    from hwnas.profiles.gate.baseline import Recorded
    from hwnas.profiles.gate.report import Checked, Report

DEFAULT_FILE = Path("hwnas-baseline.json")
SECONDS = 45.0

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

MaxSeconds = Annotated[
    float,
    typer.Option(
        min=1,
        max=LARGEST_SECONDS,
        callback=a_number,
        help="Longest time for each network; less where less is enough.",
    ),
]


@app.command("record", epilog=EXAMPLE_RECORD)
def record(
    models: Annotated[
        list[str], typer.Argument(help="timm name, .onnx file, checkpoint, or module:function.")
    ],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    out: Annotated[Path, typer.Option(help="The baseline file to write.")] = DEFAULT_FILE,
    max_seconds: MaxSeconds = SECONDS,
    batch: Batch = None,
    input_shape: InputShape = None,
    as_json: Json = False,
) -> None:
    """Measure networks and write the baseline file that later checks compare with; commit it."""
    from datetime import UTC, datetime

    from hwnas.files import encode
    from hwnas.networks.find import find_network
    from hwnas.networks.git_revision import committed_in
    from hwnas.profiles.catalogue import load_profile, open_device, with_options
    from hwnas.profiles.gate import check as checks
    from hwnas.profiles.gate.baseline import SCHEMA, Baseline, Recorded, write_baseline
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session, require_kind
    from hwnas.profiles.store import open_history
    from hwnas.version import __version__

    if len(set(models)) != len(models):
        raise InputError("a network is named twice", "name each network once")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}", f"mkdir -p {shlex.quote(str(out.parent))}")
    shape = parse_shape(input_shape) if input_shape else None
    opened = open_device(with_options(load_profile(device), batch=batch))
    require_kind(opened, {"measured", "modelled"}, "a check")
    networks = [find_network(model, shape, has_batch=batch is not None) for model in models]
    recorded = []
    protocol = replace(SIDE_BY_SIDE, max_repeats=checks.RECORDED_REPEATS, max_seconds=max_seconds)
    with (
        open_history() as store,
        Session(opened, protocol, store, recall=False) as session,
    ):
        fingerprint = session.fingerprint
        for model, network in zip(models, networks, strict=True):
            (taken,) = session.side_by_side([network], lambda taken: False)
            entry = Recorded(
                model=model,
                network_hash=network.hash,
                commit=committed_in(Path(model)),
                repeats_ms=checks.lower_deciles_ms(taken),
                medians_ms=taken.medians_ms,
                input_shape=shape or (),
            )
            recorded.append(entry)
            messages().print(_recorded_line(entry), markup=False, highlight=False, soft_wrap=True)
    baseline = Baseline(
        device=device,
        fingerprint=fingerprint,
        recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
        hwnas_version=__version__,
        networks=tuple(recorded),
        batch=batch or 0,
    )
    write_baseline(out, baseline)
    if as_json:
        print_json({"schema": SCHEMA, **encode(baseline)})
    else:
        typer.echo(
            f"{out}: commit it; later: hwnas check run --baseline {shlex.quote(str(out))} --threshold 5%"
        )


@app.command("run", epilog=EXAMPLE_RUN)
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Networks to check.", show_default="those of the baseline file"),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="A baseline file (.json), a git revision, or the baseline network itself.")
    ] = str(DEFAULT_FILE),
    device: Annotated[
        str | None,
        typer.Option(help="Device profile.", show_default="the baseline file's"),
    ] = None,
    threshold: Annotated[str, typer.Option(help="How much slower a network may be.")] = "5%",
    max_seconds: MaxSeconds = SECONDS,
    batch: Batch = None,
    input_shape: InputShape = None,
    recorded: Annotated[
        bool,
        typer.Option(
            "--recorded", help="Compare with the recorded samples even where the network is at hand."
        ),
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    action_benchmark: Annotated[
        Path | None,
        typer.Option(help="Write the JSON of github-action-benchmark (customSmallerIsBetter) here."),
    ] = None,
    bencher: Annotated[
        Path | None,
        typer.Option(help="Write Bencher Metric Format JSON here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure networks beside their baseline and decide whether they became slower."""
    from hwnas.cli.check_baseline import Sizes, find_entries
    from hwnas.files import write_bytes, write_json
    from hwnas.profiles.catalogue import load_profile, open_device, with_options
    from hwnas.profiles.gate import formats
    from hwnas.profiles.gate.check import Terms, check
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import open_history

    fraction = parse_fraction(threshold, "--threshold")
    for path in (junit, action_benchmark, bencher):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent}", f"mkdir -p {shlex.quote(str(path.parent))}")
    with ExitStack() as held:
        sizes = Sizes(shape=parse_shape(input_shape) if input_shape else None, batch=batch)
        found = find_entries(models or [], baseline, device, sizes, recorded=recorded, held=held)
        terms = Terms(
            threshold=fraction,
            baseline=baseline,
            accept=found.accept,
            recorded_on=found.recorded_on,
        )
        profile = with_options(load_profile(found.device), batch=found.batch)
        store = held.enter_context(open_history())
        protocol = replace(SIDE_BY_SIDE, max_seconds=max_seconds)
        session = Session(open_device(profile), protocol, store, recall=False)
        report = check(session, found.entries, terms, told=_tell)
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
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(formats.markdown(report))
    raise Verdict(report.exit_code)


def _tell(checked: Checked) -> None:
    """One line on stderr as soon as a network is decided."""
    from hwnas.profiles.gate.formats import TITLES

    line = f"{checked.model}: {TITLES[checked.verdict]}: {checked.reason}"
    messages().print(line, markup=False, highlight=False, soft_wrap=True)


def _show_annotations(report: Report, as_json: bool) -> None:
    """Print GitHub's annotations where GitHub runs this; beside JSON on stderr."""
    from hwnas.profiles.gate.formats import github_annotations

    if os.environ.get("GITHUB_ACTIONS") == "true":
        typer.echo(github_annotations(report), nl=False, err=as_json)


def _show(report: Report) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hwnas.profiles.gate.formats import TITLES, figures

    table = Table()
    table.add_column("network", no_wrap=True)
    table.add_column("result")
    for column in ("baseline ms", "now ms", "slower by", "noise floor"):
        table.add_column(column, justify="right")
    for column in ("repeats", "how"):
        table.add_column(column)
    for checked in report.networks:
        count = str(checked.decision.repeats) if checked.decision else "–"
        table.add_row(escape(checked.model), TITLES[checked.verdict], *figures(checked), count, checked.how)
    print_table(table)
    outcome = {0: "pass", 1: "regression", 2: "could not run", 3: "inconclusive"}[report.exit_code]
    typer.echo(
        f"{outcome} (exit code {report.exit_code}): {report.device} against {report.baseline}, "
        f"threshold {report.threshold:.1%}; latencies are lower deciles: without what else ran"
    )
    typer.echo("".join(f"{text}\n" for text in report.judgement), nl=False)


def _recorded_line(entry: Recorded) -> str:
    median_ms = statistics.median(entry.medians_ms)
    low, high = min(entry.repeats_ms), max(entry.repeats_ms)
    spread = (high - low) / statistics.median(entry.repeats_ms)
    count = len(entry.repeats_ms)
    return f"{entry.model}: median {median_ms:.3f} ms, {count} repeats that differ by {spread:.1%}"
