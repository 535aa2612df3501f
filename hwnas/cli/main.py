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
    doctor,
    evaluate,
    explore,
    extend,
    history,
    partition,
    predict,
    profile,
    report,
    similarity,
    space,
    status,
)
from hwnas.cli.limited import limit_of_memory, print_failure, run_within
from hwnas.cli.output import Verdict, messages
from hwnas.cli.streams import lasting_messages, whole_output
from hwnas.ending import TERMINATED, Interrupted, Terminated, contained, explained, users_line
from hwnas.errors import HwnasError, is_out_of_memory, memory_error
from hwnas.processes import ended_by
from hwnas.version import __version__

INTERRUPTED = 130
NOT_DONE = 2
GOES_ON = ("compress", "batch", "extend", "check")
"""Commands that keep what they had done when they were interrupted."""

OWNERS = 3
"""Commands that are named as those of an option."""

_UsageError = typer.BadParameter.__mro__[1]


class _Commands(typer.core.TyperGroup):
    """Ends in order on a signal: temporary files go, a phone gets its settings back.

    What happened is told before typer makes an exit code of its own of it, which may be that of a verdict.
    """

    def invoke(self, ctx: Any) -> Any:
        signals: dict[int, BaseException] = {
            signal.SIGINT: Interrupted(),
            signal.SIGTERM: Terminated(TERMINATED),
        }
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
            signals[signal.SIGHUP] = Terminated(128 + signal.SIGHUP)
        try:
            with ended_by(signals), contained():
                return super().invoke(ctx)
        except Verdict as verdict:
            sys.exit(verdict.exit_code)
        except (Interrupted, typer.Abort):
            goes_on = ctx.invoked_subcommand in GOES_ON
            messages().print(f"interrupted{'; the same command goes on from here' * goes_on}")
            sys.exit(INTERRUPTED)
        except typer.Exit as error:
            if users_line(error):
                _fail(explained(error))
            raise  # of --help
        except Terminated:
            raise
        except Exception as error:
            if isinstance(error, _UsageError):
                _tell_whose_option(error, ctx.command)
                raise
            if is_out_of_memory(error):
                _fail_without_memory(error)
            _fail(explained(error))


def _tell_whose_option(error: Any, root: Any) -> None:
    """Name the commands that have an option which the one that was given lacks."""
    if not hasattr(error, "possibilities"):  # those that are spelled almost alike
        return
    commands = [(f"hwnas {name}", command) for name, command in root.commands.items()]
    owners = []
    for name, command in commands:
        commands += [(f"{name} {sub}", each) for sub, each in getattr(command, "commands", {}).items()]
        if any(error.option_name in option.opts for option in command.params):
            owners.append(name)
    if owners:
        more = " and others" if len(owners) > OWNERS else ""
        error.message += f"; it belongs to {', '.join(owners[:OWNERS])}{more}"
        error.possibilities = None


app = typer.Typer(
    cls=_Commands,
    name="hwnas",
    help="Measure whole networks on real devices, and compress them for those devices.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("compress", epilog=compress.EXAMPLE)(compress.compress)
app.command("plan", epilog=compress.PLAN_EXAMPLE)(compress.plan)
app.command("batch", epilog=batch.EXAMPLE)(batch.batch)
app.command("extend", epilog=extend.EXAMPLE)(extend.extend)
app.command("explore", epilog=explore.EXAMPLE)(explore.explore)
app.command("similarity", epilog=similarity.EXAMPLE)(similarity.similarity)
app.command("predict", epilog=predict.EXAMPLE)(predict.predict)
app.command("profile", epilog=profile.EXAMPLE)(profile.profile)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.add_typer(history.app, name="history")
app.add_typer(check.app, name="check")
app.command("status", epilog=status.EXAMPLE)(status.status)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.add_typer(devices.app)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("partition", epilog=partition.EXAMPLE)(partition.partition)
app.command("space", epilog=space.EXAMPLE)(space.space)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


FIRST = """hwnas measures whole networks on real devices, and compresses them for those devices.

Four things to do first:

  hwnas doctor
      which devices can be used here
  hwnas profile mobilenetv2_100 --device cpu
      how long a network takes on one of them; a file as well: net.onnx
  hwnas compare mobilenetv2_100 mobilenetv3_large_100 --device cpu
      which of two is faster, and by how much
  hwnas compress efficientnet_b0 --device cpu --data digits --preset quick
      a smaller network for this machine's CPU; --dry-run says what that takes

hwnas --help lists all commands, hwnas COMMAND --help the options of one."""


@app.callback(
    epilog="Example:\n\n```\nhwnas compress efficientnet_b0 --device cpu --data digits --preset quick\n```"
)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measure whole networks on real devices, and compress them for those devices."""
    if context.invoked_subcommand is None:
        typer.echo(FIRST)


def main() -> None:
    """Run the command line. All that is no verdict ends with a message, its fix, and exit code 2."""
    # OpenMP reads this when torch is imported. Threads that spin for long while they wait slow down training
    # on a machine that does anything else; those that never do are twice as slow with small networks.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if limit := limit_of_memory():
        run_within(limit, _main)
    else:
        _main()


def _main() -> None:
    with lasting_messages():
        try:
            with whole_output():
                app(prog_name="hwnas")
        except Exception as error:
            if is_out_of_memory(error):
                _fail_without_memory(error)
            _fail(_undelivered(error) if isinstance(error, OSError) else explained(error))


def _undelivered(error: OSError) -> HwnasError:
    closed = isinstance(error, BrokenPipeError)
    reason = "whoever read it has closed the pipe" if closed else error.strerror or str(error)
    return HwnasError(
        f"the output could not be written: {reason}",
        "let it be read to its end, or write it into a file: > FILE; what was stored is kept",
    )


def _fail_without_memory(error: Exception) -> NoReturn:
    told = memory_error(error)
    print_failure(told.cause, told.fix)
    sys.exit(NOT_DONE)


def _fail(error: HwnasError) -> NoReturn:
    console = messages()
    console.print("[bold red]error:[/]", end=" ")
    console.print(error.cause, markup=False, highlight=False, soft_wrap=True)
    console.print("  [bold]fix:[/]", end=" ")
    console.print(error.fix, markup=False, highlight=False, soft_wrap=True)
    sys.exit(NOT_DONE)
