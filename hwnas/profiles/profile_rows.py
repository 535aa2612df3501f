"""What `hwnas profile` shows of each network, as plain data with a version, and read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from hwnas.errors import InputError
from hwnas.files import encode
from hwnas.measurement import Layer, Measurement, MeasurementResult
from hwnas.profiles.judgement import judge
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


def summarise(measurement: Measurement) -> dict[str, Any]:
    """The figures of one measurement; see docs/json.md."""
    first = (*measurement.warmup_ms, *measurement.repeats_ms[0])[0]
    return {
        "latency_ms": encode(median_interval(measurement.medians_ms)),
        "p90_ms": measurement.percentile_ms(90),
        "p99_ms": measurement.percentile_ms(99),
        "spread": measurement.spread,
        "throughput_per_s": measurement.throughput_per_s,
        "repeats": len(measurement.repeats_ms),
        "runs": sum(map(len, measurement.repeats_ms)),
        "first_run_ms": first,
        "warmup_runs": len(measurement.warmup_ms),
        "peak_memory_bytes": measurement.metrics.get("peak_memory_bytes"),
        "ending": ending(measurement.protocol, measurement.medians_ms),
        "judgement": [finding.text for finding in judge(measurement)],
    }


def row(model: str, device: str, result: MeasurementResult, layers: Sequence[Layer] = ()) -> dict[str, Any]:
    """One network's row as plain data; model and device as they were named."""
    if not isinstance(result, Measurement):
        return {"schema": SCHEMA, "model": model, "device": device, "failure": encode(result)}
    plain = {
        "schema": SCHEMA,
        "model": model,
        "device": device,
        "summary": summarise(result),
        "measurement": result.to_json(),
    }
    known = layers or result.layers
    return plain | ({"layers": [encode(layer) for layer in known]} if known else {})


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


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line a network, a header first; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_formula_safe(cell) for cell in _cells(plain)] for plain in rows])
    return text.getvalue()


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for a README or a comment."""
    lines = [
        "| network | device | median ms | 95 % interval | p90 ms | p99 ms | spread | runs | kind |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for plain in rows:
        names = [_cell(plain[key]) for key in ("model", "device")]
        if "failure" in plain:
            lines.append(f"| {' | '.join(names)} | failed | | | | | | |")
            continue
        known, latency = plain["summary"], plain["summary"]["latency_ms"]
        cells = [
            *names,
            f"{latency['value']:.3f}",
            f"{latency['low']:.3f} … {latency['high']:.3f}",
            f"{known['p90_ms']:.3f}",
            f"{known['p99_ms']:.3f}",
            f"{known['spread']:.1%}",
            f"{known['repeats']} × {known['runs'] // known['repeats']}",
            plain["measurement"]["kind"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    judged = [
        f"- {_cell(plain['model'])}: {text}"
        for plain in rows
        for text in plain.get("summary", {"judgement": []})["judgement"]
    ]
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


def _cells(plain: dict[str, Any]) -> list[Any]:
    if "failure" in plain:
        return [plain["model"], plain["device"], *[""] * (len(COLUMNS) - 4), plain["failure"]["reason"], ""]
    known, measurement = plain["summary"], plain["measurement"]
    latency = known["latency_ms"]
    memory = known["peak_memory_bytes"]
    return [
        plain["model"],
        plain["device"],
        latency["value"],
        latency["low"],
        latency["high"],
        *(known[key] for key in ("p90_ms", "p99_ms", "spread", "repeats", "runs", "throughput_per_s")),
        known["first_run_ms"],
        "" if memory is None else memory,
        measurement["kind"],
        "",
        "; ".join(known["judgement"]),
    ]


def _formula_safe(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, made plain."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
