"""Processes of our own that end when whoever started them does, killed or not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from hwnas.ending import TERMINATED, Terminated


@contextlib.contextmanager
def ended_by(signals: Mapping[int, BaseException]) -> Iterator[None]:
    """From here on each of these signals raises its exception, and that is what leaves this context.

    A signal is met wherever the program is just then, maybe within a library that makes an exception of
    its own of it, as pydantic does while it builds a schema.
    """
    received: list[int] = []

    def leave(number: int, _: object) -> NoReturn:
        received.append(number)
        raise signals[number]

    for number in signals:
        signal.signal(number, leave)
    try:
        yield
    except Exception:
        if not received:
            raise
        raise signals[received[-1]] from None


def start(
    module: str, arguments: Sequence[str] = (), inherited: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """`python -m MODULE` with pipes to its input and output; its messages go where ours do.

    An interrupt from the keyboard reaches this process alone, which then lets the other one end in order.

    Args:
        inherited: descriptors that it gets as well, under their numbers.
    """
    return subprocess.Popen(  # noqa: S603 - no shell, and the program is this Python
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=inherited,
        process_group=0,
    )


def end(process: subprocess.Popen[bytes], patience_s: float = 30.0) -> None:
    """Let a process end: it gives its devices back, and is killed only if it does not come to that."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it ended before it read what it was sent
        process.stdin.close()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@contextlib.contextmanager
def ending_with_parent() -> Iterator[None]:
    """What such a process does once it has read its input: it terminates in order when the input ends.

    It ends when the parent closes it, or when the kernel does because the parent is no more.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    with ended_by(dict.fromkeys((signal.SIGTERM, signal.SIGINT), Terminated(TERMINATED))):
        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending by itself
