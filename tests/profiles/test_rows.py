"""Rows of a profile in every form, and pages, from measurements that are made up."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import opened

from hwnas.errors import InputError
from hwnas.measurement import (
    Conditions,
    Fingerprint,
    Layer,
    Measurement,
    MeasurementFailure,
    MeasurementResult,
)
from hwnas.profiles.history.exchange import export_lines, import_file
from hwnas.profiles.history.series import bar, find_history, write_history
from hwnas.profiles.profile_page import histogram, write_report
from hwnas.profiles.profile_rows import Profiled, as_csv, as_markdown, operator_table, read_measurements
from hwnas.profiles.protocols import ADAPTIVE
from hwnas.profiles.store import MeasurementStore

FINGERPRINT = Fingerprint(
    chip="chip", os_build="os", driver="none", runtime="run", precision="fp32", power_mode="default"
)
STORED = Path(__file__).parents[1] / "stored" / "profile-1.json"
EVIL = "</script><b>=1+1|x"


def measurement(name: str = "net", count: int = 8, scale: float = 1.0) -> Measurement:
    draws = scale * (10 + np.random.default_rng(len(name)).random((count, 30)))
    return Measurement(
        network_hash=f"hash of {name}",
        kind="measured",
        repeats_ms=tuple(map(tuple, draws.tolist())),
        warmup_ms=(99.0, 11.0),
        anchor_ms=(),
        metrics={"peak_memory_bytes": 2.0**20, "batch_size": 2.0},
        placement={"CPU": {"Conv": 3}},
        protocol=ADAPTIVE,
        fingerprint=FINGERPRINT,
        conditions=(Conditions(), Conditions()),
        started_at=f"2026-01-0{count}T00:00:00+00:00",
        network_name=name,
        device_name="cpu",
    )


FAILURE = MeasurementFailure(network_hash="f", reason="=no, because")
LAYERS = (
    Layer(name="a", operator="Conv", unit="CPU", time_ms=1.0),
    Layer(name="b", operator="Relu", unit="CPU", time_ms=None),
    Layer(name="c", operator="Conv", unit="CPU", time_ms=2.0),
)


def row(model: str, device: str, result: MeasurementResult, **more: Any) -> Profiled:
    return Profiled(model=model, device=device, result=result, **more)


def test_a_row_has_the_figures() -> None:
    plain = json.loads(json.dumps(row("m", "d", measurement(), layers=LAYERS).to_json()))
    known = plain["summary"]
    assert plain["schema"] == "hwnas.profile/2"
    assert known["latency_ms"]["low"] <= known["latency_ms"]["value"] <= known["latency_ms"]["high"]
    assert known["latency_ms"]["value"] < known["p90_ms"] <= known["p99_ms"]
    assert (known["repeats"], known["runs"], known["first_run_ms"], known["warmup_runs"]) == (8, 240, 99.0, 2)
    assert known["throughput_per_s"] == pytest.approx(2000 / known["latency_ms"]["value"])
    assert known["ending"].startswith("precise enough") or "the time was up" in known["ending"]
    assert [layer["operator"] for layer in plain["layers"]] == ["Conv", "Relu", "Conv"]
    assert row("m", "d", FAILURE).to_json() == {
        "schema": "hwnas.profile/2",
        "model": "m",
        "device": "d",
        "failure": {"network_hash": "f", "reason": "=no, because", "transient": False},
    }


def test_operators_are_summed_the_slowest_first() -> None:
    assert operator_table(LAYERS) == [("Conv", "CPU", 2, 3.0), ("Relu", "CPU", 1, None)]


def test_csv_is_read_back_and_holds_no_formula() -> None:
    rows = list(
        csv.DictReader(io.StringIO(as_csv([row("=A1", "d", measurement()), row("b,c", "d", FAILURE)])))
    )
    assert [known["network"] for known in rows] == ["'=A1", "b,c"]
    assert float(rows[0]["latency_ms"]) == measurement().latency_ms
    assert float(rows[0]["peak_memory_bytes"]) == 2**20
    assert (rows[1]["latency_ms"], rows[1]["failure"]) == ("", "'=no, because")


def test_markdown_has_a_row_each() -> None:
    lines = as_markdown([row("a|b", "d|e", measurement()), row("c", "d", FAILURE)]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith(r"| a\|b | d\|e | 10.")
    assert lines[3].startswith("| c | d | failed |")


def test_what_was_printed_is_read_back_in_every_version() -> None:
    (old,) = read_measurements(json.loads(STORED.read_text()), "stored")
    assert old.network_name == ""
    known = [row("m", "d", measurement()), row("f", "d", FAILURE)]
    rows = json.loads(json.dumps([each.to_json() for each in known]))
    assert read_measurements(rows, "now") == [measurement()]
    with pytest.raises(InputError, match=r"hwnas\.profile/3"):
        read_measurements([{"schema": "hwnas.profile/3", "model": "m"}], "newer")
    with pytest.raises(InputError, match="not what hwnas profile --json prints"):
        read_measurements({"a": 1}, "other")


def test_the_report_shows_a_histogram_and_a_time_line_of_each(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    rows = [row(EVIL, "d", measurement(EVIL), layers=LAYERS), row("two", "d", measurement("two"))]
    write_report(path, rows)
    with opened(path) as seen:
        assert [heading.inner_text() for heading in seen.page.locator("h2").all()] == [
            "Networks",
            EVIL,
            "two",
        ]
        assert seen.page.locator(".plot").count() == 4
        assert seen.page.locator(".plot").nth(0).locator(".bars path").count() > 10
        assert "Relu" in seen.page.locator("table").nth(1).inner_text()
        assert (seen.complaints, seen.requests) == ([], [])


@pytest.mark.parametrize("slow_ms", [12.0, 400.0])
def test_a_few_slow_runs_hide_nothing_of_the_histogram(slow_ms: float) -> None:
    samples_ms = (*np.linspace(10, 11, 200), *np.linspace(0.9 * slow_ms, slow_ms, 3))
    plot = histogram(replace(measurement(), repeats_ms=(samples_ms,)))
    assert sorted(plot.data[0]["x"]) == pytest.approx(sorted(np.log10(samples_ms)))
    axis = plot.layout["xaxis"]
    assert len(axis["tickvals"]) >= 3
    assert all(math.log10(10) - 1e-9 <= tick <= math.log10(slow_ms) + 1e-9 for tick in axis["tickvals"])
    assert [float(text) for text in axis["ticktext"]] == pytest.approx(
        10 ** np.array(axis["tickvals"]), rel=1e-3
    )


@pytest.mark.slow
def test_the_history_is_chosen_by_name_or_content_and_drawn_by_fingerprint(tmp_path: Path) -> None:
    other = replace(measurement("net", 4), fingerprint=replace(FINGERPRINT, chip=EVIL))
    renamed = replace(measurement("net", 6), network_name="", device_name="")
    with MeasurementStore(tmp_path / "history.db") as store:
        assert store.add_new([measurement(), other, renamed, measurement("foreign")]) == 4
        assert [len(known.repeats_ms) for known in find_history(store, "net", None, None)] == [4, 8]
        assert len(find_history(store, "net", "hash of net", None)) == 3
        assert len(find_history(store, "net", "hash of net", "cpu")) == 2
        write_history(tmp_path / "h.html", EVIL, find_history(store, "net", None, "cpu"))
    with opened(tmp_path / "h.html") as seen:
        assert seen.page.evaluate("document.querySelector('.plot')._fullData.length") == 2
        assert (seen.complaints, seen.requests) == ([], [])
    assert len(bar(10.0, 10.0)) == 2 * len(bar(5.0, 10.0)) > 0
    assert bar(0.001, 10.0) == "█"


def test_sharing_is_a_round_trip_that_adds_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "shared.jsonl"
    given = [measurement("a"), measurement("b")]
    assert export_lines(path, given) == 2
    with MeasurementStore(tmp_path / "history.db") as store:
        assert import_file(path, store) == (2, 0)
        assert import_file(path, store) == (0, 2)
        assert store.all() == given
        assert import_file(STORED, store) == (1, 0)
        assert import_file(STORED, store) == (0, 1)
        path.write_text(path.read_text() * 2)
        assert import_file(path, store) == (0, 4)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "holds no measurement"),
        (b"\xff\xfe", "is not text"),
        (b"{}\n", "line 1: schema is None"),
        (b"nonsense", "line 1 is not valid JSON"),
        (b"[1]", "not what hwnas profile --json prints"),
        (b"[", "is not valid JSON"),
        (b'{"schema": "hwnas.measurement/9"}', "measurement/9"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_added(tmp_path: Path, text: bytes, cause: str) -> None:
    path = tmp_path / "bad.jsonl"
    export_lines(path, [measurement()])
    path.write_bytes(text if text.startswith(b"[") or not text else text + b"\n" + path.read_bytes())
    with MeasurementStore(tmp_path / "history.db") as store:
        with pytest.raises(InputError, match=cause):
            import_file(path, store)
        assert store.all() == []
