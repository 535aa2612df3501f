"""What `hwnas profile` tells of each network: one record, its forms, and what was printed read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hwnas.errors import InputError
from hwnas.files import encode
from hwnas.measurement import Interval, Layer, Measurement, MeasurementResult
from hwnas.profiles.judgement import judge
from hwnas.profiles.parts import PartsTimes
from hwnas.profiles.protocols import ending
from hwnas.profiles.statistics import median_interval

SCHEMA = "hwnas.profile/2"
"""Of a row. Version 1 had no key `schema`, and its `summary` fewer figures."""

COLUMNS = (
    "network",
    "device",
    "latency_ms",
    "low_ms",
    "high_ms",
    "p90_ms",
    "p99_ms",
    "spread",
    "repeats",
    "runs",
    "throughput_per_s",
    "first_run_ms",
    "peak_memory_bytes",
    "kind",
    "failure",
    "judgement",
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one measurement amounts to; docs/json.md says more of each.

    Attributes:
        latency_ms: the median with its 95 % interval.
        ending: why it took no more repeats.
        judgement: what stands against the figures.
    """

    latency_ms: Interval
    p90_ms: float
    p99_ms: float
    spread: float
    throughput_per_s: float
    repeats: int
    runs: int
    first_run_ms: float
    warmup_runs: int
    peak_memory_bytes: float | None
    ending: str
    judgement: tuple[str, ...]

    @property
    def interval(self) -> str:
        """`10.1 … 10.3`, in ms."""
        return f"{self.latency_ms.low:.3f} … {self.latency_ms.high:.3f}"

    @property
    def amount(self) -> str:
        """`8 × 30`: repeats and the runs of each."""
        return f"{self.repeats} × {self.runs // self.repeats}"


def figures(measurement: Measurement) -> Figures:
    """Sum up one measurement."""
    return Figures(
        latency_ms=median_interval(measurement.medians_ms),
        p90_ms=measurement.percentile_ms(90),
        p99_ms=measurement.percentile_ms(99),
        spread=measurement.spread,
        throughput_per_s=measurement.throughput_per_s,
        repeats=len(measurement.repeats_ms),
        runs=sum(map(len, measurement.repeats_ms)),
        first_run_ms=(*measurement.warmup_ms, *measurement.repeats_ms[0])[0],
        warmup_runs=len(measurement.warmup_ms),
        peak_memory_bytes=measurement.metrics.get("peak_memory_bytes"),
        ending=ending(measurement.protocol, measurement.medians_ms),
        judgement=tuple(finding.text for finding in judge(measurement)),
    )


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """One network on one device.

    Attributes:
        model, device: as they were named.
        layers: its operators with their times, where they were asked for.
        schedules: of a simulated device, by name, where they were asked for.
        parts: what each part takes alone, where that was asked for.
    """

    model: str
    device: str
    result: MeasurementResult
    layers: tuple[Layer, ...] = ()
    schedules: Mapping[str, Any] = field(default_factory=dict)
    parts: PartsTimes | None = None

    @property
    def known_layers(self) -> tuple[Layer, ...]:
        """Those that were asked for, or those that the device told unasked."""
        told = self.result.layers if isinstance(self.result, Measurement) else ()
        return self.layers or told

    def to_json(self) -> dict[str, Any]:
        """Return the row of `hwnas profile --json`."""
        plain: dict[str, Any] = {"schema": SCHEMA, "model": self.model, "device": self.device}
        if isinstance(self.result, Measurement):
            plain["summary"] = encode(figures(self.result))
            plain["measurement"] = self.result.to_json()
            if self.known_layers:
                plain["layers"] = encode(self.known_layers)
        else:
            plain["failure"] = encode(self.result)
        if self.schedules:
            plain["schedules"] = encode(dict(self.schedules))
        if self.parts is not None:
            plain["blocks"] = self.parts.to_json()
        return plain


def read_measurements(data: Any, source: str) -> list[Measurement]:
    """The measurements in what `hwnas profile --json` printed, in this version or an older one.

    Raises:
        InputError: something else, or of a newer version.
    """
    if not isinstance(data, list) or not all(isinstance(known, dict) and "model" in known for known in data):
        raise InputError(f"{source} is not what hwnas profile --json prints", "make it again")
    found = []
    for known in data:
        if known.get("schema", "hwnas.profile/1") not in ("hwnas.profile/1", SCHEMA):
            raise InputError(
                f"{source}: schema is {known['schema']!r}, this version of hwnas reads up to {SCHEMA!r}",
                "use the hwnas version that wrote it",
            )
        if "measurement" in known:
            found.append(Measurement.from_json(known["measurement"], source))
    return found


def as_csv(rows: Sequence[Profiled]) -> str:
    """One line a network, a header first; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_formula_safe(cell) for cell in _cells(row)] for row in rows])
    return text.getvalue()


def as_markdown(rows: Sequence[Profiled]) -> str:
    """A table for a README or a comment."""
    lines = [
        "| network | device | median ms | 95 % interval | p90 ms | p99 ms | spread | runs | kind |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    judged = []
    for row in rows:
        names = [_cell(name) for name in (row.model, row.device)]
        if not isinstance(row.result, Measurement):
            lines.append(f"| {' | '.join(names)} | failed | | | | | | |")
            continue
        known = figures(row.result)
        cells = [
            *names,
            f"{known.latency_ms.value:.3f}",
            known.interval,
            f"{known.p90_ms:.3f}",
            f"{known.p99_ms:.3f}",
            f"{known.spread:.1%}",
            known.amount,
            row.result.kind,
        ]
        lines.append(f"| {' | '.join(cells)} |")
        judged += [f"- {names[0]}: {text}" for text in known.judgement]
    return "\n".join([*lines, *([""] if judged else []), *judged]) + "\n"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def operator_table(layers: Sequence[Layer]) -> list[tuple[str, str, int, float | None]]:
    """(operator, unit, nodes, ms of all of them together), the slowest first; ms is None where unknown."""
    groups: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((layer.operator, layer.unit), []).append(layer)
    table = [
        (operator, unit, len(group), _sum([layer.time_ms for layer in group]))
        for (operator, unit), group in groups.items()
    ]
    return sorted(table, key=lambda line: -(line[3] or 0.0))


def _sum(times_ms: Sequence[float | None]) -> float | None:
    known = [time_ms for time_ms in times_ms if time_ms is not None]
    return sum(known) if known else None


def _cells(row: Profiled) -> list[Any]:
    if not isinstance(row.result, Measurement):
        return [row.model, row.device, *[""] * (len(COLUMNS) - 4), row.result.reason, ""]
    known = figures(row.result)
    latency, memory = known.latency_ms, known.peak_memory_bytes
    return [
        *(row.model, row.device, latency.value, latency.low, latency.high),
        *(known.p90_ms, known.p99_ms, known.spread, known.repeats, known.runs, known.throughput_per_s),
        known.first_run_ms,
        "" if memory is None else memory,
        row.result.kind,
        "",
        "; ".join(known.judgement),
    ]


def _formula_safe(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, made plain."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
