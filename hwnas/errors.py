"""The exceptions a user meets. Each one says what is wrong, why, and what to do about it."""

from __future__ import annotations

import errno

OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "_alloc_failed",
    "failed to allocate",
    "could not create a primitive",
    "could not create a memory",
    "could not execute a primitive",
    "unable to mmap",
    "failed to map segment",
    "can't start new thread",
    "thread creation failed",
)
"""How torch's allocators, oneDNN, CUDA, ONNX Runtime, safetensors, SQLite, Python and the loader say it."""


class HwnasError(Exception):
    """A failure with its cause and its fix. The command line prints it and exits with code 2.

    Args:
        cause: what is wrong, in one sentence, naming the thing (file, model, device) that is meant.
        fix: what to do about it, with the command where there is one.
    """

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.cause}\n  fix: {self.fix}"

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.cause, self.fix)


FOREIGN = ("onnxruntime", "safetensors", "sqlite3", "onnx")
CHAIN = 20  # exceptions that led to one


def first_line(error: BaseException) -> str:
    """What somebody else's exception says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class InputError(HwnasError):
    """What the user gave (a name, a file, an option) cannot be used."""


class RunDirectoryError(HwnasError):
    """The run directory was made with other settings or another version, is damaged, or is in use."""


class NoSpaceError(HwnasError):
    """Temporary files have no space left. It says nothing about the network that they were for."""


class DeviceError(HwnasError):
    """A device cannot be used at all: not found, refused, busy."""


class DeviceBusyError(DeviceError):
    """A device is there, and somebody else uses it."""


class DeviceLostError(DeviceError):
    """A device went away during a session. Everything measured before is kept."""


class NetworkFormError(HwnasError):
    """A network lacks the form (torch module, ONNX graph, precision) that something needs."""


class PreparationError(HwnasError):
    """A device refuses one network. It becomes a measurement failure; the session goes on."""


class DeadlineError(PreparationError):
    """A network took longer than its device's deadline, and was ended. Later it may not."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had, itself or by what led to it."""
    return _of_memory(error) is not None


def memory_error(error: BaseException) -> HwnasError:
    """What a user is told where memory ended."""
    return HwnasError(
        f"memory does not suffice: {first_line(_of_memory(error) or error)}",
        "give the same command again once other processes hold less of it, or with a higher limit (ulimit "
        "-v, a container's); for training, begin another run with a smaller --batch-size: --out PATH",
    )


def _of_memory(error: BaseException) -> BaseException | None:
    """The exception among those that led to one which says that memory ended."""
    left: BaseException | None = error
    for _ in range(CHAIN):
        if left is None:
            break
        if isinstance(left, MemoryError) or (isinstance(left, OSError) and left.errno == errno.ENOMEM):
            return left
        # Most are plain RuntimeErrors; some libraries' have no base class of their own.
        foreign = isinstance(left, RuntimeError | ImportError) or type(left).__module__.startswith(FOREIGN)
        if foreign and any(text in str(left).lower() for text in OUT_OF_MEMORY):
            return left
        left = left.__cause__ or (left.__context__ if isinstance(left, HwnasError) else None)
    return None
