"""Commands whose memory is limited: libraries that end the process where it ends are told as that.

OpenBLAS calls exit(), and an allocation that fails in a thread of C++ calls abort(): no exception reaches
Python. So under a limit a command runs in a child, which says so when it has ended in order.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType

LIMITS = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}
PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
NOT_DONE = 2
PR_SET_PDEATHSIG = 1


def limit_of_memory() -> str:
    """The limit that this process is under, `ulimit -v 4000000`; empty where there is none."""
    for name, limit in LIMITS.items():
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            return f"{name} {soft // 1024}"
    return ""


def run_within(limit: str, command: Callable[[], None]) -> None:
    """Run a command in a child and end as it ends; exit code 2 with a message where it does not end in order.

    Args:
        limit: for people.
    """
    parent = os.getpid()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _run(command, parent, writable)
    os.close(writable)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well

    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(child, number)

    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    in_order = os.read(readable, 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if in_order or -code in (*PASSED_ON, signal.SIGKILL):
        sys.exit(code if code >= 0 else 128 - code)
    print_failure(
        f"memory does not suffice under {limit}: a library ended the process ({_ended(code)})",
        "raise the limit, then give the same command again: what was stored is kept",
    )
    sys.exit(NOT_DONE)


def print_failure(cause: str, fix: str) -> None:
    """Say what is wrong without loading anything, which would take memory."""
    os.write(2, f"error: {cause}\n  fix: {fix}\n".encode(errors="replace"))


def _run(command: Callable[[], None], parent: int, writable: int) -> None:
    code: object = 1
    try:
        _end_with(parent)
        try:
            command()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(writable, b"\0")
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _end_with(parent: int) -> None:
    """Be killed as the parent is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(NOT_DONE)


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
