"""What was measured before: `history`, `export_history`, `import_history`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError, InputError

if TYPE_CHECKING:
    from hwnas.measurement import Measurement
    from hwnas.profiles.store import MeasurementStore


def history(model: str, device: str | None = None) -> list[Measurement]:
    """Return what was measured of a network, in the order of time.

    Args:
        model: as it was named when it was measured; where nothing was of that name, any name of a network
            with the same content.
        device: a profile's name; None for all.

    Raises:
        InputError: nothing was measured of it.

    >>> import hwnas
    >>> measured = hwnas.profile("mobilenetv2_050", "sim-npu")
    >>> hwnas.api.history("mobilenetv2_050", "sim-npu")[-1].latency_ms == measured.latency_ms
    True
    """
    from hwnas.profiles.store import open_history

    with open_history() as store:
        found = _find(store, model, device)
    if not found:
        where = f" on {device}" if device else ""
        raise InputError(
            f"nothing was measured of {model!r}{where}",
            f"hwnas profile {shlex.quote(model)} --device {device or 'NAME'}",
        )
    return found


def export_history(
    path: str | os.PathLike[str], *, model: str | None = None, device: str | None = None
) -> int:
    """Write measurements with their raw samples to a file for sharing, and return how many.

    Args:
        path: of the file; one line of JSON a measurement.
        model, device: as for `history`; None for all.

    Raises:
        InputError: there is nothing to write. RunDirectoryError: the file cannot be written.

    >>> import hwnas
    >>> measured = hwnas.profile("mobilenetv2_050", "sim-npu")
    >>> hwnas.api.export_history("ours.jsonl", model="mobilenetv2_050", device="sim-npu") > 0
    True
    """
    from hwnas.measurement import Measurement
    from hwnas.profiles.history.exchange import export_lines
    from hwnas.profiles.store import open_history

    with open_history() as store:
        known = [result for result in store.all() if isinstance(result, Measurement)]
        found = (
            _find(store, model, device) if model else [m for m in known if device in (None, m.device_name)]
        )
    if not found:
        raise InputError("there is nothing to export", "hwnas profile MODEL --device NAME measures something")
    return export_lines(Path(path), found)


def import_history(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Add the measurements of a file, all of them or none, and return how many were new and how many known.

    Args:
        path: what `export_history` or `hwnas profile --json` wrote.

    Raises:
        InputError: a line of it is no measurement.

    >>> import hwnas
    >>> measured = hwnas.profile("mobilenetv2_050", "sim-npu")
    >>> count = hwnas.api.export_history("ours.jsonl")
    >>> hwnas.api.import_history("ours.jsonl") == (0, count)
    True
    """
    from hwnas.profiles.history.exchange import import_file
    from hwnas.profiles.store import open_history

    with open_history() as store:
        return import_file(Path(path), store)


def _find(store: MeasurementStore, model: str, device: str | None) -> list[Measurement]:
    """By name; where there is none of that name, by content, which older measurements know alone."""
    from hwnas.networks.find import find_network
    from hwnas.profiles.history.series import find_history

    found = find_history(store, model, None, device)
    if found:
        return found
    try:
        network_hash = find_network(model).hash
    except HwnasError:
        return []
    return find_history(store, model, network_hash, device)
