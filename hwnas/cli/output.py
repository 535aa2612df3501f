"""Data goes to stdout, messages and progress to stderr; pipes get neither colours nor bars."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.progress import Progress

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Progress as Bars

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

QUIET_INTERVAL_S = 10.0


class Verdict(Exception):
    """Ends a command with an exit code that says what was found out. No other one ends it with 0 or 1."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def messages() -> Console:
    """The console for messages."""
    from rich.console import Console

    return Console(stderr=True, emoji=False)  # `net:a: slower` has none in it


def print_json(data: Any) -> None:
    """Print plain data as JSON on stdout."""
    typer.echo(json.dumps(data, indent=2, allow_nan=False))


def say(text: str) -> None:
    """Print a message on stderr; a terminal breaks long ones between words."""
    console = messages()
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


class TerminalProgress(Progress):
    """Bars with the time left on a terminal; a line every ten seconds in a log.

    Args:
        moves: whether bars go on between two messages, which takes time of the CPU that may be measured.
    """

    def __init__(self, *, moves: bool = True) -> None:
        self._moves = moves
        self.console = messages()
        self._bars: Bars | None = None
        self._tasks: dict[str, Any] = {}
        self._done: dict[str, int] = {}
        self._last_line_s = 0.0
        self._live = ""

    def __enter__(self) -> TerminalProgress:
        if self.console.is_terminal:
            from hwnas.cli.bars import make_bars

            self._bars = make_bars(self.console, lambda: self._live, moves=self._moves)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        so_far, self._live = self._live, ""
        if self._bars is not None:
            self._bars.stop()
        if so_far and kind is not None:
            self.say(f"so far: {so_far}")

    def stage(self, number: int, total: int, name: str) -> None:
        self.say(f"step {number} of {total}: {name}")

    def live(self, text: str) -> None:
        self._live = text
        if self._bars is not None:
            self._bars.refresh()

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        now_s = time.monotonic()
        begins_anew = done < self._done.get(step, 0)  # the search for another device, say
        self._done[step] = done
        if self._bars is not None:
            if begins_anew:
                self._bars.reset(self._tasks[step])
            if step not in self._tasks:
                self._tasks[step] = self._bars.add_task(step, total=total, remark=remark)
            self._bars.update(
                self._tasks[step], completed=done, total=total, remark=remark, refresh=not self._moves
            )
            return
        if begins_anew:
            del self._tasks[step]
        first_s, first_done = self._tasks.setdefault(step, (now_s, done))
        if done == total or now_s - self._last_line_s >= QUIET_INTERVAL_S:
            self._last_line_s = now_s
            rate = (now_s - first_s) / (done - first_done) if done > first_done else 0.0
            left = f", about {rate * (total - done):.0f} s left" if rate and done < total else ""
            self.say(f"{step}: {done}/{total}{left}{f' ({remark})' if remark else ''}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)
