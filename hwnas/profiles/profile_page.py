"""The HTML report of `hwnas profile`: histogram and time-line of the samples of each network."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas import page
from hwnas.measurement import Layer, Measurement
from hwnas.profiles.protocols import describe
from hwnas.profiles.rows import operator_table, summarise, two_modes

BINS = 80
DRIFT = 0.05
DRAWN = 4000


def write_report(
    path: Path, measured: Sequence[tuple[str, Measurement]], layers: dict[str, Sequence[Layer]]
) -> None:
    """Write the report.

    Args:
        measured: model and measurement.
        layers: by network hash, the operators with their times.

    Raises:
        InputError: the package plotly is not installed.
    """
    sections = [page.Section(heading="Networks", content=[_overview(measured), *_session(measured)])]
    for model, measurement in measured:
        known = layers.get(measurement.network_hash) or measurement.layers
        sections.append(page.Section(heading=model, content=_network(model, measurement, known)))
    page.write_page(path, "hwnas profile", sections)


def findings(measurement: Measurement) -> list[str]:
    """What the samples show beside their median: drift, throttling, two modes, a slow start."""
    medians_ms = measurement.medians_ms
    found = []
    if len(medians_ms) >= 6:
        third = len(medians_ms) // 3
        change = statistics.median(medians_ms[-third:]) / statistics.median(medians_ms[:third]) - 1
        if abs(change) > DRIFT:
            found.append(f"drift: the last third of the repeats is {change:+.1%} against the first third")
    if two_modes([*itertools.chain.from_iterable(measurement.repeats_ms)]):
        found.append("two modes: the runs lie in two heaps; look at clocks, placement of threads, other work")
    if any(conditions.throttled for conditions in measurement.conditions):
        found.append("throttling: the device held its clocks back at the beginning or the end")
    return found


def _overview(measured: Sequence[tuple[str, Measurement]]) -> page.Table:
    rows = []
    for model, measurement in measured:
        known = summarise(measurement)
        latency = known["latency_ms"]
        rows.append(
            [
                model,
                f"{latency['value']:.3f}",
                f"{latency['low']:.3f} … {latency['high']:.3f}",
                f"{known['p90_ms']:.3f}",
                f"{known['p99_ms']:.3f}",
                f"{known['spread']:.1%}",
                f"{known['first_run_ms']:.3f}",
                f"{known['repeats']} × {known['runs'] // known['repeats']}",
                known["ending"],
            ]
        )
    columns = [
        "network",
        "median ms",
        "95 % interval",
        "p90 ms",
        "p99 ms",
        "spread",
        "first run ms",
        "runs",
        "end",
    ]
    return page.Table(columns=columns, rows=rows)


def _session(measured: Sequence[tuple[str, Measurement]]) -> list[page.Content]:
    if not measured:
        return []
    first = measured[0][1]
    fingerprint = first.fingerprint
    return [
        f"{first.device_name}: {fingerprint.chip}; {fingerprint.os_build}; {fingerprint.runtime}; "
        f"{fingerprint.precision}; power mode {fingerprint.power_mode}.",
        f"Protocol {describe(first.protocol)}. The interval is a bootstrap over repeats.",
    ]


def _network(model: str, measurement: Measurement, layers: Sequence[Layer]) -> list[page.Content]:
    content: list[page.Content] = list(findings(measurement)) or [
        "No drift, throttling or second mode is seen."
    ]
    content.append(page.Grid(plots=[histogram(measurement), timeline(measurement)]))
    if layers:
        rows = [
            [operator, unit, str(nodes), "–" if time_ms is None else f"{time_ms:.3f}"]
            for operator, unit, nodes, time_ms in operator_table(layers)
        ]
        content.append(page.Table(columns=["operator", "unit", "nodes", "ms together"], rows=rows))
    return content


def histogram(measurement: Measurement) -> page.Plot:
    """How often each latency was met; on a logarithmic axis, so that a few slow runs hide nothing."""
    samples_ms = [*itertools.chain.from_iterable(measurement.repeats_ms)]
    ticks_ms = _ticks(min(samples_ms), max(samples_ms))
    layout = _layout("latency in ms", "runs")
    layout["xaxis"] |= {
        "tickvals": [math.log10(tick_ms) for tick_ms in ticks_ms],
        "ticktext": [f"{tick_ms:.4g}" for tick_ms in ticks_ms],
    }
    return page.Plot(
        data=[
            {
                "type": "histogram",
                "x": [math.log10(sample_ms) for sample_ms in samples_ms],
                "nbinsx": BINS,
                "marker": {"color": page.BLUE},
                "hovertemplate": "%{y} runs<extra></extra>",
            }
        ],
        layout=layout,
        label="histogram of the latencies of all runs",
    )


def _ticks(low_ms: float, high_ms: float) -> list[float]:
    """Round values (1, 2, 5) between two latencies; evenly spaced ones where these lie close together."""
    decades = range(math.floor(math.log10(low_ms)), math.ceil(math.log10(high_ms)) + 1)
    round_ms = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    ticks_ms = [tick_ms for tick_ms in round_ms if low_ms <= tick_ms <= high_ms]
    if len(ticks_ms) >= 3:
        return ticks_ms
    return [low_ms + (high_ms - low_ms) * step / 4 for step in range(5)]


def timeline(measurement: Measurement) -> page.Plot:
    """The runs in order, with the median of each repeat above them; of very many only some."""
    samples_ms = [*itertools.chain.from_iterable(measurement.repeats_ms)]
    step = max(1, len(samples_ms) // DRAWN)
    ticks_ms = _ticks(min(samples_ms), max(samples_ms))
    runs_x = list(range(0, len(samples_ms), step))
    ends = [0, *itertools.accumulate(map(len, measurement.repeats_ms))]
    medians_x: list[int | None] = []
    medians_y: list[float | None] = []
    for (start, end), median_ms in zip(itertools.pairwise(ends), measurement.medians_ms, strict=True):
        medians_x += [start, end - 1, None]
        medians_y += [median_ms, median_ms, None]
    return page.Plot(
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "name": "runs",
                "x": runs_x,
                "y": samples_ms[::step],
                "marker": {"size": 3, "color": page.GREY},
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "median of each repeat",
                "x": medians_x,
                "y": medians_y,
                "line": {"color": page.ORANGE, "width": 3},
            },
        ],
        layout={
            **_layout("run", "latency in ms"),
            "yaxis": {
                "title": {"text": "latency in ms"},
                "type": "log",
                "tickvals": ticks_ms,
                "ticktext": [f"{tick_ms:.4g}" for tick_ms in ticks_ms],
            },
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.12},
        },
        label="latency of every run in order, with the median of each repeat",
    )


def _layout(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}, "showlegend": False}
