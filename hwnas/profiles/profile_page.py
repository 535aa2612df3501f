"""The HTML report of `hwnas profile`: histogram and time-line of the samples of each network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas import page
from hwnas.measurement import Layer, Measurement
from hwnas.profiles.judgement import as_sentence, clean_bill, judge
from hwnas.profiles.parts import PartsTimes
from hwnas.profiles.profile_rows import Profiled, figures, operator_table
from hwnas.profiles.protocols import describe

BINS = 80
DRAWN = 4000


def write_report(path: Path, profiled: Sequence[Profiled]) -> None:
    """Write the report of those that could be measured.

    Raises:
        InputError: the package plotly is not installed.
    """
    measured = [(row, row.result) for row in profiled if isinstance(row.result, Measurement)]
    content = [_overview([(row.model, result) for row, result in measured])]
    sections = [page.Section(heading="Networks", content=[*content, *_session(measured)])]
    for row, result in measured:
        sections.append(page.Section(heading=row.model, content=_network(result, row.known_layers)))
    sections += [
        page.Section(heading=f"{row.model}: each part alone", content=_parts(row.parts))
        for row in profiled
        if row.parts is not None
    ]
    page.write_page(path, "hwnas profile", sections)


def _overview(measured: Sequence[tuple[str, Measurement]]) -> page.Table:
    rows = []
    for model, measurement in measured:
        known = figures(measurement)
        rows.append(
            [
                model,
                f"{known.latency_ms.value:.3f}",
                known.interval,
                f"{known.p90_ms:.3f}",
                f"{known.p99_ms:.3f}",
                f"{known.spread:.1%}",
                f"{known.first_run_ms:.3f}",
                known.amount,
                known.ending,
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


def _session(measured: Sequence[tuple[Profiled, Measurement]]) -> list[page.Content]:
    if not measured:
        return []
    first = measured[0][1]
    fingerprint = first.fingerprint
    return [
        f"{first.device_name}: {fingerprint.chip}; {fingerprint.os_build}; {fingerprint.runtime}; "
        f"{fingerprint.precision}; power mode {fingerprint.power_mode}.",
        f"Protocol {describe(first.protocol)}. The interval is a bootstrap over repeats.",
    ]


def _network(measurement: Measurement, layers: Sequence[Layer]) -> list[page.Content]:
    judged = [as_sentence(finding.text) for finding in judge(measurement)]
    content: list[page.Content] = [*(judged or [clean_bill(measurement)]), *_conditions(measurement)]
    content.append(page.Grid(plots=[histogram(measurement), timeline(measurement)]))
    if layers:
        rows = [
            [operator, unit, str(nodes), "–" if time_ms is None else f"{time_ms:.3f}"]
            for operator, unit, nodes, time_ms in operator_table(layers)
        ]
        content.append(page.Table(columns=["operator", "unit", "nodes", "ms together"], rows=rows))
    return content


def _conditions(measurement: Measurement) -> list[page.Content]:
    """What the device told of itself before the first and after the last repeat."""
    before, after = measurement.conditions
    told = [
        (name, _figures(getattr(before, key)), _figures(getattr(after, key)))
        for key, name in (
            ("load", "load average"),
            ("clocks_mhz", "clocks, MHz"),
            ("temperatures_c", "temperatures, °C"),
            ("power_w", "power, W"),
            ("governor", "governor"),
            ("other_processes", "other processes"),
        )
    ]
    rows = [row for row in told if any(row[1:])]
    return [page.Table(columns=["conditions", "before", "after"], rows=rows)] if rows else []


def _figures(value: Any) -> str:
    """A sensor's value, or the range of several ones."""
    if isinstance(value, Mapping):
        values = sorted(value.values())
        if not values:
            return ""
        low, high = f"{values[0]:.4g}", f"{values[-1]:.4g}"
        return low if low == high else f"{low} … {high}"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _parts(parts: PartsTimes) -> list[page.Content]:
    rows = [
        [name, "failed" if latency_ms is None else f"{latency_ms:.3f}"]
        for name, latency_ms in parts.latencies_ms.items()
    ]
    table = page.Table(columns=["part", "median ms"], rows=rows)
    told = parts.describe()
    return [table, as_sentence(told)] if told else [table]


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
