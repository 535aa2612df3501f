"""The command `hwnas`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from hwnas.cli import (
    batch,
    check,
    compare,
    compress,
    devices,
    extend,
    history,
    partition,
    predict,
    profile,
    report,
    space,
)
from hwnas.cli.limited import limit_of_memory, run_within, tell
from hwnas.cli.output import messages
from hwnas.errors import HwnasError, is_out_of_memory, memory_error
from hwnas.processes import TERMINATED, ended_by
from hwnas.version import __version__

INTERRUPTED = 130


class _Commands(typer.core.TyperGroup):
    """Ends in order on a signal: worktrees and temporary files go, a phone gets its settings back.

    What an interrupt means is told before typer turns it into an exit code of its own.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            with ended_by({signal.SIGINT: KeyboardInterrupt(), signal.SIGTERM: SystemExit(TERMINATED)}):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            messages().print("interrupted; the same command goes on from here")
            sys.exit(INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    name="hwnas",
    help="Measure whole networks on real devices, and compress them for those devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("compress", epilog=compress.EXAMPLE)(compress.compress)
app.command("batch", epilog=batch.EXAMPLE)(batch.batch)
app.command("extend", epilog=extend.EXAMPLE)(extend.extend)
app.command("predict", epilog=predict.EXAMPLE)(predict.predict)
app.command("profile", epilog=profile.EXAMPLE)(profile.profile)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.add_typer(history.app, name="history")
app.add_typer(check.app, name="check")
app.command("report", epilog=report.EXAMPLE)(report.report)
app.add_typer(devices.app)
app.command("partition", epilog=partition.EXAMPLE)(partition.partition)
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
    # OpenMP reads this when torch is imported. Threads that spin while they wait make training ten times
    # slower on a machine that does anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if limit := limit_of_memory():
        run_within(limit, _main)
    else:
        _main()


def _main() -> None:
    try:
        app()
    except HwnasError as error:
        if is_out_of_memory(error):
            _fail_without_memory(error)
        _fail(error.cause, error.fix)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if is_out_of_memory(error):
            _fail_without_memory(error)
        if not isinstance(error, OSError):
            raise
        _fail(
            f"the operating system refuses: {error}",
            "check free space and permissions, then give the same command again: what was stored is kept",
        )


def _fail_without_memory(error: Exception) -> NoReturn:
    told = memory_error(error)
    tell(told.cause, told.fix)
    sys.exit(2)


def _fail(cause: str, fix: str) -> NoReturn:
    console = messages()
    console.print("[bold red]error:[/]", end=" ")
    console.print(cause, markup=False, highlight=False, soft_wrap=True)
    console.print("  [bold]fix:[/]", end=" ")
    console.print(fix, markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
