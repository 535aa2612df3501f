"""What the operating system tells about this machine; what it does not tell is unknown, not an error."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CPUS = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chip() -> str:
    """The processor's name and its number of logical cores."""
    lines = (_text(CPUINFO) or "").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {os.cpu_count()} cores"


def os_build() -> str:
    """Kernel and distribution."""
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{kernel}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return kernel


def governor() -> str | None:
    """The frequency governor of the first core."""
    return _text(CPUS / "cpu0/cpufreq/scaling_governor")


def clocks_mhz() -> dict[str, float]:
    """Current frequency of each core."""
    found = {path: _number(path) for path in sorted(CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))}
    return {path.parts[-3]: khz / 1000 for path, khz in found.items() if khz is not None}


def temperatures_c() -> dict[str, float]:
    """Degrees Celsius by thermal zone; several zones may bear the same type."""
    temperatures = {}
    for zone in sorted(THERMAL.glob("thermal_zone*")):
        thousandths = _number(zone / "temp")
        if thousandths is not None:
            temperatures[f"{zone.name} {_text(zone / 'type') or 'unknown'}"] = thousandths / 1000
    return temperatures


def throttle_count() -> int | None:
    """How often the cores were throttled since the machine started; None where that is not counted."""
    counts = [_number(path) for path in CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if known else None


def load() -> float | None:
    """Runnable processes, averaged over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
