from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.errors import RunDirectoryError
from hwnas.measurement import Conditions, Fingerprint, Measurement, MeasurementFailure
from hwnas.profiles.protocols import QUICK, SEARCH
from hwnas.profiles.store import MeasurementStore

FINGERPRINT = Fingerprint(
    chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
)
MEASUREMENT = Measurement(
    network_hash="n1",
    kind="measured",
    repeats_ms=((1.0, 1.1), (1.2, 1.3)),
    warmup_ms=(2.0,),
    anchor_ms=(2.0, 2.1),
    metrics={"energy_mj": 3.5},
    placement={"cpu": {"Conv": 2}},
    protocol=QUICK,
    fingerprint=FINGERPRINT,
    conditions=(Conditions(), Conditions(throttled=False, load=0.5, temperatures_c={"soc": 40.5})),
    started_at="2025-01-01T00:00:00+00:00",
)
FAILURE = MeasurementFailure(network_hash="n2", reason="does not fit")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a measurement of n1 and a failure of n2."""
    path = tmp_path / "devices/cpu/measurements.db"
    with MeasurementStore(path) as store:
        store.put(MEASUREMENT, FINGERPRINT, QUICK)
        store.put(FAILURE, FINGERPRINT, QUICK)
    return path


def test_measurements_and_failures_come_back(path: Path) -> None:
    with MeasurementStore(path) as store:
        assert store.get("n1", FINGERPRINT, QUICK) == MEASUREMENT
        assert store.get("n2", FINGERPRINT, QUICK) == FAILURE
        assert store.all() == [MEASUREMENT, FAILURE]


def test_another_key_is_another_result(path: Path) -> None:
    with MeasurementStore(path) as store:
        assert store.get("n3", FINGERPRINT, QUICK) is None
        assert store.get("n1", FINGERPRINT, SEARCH) is None
        assert store.get("n1", replace(FINGERPRINT, driver="new"), QUICK) is None


def test_the_latest_result_counts_and_none_is_overwritten(path: Path) -> None:
    newer = replace(MEASUREMENT, repeats_ms=((5.0,), (6.0,)))
    with MeasurementStore(path) as store:
        store.put(newer, FINGERPRINT, QUICK)
        assert store.get("n1", FINGERPRINT, QUICK) == newer
        assert store.all() == [MEASUREMENT, FAILURE, newer]


@pytest.mark.parametrize(
    "damage",
    [
        "body = replace(body, '1.1', '0.1')",
        "body = CAST(x'ff00ff' AS TEXT)",
        "body = '{'",
        "sha256 = ''",
        "fingerprint = 'fingerprint of another device'",
    ],
)
def test_a_damaged_row_is_ignored_with_a_warning(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE results SET {damage} WHERE network_hash = 'n1'")  # noqa: S608
    connection.close()
    with caplog.at_level(logging.WARNING), MeasurementStore(path) as store:
        assert store.get("n1", FINGERPRINT, QUICK) is None
        assert store.all() == [FAILURE]
    assert "row 1" in caplog.text
    assert "measured again" in caplog.text


def test_what_was_put_survives_a_kill(path: Path) -> None:
    code = f"""
import os, pathlib, signal
from hwnas.measurement import Fingerprint, MeasurementFailure
from hwnas.profiles.protocols import QUICK
from hwnas.profiles.store import MeasurementStore
store = MeasurementStore(pathlib.Path({str(path)!r}))
store.put(MeasurementFailure(network_hash="n3", reason="r"), {FINGERPRINT!r}, QUICK)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with MeasurementStore(path) as store:
        assert store.get("n3", FINGERPRINT, QUICK) == MeasurementFailure(network_hash="n3", reason="r")


def test_a_file_that_is_no_database_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "measurements.db"
    path.write_bytes(b"this is not a database, " * 100)
    with pytest.raises(RunDirectoryError, match="not a database of hwnas") as refusal:
        MeasurementStore(path)
    assert f"move {path} away" in refusal.value.fix


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="cannot use"):
        MeasurementStore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot use"):
        MeasurementStore(tmp_path / "file/measurements.db")


def test_a_newer_format_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunDirectoryError, match="format 99"):
        MeasurementStore(path)
