"""Bars with the time left, and what is known so far below them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

BAR = 10
AROUND = BAR + len("0:00:00 left 0:00:00") + 5
"""Cells of a line beside the step, its count and the remark, with the gaps between all of them."""


class _Remark(TextColumn):
    """A remark that is shown whole or not at all, since it holds figures."""

    def __init__(self, console: Console, widest: Callable[[], int]) -> None:
        super().__init__("", table_column=Column(no_wrap=True))
        self._console = console
        self._widest = widest

    def render(self, task: Task) -> Text:
        remark = str(task.fields["remark"])
        fits = cell_len(remark) <= self._console.width - AROUND - self._widest()
        return Text(remark if fits else "")


class _Bars(Progress):
    def __init__(
        self, *columns: ProgressColumn, known: Callable[[], str], console: Console, moves: bool
    ) -> None:
        self._known = known
        super().__init__(
            *columns,
            console=console,
            auto_refresh=moves,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file stays there
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if known := self._known():
            yield Text(known)


def make_bars(console: Console, known: Callable[[], str], *, moves: bool) -> Progress:
    """Return bars that are not started yet.

    Args:
        known: what stands below them; nothing where it is empty.
        moves: whether they are drawn again between two changes.
    """

    def widest() -> int:
        tasks = bars.tasks
        steps = max(cell_len(str(task.description)) for task in tasks)
        return steps + max(len(f"{task.total:.0f}/{task.total:.0f}") for task in tasks if task.total) + 2

    bars = _Bars(
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        BarColumn(bar_width=BAR),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        _Remark(console, widest),
        known=known,
        console=console,
        moves=moves,
    )
    return bars
