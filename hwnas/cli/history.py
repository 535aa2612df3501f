"""`hwnas history MODEL`, `hwnas history export`, `hwnas history import`"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from hwnas.cli.output import Json, print_json, say
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.errors import InputError

if TYPE_CHECKING:
    from hwnas.measurement import Measurement

EXAMPLE = """Examples:

`hwnas history mobilenetv2_100 --device cpu --html history.html`

`hwnas history export ours.jsonl` and, elsewhere, `hwnas history import ours.jsonl`
"""
EXAMPLE_SHOW = "Example: `hwnas history show mobilenetv2_100 --device cpu --json`"
EXAMPLE_EXPORT = "Example: `hwnas history export ours.jsonl --model mobilenetv2_100 --json`"
EXAMPLE_IMPORT = "Example: `hwnas history import ours.jsonl --json`"

COLUMNS = (
    Column(name="measured at (UTC)", kind="name"),
    Column(name="device", kind="name", rank=1),
    Column(name="fingerprint", kind="name", rank=3),
    Column(name="network", kind="name", rank=6),
    Column(name="protocol", kind="name", rank=5),
    *figures("median ms", "95 % interval"),
    Column(name="", kind="name", rank=4),
    Column(name="disturbed by", rank=2),
)


class _ShowFirst(typer.core.TyperGroup):
    """`hwnas history MODEL` stands for `hwnas history show MODEL`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


app = typer.Typer(
    cls=_ShowFirst,
    help="What was measured before: kept in HWNAS_HOME, shown over time, shared as a file.",
    no_args_is_help=True,
    epilog=EXAMPLE,
    rich_markup_mode="markdown",
    context_settings={"ignore_unknown_options": True},
)


@app.command("show", epilog=EXAMPLE_SHOW)
def show(
    model: Annotated[str, typer.Argument(help="The network as it was named when it was measured.")],
    device: Annotated[
        str | None,
        typer.Option(help="Device profile.", show_default="all devices"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a plot over time here.")] = None,
    as_json: Json = False,
) -> None:
    """Show a network's latencies over time, by fingerprint. `hwnas history MODEL` does the same."""
    from hwnas import api
    from hwnas.profiles.history.series import write_history

    if html is not None and not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent}", f"mkdir -p {shlex.quote(str(html.parent))}")
    found = api.history(model, device)
    if html is not None:
        write_history(html, model, found)
        say(str(html))
    if as_json:
        print_json([measurement.to_json() for measurement in found])
    else:
        _show_table(found)


@app.command("export", epilog=EXAMPLE_EXPORT)
def export(
    file: Annotated[Path, typer.Argument(help="The file to write, one measurement a line.")],
    model: Annotated[
        str | None,
        typer.Option(help="Only this network.", show_default="all of them"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Only this device profile.", show_default="all of them"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write measurements with their raw samples to a file for sharing."""
    from hwnas import api

    count = api.export_history(file, model=model, device=device)
    plain = {"schema": "hwnas.exported/1", "file": str(file), "exported": count}
    _tell(as_json, f"{file}: {count} measurements", plain)


@app.command("import", epilog=EXAMPLE_IMPORT)
def import_(
    file: Annotated[
        Path, typer.Argument(help="What `hwnas history export` or `hwnas profile --json` wrote.")
    ],
    as_json: Json = False,
) -> None:
    """Add the measurements of a file; what is known already is not added again."""
    from hwnas import api

    added, known = api.import_history(file)
    text = f"{added} measurements added, {known} were there already"
    _tell(as_json, text, {"schema": "hwnas.imported/1", "file": str(file), "added": added, "known": known})


def _tell(as_json: bool, text: str, plain: dict[str, Any]) -> None:
    if as_json:
        print_json(plain)
    else:
        typer.echo(text)


def _show_table(found: list[Measurement]) -> None:
    from itertools import groupby

    from hwnas.profiles.history.series import bar
    from hwnas.profiles.judgement import disturbed_by
    from hwnas.profiles.statistics import median_interval

    largest_ms = max(measurement.latency_ms for measurement in found)
    names = {fingerprint: fingerprint.id[:8] for fingerprint in {known.fingerprint for known in found}}
    last = found[-1]
    interval = median_interval(last.medians_ms)
    print_text(
        f"last {interval.value:.3f} ms ({interval.low:.3f} … {interval.high:.3f}) "
        f"on {last.device_name or '–'}, {last.started_at.removesuffix('+00:00')}; "
        f"measurements: {len(found)}, fingerprints: {len(names)}"
    )
    sections = []
    for fingerprint, of_fingerprint in groupby(found, key=lambda known: known.fingerprint):
        section = []
        for measurement in of_fingerprint:
            interval = median_interval(measurement.medians_ms)
            row = (
                measurement.started_at.removesuffix("+00:00"),
                measurement.device_name or "–",
                names[fingerprint],
                measurement.network_hash[:8],
                measurement.protocol.name,
                f"{interval.value:.3f}",
                f"{interval.low:.3f} … {interval.high:.3f}",
                bar(interval.value, largest_ms),
                disturbed_by(measurement),
            )
            section.append(row)
        sections.append(section)
    print_table(COLUMNS, sections)
    for fingerprint in dict.fromkeys(measurement.fingerprint for measurement in found):
        name = names[fingerprint]
        print_text(f"{name}: {fingerprint.chip}; {fingerprint.os_build}; {fingerprint.runtime}")
