"""The history as a file of JSON lines, for sharing: one measurement a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from hwnas.errors import InputError
from hwnas.files import read_bytes, write_bytes
from hwnas.measurement import Measurement
from hwnas.profiles.profile_rows import read_measurements
from hwnas.profiles.store import MeasurementStore


def export_lines(path: Path, measurements: Iterable[Measurement]) -> int:
    """Write measurements, raw samples included, and say how many. The file is whole or not there."""
    lines = [json.dumps(measurement.to_json(), allow_nan=False) for measurement in measurements]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def import_file(path: Path, store: MeasurementStore) -> tuple[int, int]:
    """Add what the store does not have yet: (added, known already). All of the file or nothing of it.

    Args:
        path: JSON lines as `export_lines` writes them, or what `hwnas profile --json` printed.

    Raises:
        InputError: a line that is no measurement, or of a newer version; its number is named.
    """
    measurements = _read(path)
    added = store.add_new(measurements)
    return added, len(measurements) - added


def _read(path: Path) -> list[Measurement]:
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text", "give a file that hwnas history export wrote") from None
    if text.lstrip().startswith("["):
        return _not_empty(read_measurements(_parse(text, str(path)), str(path)), path)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    found = [
        Measurement.from_json(_parse(line, f"{path}, line {number}"), f"{path}, line {number}")
        for number, line in lines
    ]
    return _not_empty(found, path)


def _not_empty(found: list[Measurement], path: Path) -> list[Measurement]:
    if not found:
        raise InputError(f"{path} holds no measurement", "give a file that hwnas history export wrote")
    return found


def _parse(text: str, source: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{source} is not valid JSON: {error}", "give a file that hwnas history export wrote"
        ) from None
