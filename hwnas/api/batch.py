"""What a plan of many compressions needs beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.measurement import DeviceProfile


def check_devices(wanted: Sequence[tuple[DeviceProfile, str]], progress: Progress | None = None) -> None:
    """Open each device once and close it again, before anything is trained for any of them.

    Args:
        wanted: each device's profile, and the address of the Ray cluster that has it; empty for this machine.

    Raises:
        DeviceError: some of them cannot be used, each with its cause and its fix.

    >>> import hwnas.api
    >>> hwnas.api.check_devices([(profile, "") for profile in hwnas.devices() if profile.name == "sim-npu"])
    """
    from hwnas.compress.run import device_check

    device_check.check_devices(wanted, progress or Progress())


def write_batch(
    folder: Path, runs: Sequence[Path], columns: Sequence[str], checkpoints: Sequence[Sequence[str]]
) -> Path:
    """Write one page for many runs: their checkpoints, and every comparison of devices.

    Args:
        folder: for the page.
        columns, checkpoints: the table of what was emitted.

    >>> from pathlib import Path
    >>> import hwnas.api
    >>> page = hwnas.api.write_batch(Path(), [Path("runs/a")], ["checkpoint"], [["steady-knee"]])
    >>> page.suffix
    '.html'
    """
    from hwnas.compress.report import cross_device

    return cross_device.write_batch(folder, runs, columns, checkpoints)
