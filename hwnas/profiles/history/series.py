"""What was measured of a network before: chosen from the history, drawn over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas import page
from hwnas.measurement import Fingerprint, Measurement
from hwnas.profiles.judgement import disturbed_by
from hwnas.profiles.statistics import median_interval
from hwnas.profiles.store import MeasurementStore

COLOURS = (page.BLUE, page.ORANGE, page.GREEN, page.PINK, page.GREY)
BAR = 40


def find_history(
    store: MeasurementStore, model: str, network_hash: str | None, device: str | None
) -> list[Measurement]:
    """The measurements of a network in the order of time.

    Args:
        model: as it was named when it was measured.
        network_hash: measurements of this content count as well, whatever they were named.
        device: the profile's name; None is every device.
    """
    found = [
        known
        for known in store.all()
        if isinstance(known, Measurement)
        and (known.network_name == model or known.network_hash == network_hash)
        and device in (None, known.device_name)
    ]
    return sorted(found, key=lambda measurement: measurement.started_at)


def bar(latency_ms: float, largest_ms: float) -> str:
    """A bar as long as the latency, against the largest one."""
    return "█" * max(1, round(BAR * latency_ms / largest_ms))


def write_history(path: Path, model: str, measurements: Sequence[Measurement]) -> None:
    """Write an HTML page with the latencies over time, a colour for each fingerprint.

    Raises:
        InputError: the package plotly is not installed.
    """
    by_fingerprint: dict[Fingerprint, list[Measurement]] = {}
    for known in measurements:
        by_fingerprint.setdefault(known.fingerprint, []).append(known)
    names = {fingerprint: fingerprint.id[:8] for fingerprint in by_fingerprint}
    rows = [
        [
            known.started_at,
            f"{known.latency_ms:.3f}",
            known.device_name or "–",
            names[known.fingerprint],
            known.network_hash[:8],
            known.protocol.name,
            disturbed_by(known),
        ]
        for known in measurements
    ]
    descriptions = [
        f"{name}: {fingerprint.chip}; {fingerprint.os_build}; {fingerprint.runtime}; "
        f"{fingerprint.precision}; power mode {fingerprint.power_mode}."
        for fingerprint, name in names.items()
    ]
    plot = page.Plot(
        data=[
            _trace(of_fingerprint, names[fingerprint], colour)
            for (fingerprint, of_fingerprint), colour in zip(
                by_fingerprint.items(), itertools.cycle(COLOURS), strict=False
            )
        ],
        layout={
            "xaxis": {"title": {"text": "measured at (UTC)"}, "type": "date"},
            "yaxis": {"title": {"text": "median latency in ms"}, "rangemode": "tozero"},
            "showlegend": True,
        },
        label=f"latency of {model} over time, a colour for each fingerprint",
    )
    columns = ["measured at", "median ms", "device", "fingerprint", "network", "protocol", "disturbed by"]
    sections = [
        page.Section(
            heading="Over time",
            content=[plot, "Hollow points were disturbed while they were measured.", *descriptions],
        ),
        page.Section(heading="Measurements", content=[page.Table(columns=columns, rows=rows)]),
    ]
    page.write_page(path, f"History of {model}", sections)


def _trace(measurements: Sequence[Measurement], name: str, colour: str) -> dict[str, Any]:
    intervals = [median_interval(known.medians_ms) for known in measurements]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [known.started_at for known in measurements],
        "y": [interval.value for interval in intervals],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [interval.high - interval.value for interval in intervals],
            "arrayminus": [interval.value - interval.low for interval in intervals],
        },
        "text": [page.plot_text(_hover(known)) for known in measurements],
        "line": {"color": colour},
        "marker": {
            "size": 8,
            "symbol": ["circle-open" if disturbed_by(known) else "circle" for known in measurements],
        },
    }


def _hover(measurement: Measurement) -> str:
    """What a point says: its network, the load average, and what disturbed it."""
    load, disturbed = measurement.conditions[1].load, disturbed_by(measurement)
    told = [f"network {measurement.network_hash[:8]}"]
    told += [] if load is None else [f"load average {load:.1f}"]
    return ", ".join([*told, *([f"disturbed by {disturbed}"] if disturbed else [])])
