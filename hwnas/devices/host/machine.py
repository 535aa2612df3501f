"""What the operating system tells about this machine; what it does not tell is unknown, not an error."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from hwnas.devices.host import cgroup
from hwnas.measurement import CpuTimes

CPUS = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")
ROOT = Path("/")
BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of a CPU in /proc/stat: user, nice, system, irq, softirq, and steal, which a hypervisor took."""


def allowed_cpus() -> set[int]:
    """The CPUs that this process may run on: all of them, or those of its affinity (taskset, cpuset)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def quota_cpus() -> float | None:
    """How many CPUs' time this process may use; None where its CPU quota is none, or binds nothing."""
    quota = cgroup.quota_cpus(ROOT)
    return None if quota is None or quota >= len(allowed_cpus()) else quota


def usable_cores() -> int:
    """How many threads run at once: as many as allowed CPUs, CPU quota and `OMP_NUM_THREADS` all let.

    A quota of 2.5 CPUs is two threads: three would use it up within each of its periods and then stand still
    until the next one. Below one CPU one thread remains, and stands still.
    """
    quota, wanted = quota_cpus(), os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = len(allowed_cpus()) if quota is None else max(1, int(quota))
    return min(threads, int(wanted)) if wanted.isdecimal() and int(wanted) else threads


def limits() -> list[str]:
    """What keeps this process from some of the machine's CPUs, for the fingerprint; mostly nothing."""
    allowed, every, quota = len(allowed_cpus()), os.cpu_count() or 1, quota_cpus()
    found = [f"{allowed} of {every} CPUs"] if allowed < every else []
    return found if quota is None else [*found, f"CPU quota {quota:.3g}"]


def cpu_times() -> CpuTimes | None:
    """The counters of the allowed CPUs and of the CPU quota; None where the system does not count.

    Ended children count as this process' own.
    """
    cpus, busy_ticks = allowed_cpus(), 0
    for line in (_text(ROOT / "proc/stat") or "").splitlines():
        name, *columns = line.split()
        if name[:3] == "cpu" and name[3:].isdecimal() and int(name[3:]) in cpus and len(columns) > BUSY[-1]:
            busy_ticks += sum(int(columns[column]) for column in BUSY)
    if not busy_ticks:
        return None
    own, throttled = os.times(), cgroup.throttling(ROOT)
    return CpuTimes(
        cpus=len(cpus),
        clock_s=time.monotonic(),
        busy_s=busy_ticks / os.sysconf("SC_CLK_TCK"),
        own_s=own.user + own.system + own.children_user + own.children_system,
        quota_cpus=quota_cpus(),
        quota_periods=throttled.periods,
        throttled_periods=throttled.throttled_periods,
        throttled_s=throttled.throttled_s,
    )


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
