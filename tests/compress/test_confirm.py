"""The networks of a front are measured again, since of many noisy figures the lowest are too low."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spoilt_runs
from tiny import furnish, run_job

from hwnas.measurement import Measurement
from hwnas.profiles.protocols import REPORT, SEARCH, confirming

LIBRARY = replace(spoilt_runs.LIBRARY, per_block=6)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("confirm")
    furnish(folder)
    frugal = (folder / "noisy.toml").read_text().replace('name = "noisy"', 'name = "frugal"')
    (folder / "frugal.toml").write_text(frugal)
    return folder


def search(place: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> dict[str, Any]:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    settings = replace(spoilt_runs.SEARCH, filter="none", population=8, generations=6, picks=(), **changed)
    done = run_job(LIBRARY, settings, place / "run", "hwnas compress …", spoilt_runs.Said())
    front: dict[str, Any] = done["front"]
    return front


def measurements(place: Path, device: str) -> dict[str, dict[tuple[int, ...], Measurement]]:
    """By the name of the protocol and the choices."""
    found: dict[str, dict[tuple[int, ...], Measurement]] = {}
    with sqlite3.connect(place / f"run/devices/{device}/measurements.db") as connection:
        for (body,) in connection.execute("select body from results order by id"):
            measurement = Measurement.from_json(json.loads(body), "a measurement")
            choices = tuple(map(int, measurement.network_name.split("-")))
            found.setdefault(measurement.protocol.name, {})[choices] = measurement
    return found


def test_the_front_is_made_of_what_was_measured_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = search(place, monkeypatch, device="noisy.toml")
    found = measurements(place, "noisy")
    once, again = found["quick"], found["quick, confirmed"]
    rows = {tuple(row["choices"]): row["cost_ratios"]["latency"] for row in front["front"]}
    del rows[0, 0, 0, 0]
    assert len(rows) > 3
    assert rows == {choices: again[choices].anchor_ratio for choices in rows}
    truth = {
        choices: min(min(each) for each in once[choices].repeats_ms + again[choices].repeats_ms)
        / min(again[choices].anchor_ms)
        for choices in again
    }
    seemed = [once[choices].anchor_ratio / truth[choices] - 1 for choices in again]
    proved = [again[choices].anchor_ratio / truth[choices] - 1 for choices in again]
    assert np.mean(seemed) < -0.05 < np.mean(proved) < 0.05
    assert np.mean(np.abs(proved)) < np.mean(np.abs(seemed)) / 2
    assert front == search(place, monkeypatch, device="noisy.toml")
    assert {name: len(of) for name, of in measurements(place, "noisy").items()} == {
        name: len(of) for name, of in found.items()
    }


@pytest.mark.parametrize(
    "changed", [{"device": "modelled.toml"}, {"device": "frugal.toml", "max_measurements": 100}]
)
def test_nothing_is_measured_again_where_that_says_nothing_or_costs(
    place: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    search(place, monkeypatch, **changed)
    found = measurements(place, changed["device"].removesuffix(".toml"))
    assert not any("confirmed" in name for name in found)


def test_four_times_the_repeats() -> None:
    assert (confirming(SEARCH).repeats, confirming(SEARCH).max_repeats) == (12, 12)
    assert (confirming(REPORT).repeats, confirming(REPORT).max_repeats) == (20, 20)
