"""What the terminal and logs say of long steps."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from hwnas.cli import output
from hwnas.cli.output import TerminalProgress


def test_a_step_that_begins_anew_has_a_time_left_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    clock_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock_s[0])
    with TerminalProgress() as progress:
        for passed_s, done in ((10, 1), (10, 2), (1000, 1), (20, 2)):
            clock_s[0] += passed_s
            progress.advance("search", done, 4)
    assert capsys.readouterr().err.splitlines() == [
        "search: 1/4",
        "search: 2/4, about 20 s left",
        "search: 1/4",
        "search: 2/4, about 40 s left",
    ]


def test_its_bar_begins_anew_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=StringIO(), force_terminal=True)
    monkeypatch.setattr(output, "messages", lambda: terminal)
    with TerminalProgress() as progress:
        assert progress._bars is not None
        progress.advance("search", 1, 4)
        progress.advance("search", 4, 4)
        (bar,) = progress._bars.tasks
        assert bar.finished
        progress.advance("search", 1, 5)
        (bar,) = progress._bars.tasks
        assert (bar.completed, bar.total, bar.finished) == (1, 5, False)
