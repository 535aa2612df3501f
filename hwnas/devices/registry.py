"""Device classes by name, from the entry-point group `hwnas.devices`: ours and every plugin's."""

from __future__ import annotations

from hwnas.devices.base import BaseDevice
from hwnas.errors import DeviceError
from hwnas.plugins import Registry

DEVICES = Registry(
    "hwnas.devices",
    "device class",
    "correct `device` in the profile, or install the package that brings it",
    DeviceError,
)


def device_names() -> list[str]:
    """Return the names of all installed device classes, whether or not they can be imported."""
    return DEVICES.names()


def device_class(name: str) -> type[BaseDevice]:
    """Return the device class of a name.

    Raises:
        DeviceError: no such name, or its package cannot be imported.
    """
    found = DEVICES.load(name)
    if not (isinstance(found, type) and issubclass(found, BaseDevice)):
        raise DEVICES.broken(name, f"{found!r} is not a device class")
    return found


def broken_devices() -> dict[str, str]:
    """Return the device classes that cannot be used: name → the reason and the command that mends it."""
    reasons = {}
    for name in device_names():
        try:
            device_class(name)
        except DeviceError as error:
            reasons[name] = f"{error.cause}; {error.fix}"
    return reasons
