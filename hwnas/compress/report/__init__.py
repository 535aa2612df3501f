"""`report.html`: what a run found out about one device, made only from what the run directory holds."""

from __future__ import annotations

import logging
from pathlib import Path

from hwnas.compress.report.sections import sections
from hwnas.compress.report.stored import device_folder, device_folders, read_run
from hwnas.compress.run.directory import refuse_links
from hwnas.errors import InputError, RunDirectoryError
from hwnas.page import INSTALL, is_available, write_page

FILE = "report.html"
_log = logging.getLogger(__name__)


def write_report(run: Path, folder: Path) -> Path:
    """Make one device's report (again).

    Args:
        folder: of the device, inside of the run directory.

    Raises:
        InputError: the package plotly is not installed.
        RunDirectoryError: a file of the run is missing or damaged, or the report cannot be written.
    """
    refuse_links(run)
    if not is_available():
        raise InputError("a report needs the package plotly, which is not installed", INSTALL)
    stored = read_run(run, folder)
    for file in stored.lost:
        _log.warning("%s is missing or damaged: the accuracy predictor is shown without it", file)
    path = folder / FILE
    write_page(path, f"{stored.settings.model} on {stored.device}", sections(stored))
    return path


def write_reports(run: Path, device: str | None) -> list[Path]:
    """Make the reports of a run, of one device or of all that have a front.

    A device whose files are damaged leaves the others.

    Raises:
        InputError: no run, no front, or no such device. Otherwise as `write_report`.
    """
    wanted = device_folders(run) if device is None else [device_folder(run, device)]
    written: list[Path] = []
    damaged: list[RunDirectoryError] = []
    for folder in wanted:
        try:
            written.append(write_report(run, folder))
        except RunDirectoryError as error:
            damaged.append(error)
    if damaged:
        raise RunDirectoryError("; ".join(error.cause for error in damaged), damaged[0].fix)
    return written
