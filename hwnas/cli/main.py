"""The command `hwnas`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hwnas import __version__
from hwnas.cli import compress, devices, profile, space
from hwnas.cli.output import messages
from hwnas.errors import HwnasError

INTERRUPTED = 130

app = typer.Typer(
    name="hwnas",
    help="Measure whole networks on real devices, and compress them for those devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("compress", epilog=compress.EXAMPLE)(compress.compress)
app.command("profile", epilog=profile.EXAMPLE)(profile.profile)
app.command("devices", epilog=devices.EXAMPLE)(devices.devices)
app.command("space", epilog=space.EXAMPLE)(space.space)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(epilog="Example: `hwnas compress efficientnet_b0 --device cpu --data digits --preset quick`")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measure whole networks on real devices, and compress them for those devices."""


def main() -> None:
    """Run the command line. Failures that a user meets end with their fix and exit code 2."""
    try:
        app()
    except HwnasError as error:
        console = messages()
        console.print("[bold red]error:[/]", end=" ")
        console.print(error.cause, markup=False, highlight=False, soft_wrap=True)
        console.print("  [bold]fix:[/]", end=" ")
        console.print(error.fix, markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        messages().print("interrupted; the same command goes on from here")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
