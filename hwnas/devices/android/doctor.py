"""Walks from the cable to a measured network, and says at each step what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from hwnas.devices.android.adb import Link, LinkLost, find_serial
from hwnas.devices.android.chips import check_phone
from hwnas.devices.android.device import AndroidDevice
from hwnas.devices.android.libraries import find_libraries, find_runner
from hwnas.devices.android.settings import Settings
from hwnas.devices.android.snapshot import PhoneState, read_phone, read_state
from hwnas.devices.doctor import Finding, tiny_network
from hwnas.errors import HwnasError
from hwnas.measurement import DeviceProfile


def examine(profile: DeviceProfile) -> Iterator[Finding]:
    """One finding a step, in order. One with a fix is the last, but for heat: what follows needs it.

    Raises:
        DeviceError: the profile itself is wrong.
    """
    device = AndroidDevice(profile)
    settings = device.settings
    step = ""
    try:
        step = "cable and authorisation"
        link = Link(find_serial(settings.target))
        yield Finding(step, f"phone {link.serial} answers")
        step = "chip"
        phone = read_phone(link)
        check_phone(phone, profile.name, settings, profile.power_mode)
        android = phone["ro.build.version.release"] or "of unknown version"
        yield Finding(step, f"{phone.model}, {phone.chip_name}, Android {android}")
        step = "runtime libraries"
        libraries = find_libraries(settings, phone)
        yield Finding(step, f"{', '.join(path.name for path in libraries)} in {libraries[0].parent}")
        step = "runner"
        yield Finding(step, str(find_runner(settings, phone)))
        step = "thermal state"
        yield _thermal(step, read_state(link, settings.max_thermal_status, settings.max_battery_c), settings)
        step = "provider and a tiny network"
        with device:
            handle = device.prepare(tiny_network())
            samples_ms = device.sample(handle, runs=5, seconds=0)
            where = ", ".join(handle.placement) or "a provider that is not told"
            yield Finding(step, f"{min(samples_ms):.3f} ms on {where}; {device.fingerprint().runtime}")
    except HwnasError as error:
        yield Finding(step, error.cause, error.fix)
    except LinkLost as error:
        yield Finding(step, f"the phone does not answer: {error}", "check the cable, then try again")


def _thermal(step: str, state: PhoneState, settings: Settings) -> Finding:
    heat = state.too_hot(settings.max_thermal_status, settings.max_battery_c)
    if heat is not None:
        fix = "let it cool down, out of its case and off the charger; a measurement waits for that by itself"
        return Finding(step, f"the phone is too hot: {heat}", fix)
    status = "unknown" if state.thermal_status is None else str(state.thermal_status)
    battery = "unknown" if state.battery_c is None else f"{state.battery_c:g} °C"
    return Finding(step, f"thermal status {status}, battery {battery}")
