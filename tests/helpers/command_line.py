"""The command line in this process, and what it said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwnas.cli import main as command_line


class Run:
    """What one call of `hwnas` did."""

    def __init__(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["hwnas", *arguments])
            patch.setenv("COLUMNS", "200")
            try:
                command_line.main()
                self.code = 0
            except SystemExit as end:
                assert isinstance(end.code, int)
                self.code = end.code
        self.out, self.err = capsys.readouterr()


Hwnas = Callable[..., Run]


def refused(done: Run, cause: str, fix: str = "") -> None:
    """One message with its cause and its fix, exit code 2, nothing on stdout."""
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    _, _, message = done.err.partition("error: ")
    told, _, advice = message.partition("\n  fix: ")
    assert cause in told
    assert advice.strip()
    assert fix in advice
