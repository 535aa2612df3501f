"""The standard streams, such that no terminal, pipe or encoding costs a result."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def lasting_messages() -> Iterator[None]:
    """No message on stderr fails: where nobody can have it, it is lost, and nothing else is."""
    _open_closed_descriptors()
    err = sys.stderr
    sys.stderr = _Messages(err or open(os.devnull, "w"))  # noqa: SIM115, PTH123
    try:
        yield
    finally:
        sys.stderr = err


@contextmanager
def whole_output() -> Iterator[None]:
    """Write what goes to stdout in one piece at the end; to a terminal at once.

    So `| head -1` leaves a reader that is still there when the output is written. Characters that an encoding
    does not have are replaced.

    Raises:
        OSError: stdout did not take everything: its reader is gone, its disk is full, it is closed.
    """
    out = sys.stdout
    if out is not None and out.isatty():
        _replace_unknown(out)
        yield
        return
    held = _Held(io.BytesIO(), getattr(out, "encoding", None) or "utf-8", "replace", newline="")
    sys.stdout = held
    try:
        yield
    finally:
        sys.stdout = out
        _deliver(held, out)


class _Held(io.TextIOWrapper):
    """What goes to stdout; code of the user's that closes that loses nothing of ours."""

    def close(self) -> None:
        self.flush()


def _deliver(held: io.TextIOWrapper, out: TextIO | None) -> None:
    held.seek(0)
    text = held.read()
    if not text:
        return
    if out is None:
        raise OSError("stdout is closed")
    _replace_unknown(out)
    try:
        out.write(text)
        out.flush()
    except OSError:
        _silence(out)
        raise


def _replace_unknown(stream: TextIO) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")


class _Messages:
    """A stream whose failures are nobody's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            _silence(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            _silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _silence(stream: TextIO) -> None:
    """Let what is left in a broken stream go nowhere, where Python writes it when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_closed_descriptors() -> None:
    """No file of ours gets the number of a stream that was closed: what is printed would go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
