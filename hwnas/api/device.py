"""Devices: which there are, and what a phone needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError, InputError

if TYPE_CHECKING:
    from hwnas.devices.doctor import Finding, Reached
    from hwnas.measurement import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class KnownDevice:
    """A device profile by its name.

    Attributes:
        profile: None where it cannot be used.
        kind: what its latencies are: `measured`, `modelled`, …; empty where it cannot be used.
        error: why it cannot.

    >>> import hwnas.api
    >>> known = {each.name: each for each in hwnas.api.known_devices()}
    >>> known["sim-npu"].kind
    'modelled'
    """

    name: str
    profile: DeviceProfile | None
    kind: str = ""
    error: str = ""


def devices() -> list[DeviceProfile]:
    """Return the device profiles, those that come with hwnas and the user's own.

    >>> import hwnas
    >>> "cpu" in [profile.name for profile in hwnas.devices()]
    True
    """
    from hwnas.profiles.catalogue import load_profile, profile_names

    return [load_profile(name) for name in profile_names()]


def known_devices() -> list[KnownDevice]:
    """Return all device profiles by name, those that cannot be used among them.

    >>> import hwnas.api
    >>> [device.kind for device in hwnas.api.known_devices() if device.name == "sim-npu"]
    ['modelled']
    """
    from hwnas.profiles.catalogue import load_profile, open_device, profile_names

    found = []
    for name in profile_names():
        try:
            profile = load_profile(name)
            found.append(KnownDevice(name=name, profile=profile, kind=open_device(profile).kind))
        except HwnasError as error:
            found.append(KnownDevice(name=name, profile=None, error=error.cause))
    return found


def reach_devices() -> Iterator[Reached]:
    """Open each device that has a profile, and yield whether it can be used here: phones, GPUs, a cloud.

    >>> import hwnas.api
    >>> found = {each.device: each for each in hwnas.api.reach_devices()}
    >>> found["sim-npu"].is_here
    True
    >>> found["s20-gpu"].is_here or bool(found["s20-gpu"].fix)
    True
    """
    from hwnas.devices.doctor import Reached, reach
    from hwnas.profiles.catalogue import load_profile, profile_names

    for name in profile_names():
        try:
            profile = load_profile(name)
        except HwnasError as error:
            yield Reached(device=name, runtime="", kind="", is_here=False, text=error.cause, fix=error.fix)
        else:
            yield reach(profile)


def broken_device_classes() -> Mapping[str, str]:
    """Return the installed device classes that cannot be imported, with the reason of each.

    >>> import hwnas.api
    >>> hwnas.api.broken_device_classes()
    {}
    """
    from hwnas.devices.registry import broken_devices

    return broken_devices()


def set_up_phone(
    name: str,
    log: Callable[[str], None],
    *,
    runtime_dir: Path | None = None,
    ndk: str = "",
    repository: str = "",
) -> None:
    """Bring what a phone needs: libraries, a runner built for it, and both on the phone if one is there.

    Args:
        name: of its profile.
        log: hears what is done.
        runtime_dir: a folder that has the libraries; None downloads them.
        ndk: folder of Android's NDK; empty for $ANDROID_NDK_HOME.
        repository: of Maven; empty for Maven Central.

    Raises:
        InputError: it is no phone, or something cannot be had.

    >>> import hwnas.api
    >>> hwnas.api.set_up_phone("cpu", print)
    Traceback (most recent call last):
        ...
    hwnas.errors.InputError: cpu is no phone on a cable: it needs no setup
      fix: hwnas devices lists the profiles
    """
    from hwnas.devices.android import setup
    from hwnas.devices.android.device import AndroidDevice

    device = AndroidDevice(_phone(name))
    if runtime_dir is not None:
        setup.adopt_libraries(device.settings.provider, runtime_dir, log)
    elif not device.settings.runtime_dir:
        setup.fetch_libraries(device.settings.provider, (repository or setup.REPOSITORY).rstrip("/"), log)
    if not device.settings.runner:
        setup.build_runner(ndk, log)
    try:
        with device:
            log(f"phone: {device.fingerprint().chip} has everything; {device.fingerprint().runtime}")
    except HwnasError as error:
        log(f"nothing was copied to a phone: {error.cause}\n  fix: {error.fix}")


def examine_device(name: str, *, runtime_dir: Path | None = None) -> Iterator[Finding]:
    """Examine a device step by step, to a tiny network: a phone from the cable, another from its runtime.

    A queue in a cloud is reached and given no job.

    Args:
        name: of its profile.
        runtime_dir: of a phone: a folder that has the libraries; None for the profile's.

    Yields:
        What each step found; its `fix` is empty where all is well.

    Raises:
        InputError: there is no such profile, or a folder of libraries is given and it is no phone.

    >>> import hwnas.api
    >>> next(hwnas.api.examine_device("s20-gpu")).step
    'cable and authorisation'
    >>> [finding.fix for finding in hwnas.api.examine_device("sim-npu")]
    ['', '', '']
    """
    from hwnas.devices import doctor
    from hwnas.devices.android import doctor as phone_doctor
    from hwnas.profiles.catalogue import load_profile, with_options

    profile = load_profile(name) if runtime_dir is None else _phone(name)
    if profile.device == "android":
        folder = None if runtime_dir is None else str(runtime_dir)
        yield from phone_doctor.examine(with_options(profile, runtime_dir=folder))
    else:
        yield from doctor.examine(profile)


def _phone(name: str) -> DeviceProfile:
    from hwnas.profiles.catalogue import load_profile

    profile = load_profile(name)
    if profile.device != "android":
        raise InputError(
            f"{name} is no phone on a cable: it needs no setup", "hwnas devices lists the profiles"
        )
    return profile
