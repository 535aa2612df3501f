"""The exceptions a user meets. Each one says what is wrong, why, and what to do about it."""

from __future__ import annotations


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
