"""Where independent tasks run. A task is plain values in, plain values out; it writes no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_local(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
    """Run tasks one after the other in this process; each result is given as soon as it is there."""
    for task in tasks:
        yield task, function(task)
