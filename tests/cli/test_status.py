"""`hwnas status` says how far a run is, and leaves every byte as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_line import Hwnas, refused
from shortest_run import LIBRARY

from hwnas.compress.library.store import Library
from hwnas.compress.run.directory import RunDirectory
from hwnas.networks.architecture import Candidate


def every_byte(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """All files with their time of change, those of SQLite's log among them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def status(hwnas: Hwnas, run: Path | str) -> dict[str, Any]:
    """What it says as JSON, after which the directory is as it was."""
    before = every_byte(Path(run))
    done = hwnas("status", str(run), "--json")
    assert done.code == 0, done.err
    assert hwnas("status", str(run)).code == 0
    assert every_byte(Path(run)) == before
    found: dict[str, Any] = json.loads(done.out)
    return found


def candidates(count: int) -> list[Candidate]:
    spec = tiny.make_spec()
    return [
        Candidate(part=1, part_name="block1", choice=choice, spec=spec, macs=1, params=1)
        for choice in range(1, count + 1)
    ]


def test_a_run_that_has_just_begun(hwnas: Hwnas, workplace: Path) -> None:
    run = workplace / "run"
    with RunDirectory.open(run, LIBRARY, {}) as directory:
        assert hwnas("status", str(run)).code == 0
        known = candidates(4)
        with Library(directory.library) as library:
            library.add(known)
            library.fail(known[0], "does not learn")
            library.write("UPDATE candidates SET state = 'done' WHERE choice = ?", (2,))
            directory.cost_log.record("distillation", images=10, of=10)
            found = json.loads(hwnas("status", str(run), "--json").out)
            killed = shutil.copytree(run, workplace / "killed")
    assert found["is_running"]
    assert (killed / "library" / "library.db-wal").stat().st_size
    for place in (run, killed):
        after = status(hwnas, place)
        assert not after["is_running"]
        assert after["candidates"] == found["candidates"] == {"done": 1, "pending": 2, "failed": 1}
        assert not after["has_reference"]
        assert after["left"][0] == "the reference"
        assert after["left"][1].startswith("2 candidates to distil, about 0 min")
        (spent,) = after["spent"]
        assert after["left_s"] == pytest.approx(2 * spent["seconds"])


def test_whoever_asks_hinders_nobody(hwnas: Hwnas, workplace: Path) -> None:
    run = workplace / "run"
    for _ in range(2):
        with RunDirectory.open(run, LIBRARY, {}):
            assert json.loads(hwnas("status", str(run), "--json").out)["is_running"]
        assert not status(hwnas, run)["is_running"]


def test_what_is_no_run_is_refused(hwnas: Hwnas, workplace: Path) -> None:
    refused(hwnas("status", "nothing"), "nothing is not a run directory", "runs/demo")
    with RunDirectory.open(workplace / "run", LIBRARY, {}) as directory:
        directory.library.mkdir()
        (directory.library / "library.db").write_bytes(b"no database" * 100)
    refused(hwnas("status", "run"), "library.db: file is not a database", "hwnas compress")


@pytest.mark.slow
def test_a_complete_run_has_nothing_left(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas(*tiny.compress_arguments("runs/a"))
    assert done.code == 0
    told = [line.split(":")[0] for line in done.err.splitlines() if line.startswith("step ")]
    assert told == [f"step {number} of 4" for number in range(1, 5)]
    found = status(hwnas, "runs/a")
    assert found["left"] == []
    assert found["left_s"] == 0.0
    assert found["has_reference"]
    assert found["accuracy"] is not None
    assert found["candidates"]["done"] > 0
    assert found["candidates"]["pending"] == 0
    (device,) = found["devices"]
    assert device["device"] == "steady"
    assert device["searches"] == ["front"]
    assert device["measured"] >= 6
    (emitted,) = device["checkpoints"]
    summary = json.loads(Path("runs/a/checkpoints/steady-knee/measurement.json").read_text())["summary"]
    assert emitted["latency_ratio"] == summary["latency_ratio"]
    assert "Nothing is left" in hwnas("status", "runs/a").out
    shutil.rmtree("runs/a/checkpoints")
    assert status(hwnas, "runs/a")["left"] == ["steady: the checkpoints"]
