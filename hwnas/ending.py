"""What ends a command: a key, a signal, and never code of the user's, which says so instead."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hwnas.errors import HwnasError, InputError, first_line
from hwnas.extras import missing_package

TERMINATED = 143
TRACEBACK = "HWNAS_TRACEBACK"
"""Set in the environment, it shows the traceback of what ends a command, to whom mends it."""

ENDS = ("_exit", "abort", "execv", "execve")
"""Functions of os after which the process is not there; other ways to another program call the last two."""

_PACKAGE = Path(__file__).parent
_ALARMS = (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2)
"""What programs send themselves, and what ends a process that does not expect it."""


class Terminated(SystemExit):
    """A signal of somebody else's asks the process to end."""


class Interrupted(KeyboardInterrupt):
    """The user pressed the key."""


class _Ended(SystemExit):
    """What would have ended the process without an exception. Its arguments: what, and where."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def contained(what: str = "") -> Iterator[None]:
    """Run code of the user's, which must not end the process with an exit code of its own.

    Neither sys.exit(), os._exit(), os.abort() and os.exec…() do it, nor an alarm, nor an exception that is
    no Exception.
    A key that was pressed and a signal that was sent end this context as what they are.

    Args:
        what: the code, for the message; empty names the line alone.

    Raises:
        InputError: it would have, with the line of source.
    """
    try:
        with _without_ends():
            yield
    except Exception:
        raise
    except (Terminated, Interrupted):
        raise
    except BaseException as error:
        key = signal.getsignal(signal.SIGINT)
        if isinstance(error, KeyboardInterrupt) and key is signal.default_int_handler:
            raise  # nobody but Python itself knows whether it was the key
        place = error.args[1] if isinstance(error, _Ended) else source_line(error)
        raise InputError(
            f"{what or place} ends the process instead of returning: {_said(error)}"
            + (f", in {place}" if what else ""),
            "let it neither call sys.exit() nor read the command line, and set no alarm; what its module "
            "does as a script goes under if __name__ == '__main__':",
        ) from error


def _said(error: BaseException) -> str:
    if isinstance(error, _Ended):
        return str(error)
    name, text = type(error).__name__, first_line(error)
    return name if text == name else f"{name}: {text}"


@contextmanager
def _without_ends() -> Iterator[None]:
    """What ends the process without an exception raises one in the main thread. May be nested."""
    if threading.current_thread() is not threading.main_thread() or isinstance(os._exit, _Refused):
        yield
        return
    told: list[_Ended] = []  # by other threads
    ends = {name: getattr(os, name) for name in ENDS}

    def alarmed(number: int, frame: FrameType | None) -> NoReturn:
        raise (
            told.pop()
            if told
            else _Ended(f"{signal.Signals(number).name} arrived", _line_of(_outward(frame)))
        )

    handlers = {number: signal.getsignal(number) for number in _ALARMS}
    free = [number for number, handler in handlers.items() if handler is signal.SIG_DFL]
    for number in free:
        signal.signal(number, alarmed)
    for name, function in ends.items():
        setattr(os, name, _Refused(name, function, told))
    try:
        yield
    finally:
        for name, function in ends.items():
            setattr(os, name, function)
        for number in free:
            if signal.getsignal(number) is alarmed:
                signal.signal(number, signal.SIG_DFL)


class _Refused:
    """Stands for a function that ends the process; in forked children it is that function."""

    def __init__(self, name: str, function: Callable[..., NoReturn], told: list[_Ended]) -> None:
        self._name, self._function, self._told, self._process = name, function, told, os.getpid()

    def __call__(self, *arguments: Any) -> NoReturn:
        if os.getpid() != self._process:
            self._function(*arguments)
        if sys._getframe().f_back is None:
            return  # type: ignore[misc]  # Python itself calls it, when the process ends anyway
        call = f"os.{self._name}({', '.join(map(repr, arguments))})"
        ended = _Ended(call, _line_of(_outward(sys._getframe(1))))
        if threading.current_thread() is not threading.main_thread():
            self._told.append(ended)
            _thread.interrupt_main(signal.SIGALRM)
            raise SystemExit  # ends the thread without a word
        raise ended


def explained(error: Exception) -> HwnasError:
    """What a user is told of any exception; one that nothing foresaw with the place that it comes from.

    The traceback goes to stderr where the environment asks for it.
    """
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if isinstance(error, HwnasError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return HwnasError(
            f"the operating system refuses: {error}",
            "check free space and permissions, then give the same command again: what was stored is kept",
        )
    if missing := missing_package(error):
        return InputError(*missing)
    own = users_line(error)
    hint = f"look at {own}; if nothing is wrong there, " if own else ""
    return HwnasError(
        f"unexpected failure: {_said(error)}, in {source_line(error)}",
        f"{hint}report it with what the same command says with {TRACEBACK}=1 before it",
    )


def source_line(error: BaseException) -> str:
    """Where an exception comes from, `net.py:12`: the user's line that led to it, else one of ours."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return _line_of(frames[::-1])


def users_line(error: BaseException) -> str:
    """The innermost line that is neither ours nor a library's among those that led to an exception, or ''."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [each for each in frames[::-1] if _rank(each[0].f_code.co_filename) == 0]
    return _line_of(own) if own else ""


def _outward(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    return list(traceback.walk_stack(frame))


def _line_of(frames: Sequence[tuple[FrameType, int]]) -> str:
    """The line of those in `frames`, innermost first, that says most to the user."""
    if not frames:
        return "an unknown place"
    frame, line = min(frames, key=lambda each: _rank(each[0].f_code.co_filename))
    path = Path(frame.f_code.co_filename)
    for root in (_PACKAGE.parent, Path.cwd()) if path.is_relative_to(_PACKAGE) else (Path.cwd(),):
        if path.is_relative_to(root):
            path = path.relative_to(root)
            break
    return f"{path}:{line}"


def _rank(file: str) -> int:
    """0 for code of the user's, 1 for a library's, 2 for ours, 3 for Python's own."""
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        return 2
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return 1
    if not path.is_absolute() or path.is_relative_to(sysconfig.get_path("stdlib")):
        return 3
    program = Path(sys.argv[0]).resolve() if sys.argv else path
    return 3 if path.resolve() == program else 0
