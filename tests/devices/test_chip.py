"""Names of chips, from what systems write into /proc/cpuinfo, shortened to two cores."""

from __future__ import annotations

import itertools
import platform
from pathlib import Path

import pytest

from hwnas.devices.host.chip import chip

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz
stepping\t: 7
cpu MHz\t\t: 3000.000

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz
"""
ARM = """processor\t: {number}
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp
CPU implementer\t: {implementer}
CPU architecture: 8
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: {revision}
"""
ARM_32 = """processor\t: 0
model name\t: ARMv7 Processor rev 3 (v7l)
BogoMIPS\t: 270.00
CPU implementer\t: 0x41
CPU architecture: 7
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

Hardware\t: BCM2711
Revision\t: c03114
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
OLD_ARM_32 = """Processor\t: ARMv7 Processor rev 10 (v7l)
processor\t: 0
BogoMIPS\t: 1581.05

CPU implementer\t: 0x41
CPU architecture: 7
CPU variant\t: 0x2
CPU part\t: 0xc09
CPU revision\t: 10

Hardware\t: Freescale i.MX 6Quad/DualLite
"""
POWER = """processor\t: 0
cpu\t\t: POWER9, altivec supported
clock\t\t: 2166.000000MHz
revision\t: 2.2 (pvr 004e 1202)

timebase\t: 512000000
platform\t: PowerNV
model\t\t: 8335-GTH
"""
RISC_V = """processor\t: 0
hart\t\t: 1
isa\t\t: rv64imafdc
mmu\t\t: sv39
uarch\t\t: sifive,u74-mc
"""
LOONGSON = """system type\t\t: generic-loongson-machine

processor\t\t: 0
CPU Family\t\t: Loongson-64bit
Model Name\t\t: Loongson-3A5000
"""
S390X = """vendor_id       : IBM/S390
# processors    : 2
processor 0: version = FF,  identification = 0133E8,  machine = 2964
processor 1: version = FF,  identification = 0133E8,  machine = 2964
"""


def arm(*cores: tuple[str, str, str, str]) -> str:
    return "\n".join(
        ARM.format(number=number, implementer=implementer, part=part, variant=variant, revision=revision)
        for number, (implementer, part, variant, revision) in enumerate(cores)
    )


GRAVITON_2 = arm(*[("0x41", "0xd0c", "0x3", "1")] * 2)
GRAVITON_3 = arm(*[("0x41", "0xd40", "0x1", "1")] * 2)
AMPERE_ONE = arm(*[("0xc0", "0xac3", "0x0", "0")] * 2)
SNAPDRAGON = arm(
    ("0x51", "0x803", "0x7", "12"), ("0x51", "0x803", "0x7", "12"), ("0x51", "0x802", "0x6", "13")
)
HIDDEN = arm(*[("0x61", "0x000", "0x0", "0")] * 2)
DMI, TREE = "sys/class/dmi/id/", "proc/device-tree/model"
EC2 = {DMI + "sys_vendor": "Amazon EC2\n", DMI + "product_name": "c7g.large\n"}
ALTRA = {DMI + "sys_vendor": "GIGABYTE\n", DMI + "product_name": "R272-P30-JG\n"}
QEMU = {DMI + "sys_vendor": "QEMU\n", DMI + "product_name": "KVM Virtual Machine\n"}


def named(folder: Path, cpuinfo: str, files: dict[str, str] | None = None) -> str:
    for name, text in {"proc/cpuinfo": cpuinfo, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return chip(folder).rpartition(",")[0]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "node", lambda: "builder-7")
    return "builder-7"


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("cpuinfo", "files", "expected"),
    [
        (XEON, EC2, "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz"),
        (GRAVITON_2, EC2, "aarch64 0x41/0xd0c r3p1, Amazon EC2 c7g.large"),
        (GRAVITON_2, ALTRA, "aarch64 0x41/0xd0c r3p1, GIGABYTE R272-P30-JG"),
        (SNAPDRAGON, {TREE: "Thundercomm Dragonboard 845c\0"},
         "aarch64 1 × 0x51/0x802 r6p13, 2 × 0x51/0x803 r7p12, Thundercomm Dragonboard 845c"),
        (ARM_32, {TREE: "Raspberry Pi 4 Model B Rev 1.4\0"},
         "aarch64 0x41/0xd08 r0p3, Raspberry Pi 4 Model B Rev 1.4"),
        (OLD_ARM_32, {}, "aarch64 0x41/0xc09 r2p10, host builder-7"),
        (HIDDEN, QEMU, "aarch64 0x61/0x000 r0p0, QEMU KVM Virtual Machine, host builder-7"),
        (POWER, {}, "POWER9, altivec supported"),
        (RISC_V, {}, "sifive,u74-mc"),
        (LOONGSON, {}, "Loongson-3A5000"),
        (S390X, {}, "aarch64, host builder-7"),
        ("", {}, "aarch64, host builder-7"),
        ("\0\xff:\n\n: :", {}, "aarch64, host builder-7"),
    ],
)  # fmt: skip
def test_the_name_of_a_chip(tmp_path: Path, cpuinfo: str, files: dict[str, str], expected: str) -> None:
    assert named(tmp_path, cpuinfo, files) == expected


def test_no_two_chips_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no architecture either, where only its name was known before."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    names: list[str] = []
    monkeypatch.setattr(platform, "node", lambda: f"host{len(names)}")
    systems: tuple[tuple[str, dict[str, str]], ...] = (
        (GRAVITON_2, EC2), (GRAVITON_2, ALTRA), (GRAVITON_2, QEMU), (GRAVITON_2, {}), (GRAVITON_3, EC2),
        (AMPERE_ONE, EC2), (HIDDEN, QEMU), (HIDDEN, {}), (HIDDEN, {TREE: "linux,dummy-virt\0"}),
        (ARM_32, {}), (OLD_ARM_32, {}), (S390X, {}), ("", {}), ("", {}), (XEON, {}),
    )  # fmt: skip
    for number, (cpuinfo, files) in enumerate(systems):
        names.append(named(tmp_path / str(number), cpuinfo, files))
    assert all(first != second for first, second in itertools.combinations(names, 2))


def test_an_x86_keeps_the_name_that_histories_know() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    known = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if not known or platform.machine() != "x86_64":
        pytest.skip("this is no x86 under Linux")
    assert chip().startswith(f"{known[0]}, ")
