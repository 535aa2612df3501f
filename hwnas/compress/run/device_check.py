"""Devices are opened before anything is trained for them: one that is not there is told in seconds."""

from __future__ import annotations

from collections.abc import Iterable

from hwnas.errors import DeviceBusyError, DeviceError, HwnasError
from hwnas.measurement import DeviceProfile
from hwnas.profiles.catalogue import open_device
from hwnas.progress import Progress

SKIP = "--no-device-check goes on without asking, for a device that is there later"


def check_devices(wanted: Iterable[tuple[DeviceProfile, str]], progress: Progress) -> None:
    """Open each device, take its fingerprint, and close it again.

    One that another process uses is there, and is waited for when its turn comes.

    Args:
        wanted: each device's profile, and the address of the Ray cluster that has it; empty where it hangs
            on this machine.

    Raises:
        DeviceError: some of them cannot be used, each with its cause and its fix.
    """
    failures: dict[str, HwnasError] = {}
    for profile, cluster in wanted:
        try:
            device = open_device(profile, cluster)
            device.lock_wait_s = 0.0
            with device:
                progress.say(f"device {profile.name}: {device.fingerprint().chip}")
        except DeviceBusyError as error:
            progress.say(f"{error.cause}; it is waited for when it is needed")
        except HwnasError as error:
            failures[profile.name] = error
    if not failures:
        return
    causes = "; ".join(f"device {name} cannot be used: {error.cause}" for name, error in failures.items())
    fixes = "; ".join(dict.fromkeys(error.fix for error in failures.values()))
    raise DeviceError(f"{causes}. Nothing was trained", f"{fixes}; {SKIP}")
