"""Processes of our own that end when whoever started them does, killed or not."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hwnas.ending import TERMINATED, Terminated

PR_SET_PDEATHSIG = 1
RESERVED_BYTES, RESERVED_BYTES_A_CORE = 2**32, 2**27
"""Addresses that allocators and threads reserve without ever using the memory."""


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


def ask(module: str, question: bytes, deadline_s: float) -> bytes:
    """What `python -m MODULE` answers on its output to a question on its input; nothing where it dies.

    Raises:
        TimeoutError: it took longer, and was killed.
    """
    command = [sys.executable, "-P", "-m", module]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the program is this Python
            command,
            input=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return done.stdout if done.returncode == 0 else b""


def usable_memory_bytes() -> int:
    """Memory that this process may still take: what is free, within its control group and its own limit."""
    bounds = [_free_bytes(), *_control_group_bytes()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        bounds.append(soft - _address_bytes())
    return max(0, min(bounds))


def confine(memory_bytes: int) -> None:
    """Bind this process: it ends with its parent, and is refused more than so many further bytes of memory.

    For a process that runs native code on somebody's file: it might never end, or ask for anything.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    reserved = RESERVED_BYTES + (os.cpu_count() or 1) * RESERVED_BYTES_A_CORE
    wanted = _address_bytes() + memory_bytes + reserved
    limits = [limit for limit in (wanted, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))


def _free_bytes() -> int:
    """What the kernel could give without swapping; all of the machine's memory where it does not tell."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_group_bytes() -> Iterator[int]:
    """What the control groups of this process leave, as a container's limit does."""
    root = Path("/sys/fs/cgroup")
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        unified = not controllers
        if not unified and "memory" not in controllers.split(","):
            continue
        own = root / path.lstrip("/") if unified else root / "memory" / path.lstrip("/")
        names = ("max", "current") if unified else ("limit_in_bytes", "usage_in_bytes")
        for folder in (own, *own.parents):
            limit, used = (_lines(folder / f"memory.{name}") for name in names)
            if limit and used and limit[0].isdecimal():
                yield int(limit[0]) - int(used[0]) + _cached_bytes(folder)
            if folder == root:
                break


def _cached_bytes(folder: Path) -> int:
    """Files that a control group keeps in memory, and that it gives up when it needs to."""
    counts = (line.split() for line in _lines(folder / "memory.stat"))
    return sum(int(count) for name, count in counts if name in ("inactive_file", "total_inactive_file"))


def _address_bytes() -> int:
    """Addresses in use, which is what RLIMIT_AS bounds."""
    first = _lines("/proc/self/statm")
    return int(first[0].split()[0]) * os.sysconf("SC_PAGE_SIZE") if first else 0


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
