"""The CPU quota that a process lives under (`docker --cpus`, Kubernetes' limits, systemd's CPUQuota).

Linux gives quotas to control groups, which nest: the tightest of a process' own group and of all groups
around it holds. Version 1 writes them into `cpu.cfs_quota_us`, version 2 into `cpu.max`
(https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html).
A group that lies outside of a container cannot be seen from inside of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")


@dataclass(frozen=True, kw_only=True)
class Throttling:
    """How often quotas held their groups back since these began; only differences mean something.

    Attributes:
        periods: of the quotas, in which the group had something to run.
        throttled_periods: those in which it was stopped until the next one.
        throttled_s: how long it was stopped, summed over CPUs.
    """

    periods: int
    throttled_periods: int
    throttled_s: float


def quota_cpus(root: Path = ROOT) -> float | None:
    """How many CPUs' time the process may use, by the tightest quota; None without one.

    Args:
        root: the folder that `/proc` and `/sys` lie in.
    """
    known = [quota for folder in _groups(root) if (quota := _quota(folder)) is not None]
    return min(known, default=None)


def throttling(root: Path = ROOT) -> Throttling:
    """The counters of all groups of the process that have a quota, added up. `root` as for `quota_cpus`."""
    counters = [_counters(folder) for folder in _groups(root) if _quota(folder) is not None]
    return Throttling(
        periods=sum(found.get("nr_periods", 0) for found in counters),
        throttled_periods=sum(found.get("nr_throttled", 0) for found in counters),
        throttled_s=sum(
            found.get("throttled_usec", 0) / 1e6 + found.get("throttled_time", 0) / 1e9 for found in counters
        ),
    )


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the process' groups, each before the one around it, of both versions."""
    own = _own_groups(root)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, of_kind = before.split(), after.split()
        if len(fields) < 5 or len(of_kind) < 3:
            continue
        if of_kind[0] == "cgroup2":
            path = own.get("")
        elif of_kind[0] == "cgroup" and "cpu" in of_kind[2].split(","):
            path = own.get("cpu")
        else:
            continue
        if path is not None:
            mounted = root / _unescaped(fields[4]).lstrip("/")
            inside = _inside(PurePosixPath(path), PurePosixPath(_unescaped(fields[3])))
            yield from (mounted / folder for folder in (inside, *inside.parents))


def _own_groups(root: Path) -> dict[str, str]:
    """The process' group by controller (version 1), and under the empty name that of version 2."""
    found: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _inside(path: PurePosixPath, mounted: PurePosixPath) -> PurePosixPath:
    """A group's folder below the mount; the mount itself where the group lies outside of what is mounted."""
    if ".." in path.parts or not path.is_relative_to(mounted):
        return PurePosixPath()
    return path.relative_to(mounted)


def _quota(folder: Path) -> float | None:
    """CPUs by one group's quota; None without one."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    if not words:
        words = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    try:
        quota_us, period_us = map(float, words)
    except ValueError:  # "max", or no such file
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def _counters(folder: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(folder / "cpu.stat"))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _unescaped(path: str) -> str:
    """A path of mountinfo, which writes spaces and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
