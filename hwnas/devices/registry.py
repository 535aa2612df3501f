"""Device classes by name, from the entry-point group `hwnas.devices`: ours and every plugin's."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from hwnas.devices.base import BaseDevice
from hwnas.ending import contained
from hwnas.errors import DeviceError, InputError

GROUP = "hwnas.devices"


def device_names() -> list[str]:
    """The names of all installed device classes, whether or not they can be imported."""
    return sorted(_entries())


def device_class(name: str) -> type[BaseDevice]:
    """The device class of a name.

    Raises:
        DeviceError: no such name, or its package cannot be imported.
    """
    entry = _entries().get(name)
    if entry is None:
        raise DeviceError(
            f"there is no device class {name!r}; known are {', '.join(device_names()) or 'none'}",
            "correct `device` in the profile, or install the package that brings it",
        )
    try:
        with contained(entry.value):
            found = entry.load()
    except InputError as error:
        raise _broken(entry, error.cause) from error
    except Exception as error:  # a plugin may fail in any way while it is imported
        raise _broken(entry, f"{type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, BaseDevice)):
        raise _broken(entry, f"{entry.value} is not a device class")
    return found


def broken_devices() -> dict[str, str]:
    """Device classes that cannot be used: name → the reason and the command that mends it."""
    reasons = {}
    for name in device_names():
        try:
            device_class(name)
        except DeviceError as error:
            reasons[name] = f"{error.cause}; {error.fix}"
    return reasons


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _broken(entry: EntryPoint, reason: str) -> DeviceError:
    package = entry.dist.name if entry.dist else entry.module.partition(".")[0]
    return DeviceError(
        f"device class {entry.name!r} cannot be imported: {reason}", f"pip install --upgrade {package}"
    )
