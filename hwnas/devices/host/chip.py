"""The name of this machine's processor: what the system tells, such that two chips do not share one name."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path("/")
BRANDS = ("model name", "Model Name", "cpu", "cpu model", "uarch", "Processor")
"""Keys of /proc/cpuinfo whose value names a chip: x86, LoongArch, POWER, MIPS, RISC-V, older kernels."""
ARM = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
BRAND_COMMAND = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
"""On macOS: `Apple M1`, where Python only knows `arm`."""
GENERIC = ("virt", "qemu", "kvm", "vmware", "xen", "parallels", "bochs")
"""In the name of a machine that any chip may be behind."""


def chip(root: Path | None = None) -> str:
    """The processor's name and its number of logical cores.

    Where Linux has no name for a chip, as on ARM, it is the numbers by which ARM tells its designs apart
    (the main ID register), with the machine's name, since many makers build chips from one design. Where the
    machine has no name of its own either, as virtual ones, the host's name is added: latencies are then of
    this host alone.

    Args:
        root: the folder that `/proc` and `/sys` lie in; None is the system's.
    """
    return f"{_name(root or ROOT)}, {os.cpu_count()} cores"


def _name(root: Path) -> str:
    cores = _cores(_text(root / "proc/cpuinfo"))
    designs = Counter(tuple(core.get(key, "") for key in ARM) for core in cores if ARM[0] in core)
    machine = _machine(root)
    if designs:
        parts = ", ".join(_design(numbers, count, designs) for numbers, count in sorted(designs.items()))
        return f"{platform.machine()} {parts}, {machine}"
    shared: dict[str, str] = {}
    for core in cores:
        shared = core | shared
    brand = next((shared[key] for key in BRANDS if shared.get(key)), "") or _brand() or platform.processor()
    if brand and brand != platform.machine():
        return brand
    return f"{platform.machine()}, {machine}"


def _design(numbers: tuple[str, ...], count: int, designs: Counter[tuple[str, ...]]) -> str:
    """`0x41/0xd0c r3p1`; of chips with several kinds of cores also how many of this one."""
    implementer, part, variant, revision = numbers
    try:
        release = f" r{int(variant, 0)}p{int(revision, 0)}"
    except ValueError:
        release = ""
    of_all = f"{count} × " if len(designs) > 1 else ""
    return f"{of_all}{implementer}/{part or '?'}{release}"


def _cores(cpuinfo: str) -> list[dict[str, str]]:
    """The paragraphs of /proc/cpuinfo: one for each core, and on some systems one for all of them."""
    found: list[dict[str, str]] = []
    for paragraph in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        values = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        if values:
            found.append(values)
    return found


def _machine(root: Path) -> str:
    """The machine's name by its device tree or its firmware, and the host's where that says nothing."""
    model = _text(root / "proc/device-tree/model").strip("\0 \n")
    by_firmware = (_text(root / f"sys/class/dmi/id/{key}").strip() for key in ("sys_vendor", "product_name"))
    name = model or " ".join(filter(None, by_firmware))
    if name and not any(word in name.lower() for word in GENERIC):
        return name
    return ", ".join(filter(None, (name, f"host {platform.node()}")))


def _brand() -> str:
    if sys.platform != "darwin":
        return ""
    try:
        return subprocess.run(  # noqa: S603 - a fixed program
            BRAND_COMMAND, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
