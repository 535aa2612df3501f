"""What a phone tells: its properties, and its clocks, temperatures and throttling at a moment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwnas.devices.android.adb import Link
from hwnas.devices.android.chips import Phone
from hwnas.measurement import Conditions

PROPERTIES = (
    "ro.serialno",
    "ro.product.model",
    "ro.product.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.build.version.sdk",
    "ro.build.version.release",
    "ro.build.display.id",
    "ro.vendor.build.fingerprint",
    "ro.product.cpu.abi",
)
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's names of the thermal statuses 0 to 6."""

MARK = "--hwnas--"
# What may not be read is left out: another shell's permissions are no error.
LOOK = f"""
dumpsys thermalservice 2>/dev/null; echo {MARK}; dumpsys battery 2>/dev/null; echo {MARK}
for zone in /sys/class/thermal/thermal_zone*; do
echo "$(basename $zone) $(cat $zone/type 2>/dev/null || echo unknown) $(cat $zone/temp 2>/dev/null)"; done
echo {MARK}
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
echo "$(basename $cpu) $(cat $cpu/cpufreq/scaling_cur_freq 2>/dev/null)"; done
echo {MARK}; cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null; echo {MARK}
cat /sys/class/kgsl/kgsl-3d0/gpuclk 2>/dev/null; echo {MARK}; cat /proc/loadavg 2>/dev/null
"""


@dataclass(frozen=True)
class PhoneState:
    """A phone's state at a moment; None where it does not tell."""

    conditions: Conditions
    thermal_status: int | None
    battery_c: float | None

    def too_hot(self, max_thermal_status: int, max_battery_c: float) -> str | None:
        """Why a latency of this moment would not count; None where it does."""
        if self.thermal_status is not None and self.thermal_status > max_thermal_status:
            return f"thermal status {self.thermal_status} ({THERMAL_STATUS[min(self.thermal_status, 6)]})"
        if self.battery_c is not None and self.battery_c > max_battery_c:
            return f"battery at {self.battery_c:g} °C"
        return None


def read_phone(link: Link) -> Phone:
    """The phone's properties. Raises LinkLost."""
    names = " ".join(PROPERTIES)
    answer = link.shell(f'for name in {names}; do echo "$name=$(getprop $name)"; done')
    rows = (row.partition("=") for row in answer.output.splitlines())
    return Phone({name: value.strip() for name, _, value in rows})


def read_state(link: Link, max_thermal_status: int, max_battery_c: float) -> PhoneState:
    """The phone's state now. Raises LinkLost."""
    sections = link.shell(LOOK).output.split(f"{MARK}\n")
    thermal, battery, zones, cpus, governor, gpu, load = [*sections, *[""] * 7][:7]
    temperatures_c = {}
    for row in zones.splitlines():
        zone, _, rest = row.partition(" ")
        kind, _, text = rest.rpartition(" ")
        value = _number(text)
        if value is not None:
            temperatures_c[f"{zone} {kind}"] = value / 1000
    battery_tenths = _found(r"^\s*temperature:\s*(-?\d+)", battery)
    if battery_tenths is not None:
        temperatures_c["battery"] = battery_tenths / 10
    clocks_mhz = {}
    for row in cpus.splitlines():
        cpu, _, text = row.partition(" ")
        khz = _number(text)
        if khz is not None:
            clocks_mhz[cpu] = khz / 1000
    gpu_hz = _number(gpu)
    if gpu_hz is not None:
        clocks_mhz["gpu"] = gpu_hz / 1e6
    status = _found(r"^\s*Thermal Status:\s*(\d+)", thermal)
    found = PhoneState(
        Conditions(),
        None if status is None else int(status),
        None if battery_tenths is None else battery_tenths / 10,
    )
    heat = found.too_hot(max_thermal_status, max_battery_c)
    known = found.thermal_status is not None or found.battery_c is not None
    conditions = Conditions(
        clocks_mhz=clocks_mhz,
        temperatures_c=temperatures_c,
        throttled=heat is not None if known else None,
        load=_number(load.partition(" ")[0]),
        limits=() if heat is None else (heat,),
        governor=governor.strip() or None,
    )
    return PhoneState(conditions, found.thermal_status, found.battery_c)


def _found(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else float(match[1])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
