"""The command line in this process, and what it said."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hwnas.cli import main as command_line


class Run:
    """What one call of `hwnas` did."""

    def __init__(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["hwnas", *arguments])
            patch.setenv("COLUMNS", "200")
            self.code = _exit_code()
        self.out, self.err = capsys.readouterr()


class OnTerminal:
    """What one call of `hwnas` wrote to terminals, one for each stream; without styles."""

    def __init__(self, *arguments: str, columns: int = 80) -> None:
        out: list[bytes] = []
        err: list[bytes] = []
        with (
            pytest.MonkeyPatch.context() as patch,
            _terminal(out, columns) as stdout,
            _terminal(err, columns) as stderr,
        ):
            patch.setattr("sys.argv", ["hwnas", *arguments])
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm")
            patch.setattr(sys, "stdout", os.fdopen(stdout, "w", closefd=False))
            patch.setattr(sys, "stderr", os.fdopen(stderr, "w", closefd=False))
            try:
                self.code = _exit_code()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
        self.out, self.err = (_text(stream) for stream in (out, err))


def _exit_code() -> int:
    """Call the command line; how it ends."""
    try:
        command_line.main()
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


@contextmanager
def _terminal(into: list[bytes], columns: int) -> Iterator[int]:
    """The descriptor of a terminal; what is written to it is kept."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def read() -> None:
        while True:
            try:
                into.append(os.read(reader, 1 << 16))
            except OSError:  # its other end is closed
                return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)


def _text(stream: list[bytes]) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(stream).decode().replace("\r\n", "\n"))


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
