"""The power study: the collector goes on where it was, and the rules say what is plain."""

from __future__ import annotations

import importlib
import math
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hwnas.devices.base import BaseDevice
from hwnas.measurement import DeviceProfile
from hwnas.testing.scripted import ScriptedDevice

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/gate_power.py with a device that does as it is told: the time is the number of layers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    gate_power = importlib.import_module("gate_power")

    def open_device(profile: DeviceProfile) -> BaseDevice:
        return ScriptedDevice(latencies_ms={f"{layers} layers": [float(layers)] for layers in (20, 21, 22)})

    monkeypatch.setattr(gate_power, "open_device", open_device)
    monkeypatch.setattr(gate_power, "BLOCK", 5)
    return gate_power


def test_the_collector_only_appends_and_goes_on(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "samples.jsonl"
    power.collect(path, "cpu", 3, 60.0)
    first = path.read_bytes()
    path.write_bytes(first + b'{"kind": "same", "loaded"')  # a kill in the middle of a line
    power.collect(path, "cpu", 5, 60.0)
    assert path.read_bytes().startswith(first)
    pairs = power.read(path)
    assert [pair["kind"] for pair in pairs] == ["same", "5 %", "same", "10 %", "same"]
    power.collect(path, "cpu", 5, 60.0)
    assert power.read(path) == pairs
    power.collect(path, "cpu", 9, 0.0)
    assert power.read(path) == pairs


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('"chip": "scripted"', '"chip": "other"', "fingerprint was"),
        ('"max_seconds": 45.0', '"max_seconds": 90.0', "protocol was"),
        ('"networks": ["', '"networks": ["0', "networks was"),
    ],
)
def test_samples_that_were_taken_otherwise_are_not_added_to(
    power: ModuleType, tmp_path: Path, old: str, new: str, cause: str
) -> None:
    path = tmp_path / "samples.jsonl"
    power.collect(path, "cpu", 1, 60.0)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SystemExit, match=cause):
        power.collect(path, "cpu", 2, 60.0)
    assert path.read_text().count("\n") == 1


def test_a_pair_says_all_that_a_replay_needs(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    power.collect(path, "cpu", 6, 60.0)
    pairs = power.read(path)
    assert [(pair["index"], pair["loaded"]) for pair in pairs] == [*((n, False) for n in range(5)), (5, True)]
    for pair in pairs:
        assert len(pair["elapsed_s"]) == len(pair["repeats_ms"]) >= 8
        assert pair["elapsed_s"] == sorted(pair["elapsed_s"])
        assert pair["protocol"]["max_seconds"] == 45.0
        for old, new in pair["repeats_ms"]:
            assert len(old) == len(new)
            assert all(run > 0 for slices in (old, new) for part in slices for run in part)
    judged = power.gate_table.Judged(pairs[3])
    assert judged.verdicts["hwnas check", 0.05] == "regression"


def test_a_kill_among_loaded_pairs_leaves_a_gap_that_is_filled(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    power.collect(path, "cpu", 10, 60.0)
    assert sorted(pair["index"] for pair in power.read(path)) == [*range(10)]
    whole = [
        line for line in path.read_text().splitlines(keepends=True) if not line.startswith('{"index": 7,')
    ]
    path.write_text("".join(whole))
    power.collect(path, "cpu", 10, 60.0)
    pairs = power.read(path)
    assert len(pairs) == 10
    assert (pairs[-1]["index"], pairs[-1]["kind"], pairs[-1]["loaded"]) == (7, "same", True)


def test_loaded_pairs_are_taken_two_at_a_time(power: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    both_run, last_is_loaded = threading.Barrier(2, timeout=60.0), threading.Event()

    @contextmanager
    def busy_core() -> Iterator[None]:
        last_is_loaded.set()
        yield

    def take(index: int) -> dict[str, Any]:
        if index < 4:
            both_run.wait()  # is passed by two at once only
        else:
            assert last_is_loaded.wait(60.0)
        return {"index": index}

    monkeypatch.setattr(power, "busy_core", busy_core)
    taken = power.taken_two_at_a_time(take, [*range(5)])
    assert sorted(pair["index"] for pair in taken) == [*range(5)]


def test_a_pair_that_fails_ends_the_others(power: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ended = [], threading.Event()

    class Lanes(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ended.set()
            super().shutdown(wait=wait)

    def take(index: int) -> dict[str, Any]:
        asked.append(index)
        if index == 0:
            sys.exit("it throttled")
        assert ended.wait(60.0)
        return {"index": index}

    monkeypatch.setattr(power, "ThreadPoolExecutor", Lanes)
    with pytest.raises(SystemExit, match="it throttled"):
        list(power.taken_two_at_a_time(take, [*range(100)]))
    assert set(asked) <= {0, 1, 2}  # those that had begun when it was seen


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is no child: Linux")
def test_what_loads_a_core_ends_with_a_collector_that_is_killed(power: ModuleType) -> None:
    script = (
        "import gate_power\nwith gate_power.busy_core() as process: print(process.pid, flush=True); input()"
    )
    command = [sys.executable, "-c", script]
    collector = subprocess.Popen(
        command, cwd=BENCHMARKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert collector.stdout is not None
    with collector:
        load = os.pidfd_open(int(collector.stdout.readline()))
        collector.kill()
        ended, _, _ = select.select([load], [], [], 30.0)
        os.close(load)
    assert ended, "it goes on"


def test_a_load_that_ends_early_is_told(power: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "BUSY", "pass")
    with pytest.raises(SystemExit, match="ended by itself"), power.busy_core() as process:
        process.wait()


def test_every_rule_decides_what_is_plain(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    power.simulate(path, 10)
    pairs = power.read(path)
    assert [pair["loaded"] for pair in pairs] == [False] * 5 + [True] * 5
    same, slower = pairs[0]["repeats_ms"], pairs[3]["repeats_ms"]
    for name, rule in power.gate_table.gate_rules.RULES.items():
        twice = [[old, [[2 * run for run in part] for part in new]] for old, new in same]
        assert rule(twice, 0.05) == "regression", name
        if name != "t-test on runs":  # which has no threshold
            assert rule(same, 0.25) == "pass", name
    assert power.gate_table.gate_rules.ours(slower, 0.05) == "regression"
    assert power.gate_table.gate_rules.ours(same, 0.025) == "pass"


def test_the_tables_keep_loaded_and_unloaded_apart(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    power.simulate(path, 10)
    judged = [power.gate_table.Judged(pair) for pair in power.read(path)]
    shown = power.gate_table.tables(judged)
    titles = re.findall(r"## (.*)", shown)
    assert titles == ["unloaded: 5 pairs", "another process loads a core: 5 pairs", "together: 10 pairs"]
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows} == {7}
    assert [row[0] for row in rows[-8:]] == list(power.gate_table.gate_rules.RULES)
    assert rows[-8][1] == "0/6: 0.0% [0.0, 45.9]"  # 1 − 0.025^(1/6), by Clopper and Pearson
    assert [row[5:] for row in rows[-7:]] == [["–", "–"]] * 7  # only ours can be inconclusive
    assert "10 % found at 5 %, at least 95%: 2/2" in shown


def test_what_was_collected_is_not_overwritten(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text("hours of work\n")
    with pytest.raises(SystemExit, match="give another --file"):
        power.simulate(path, 1)
    assert path.read_text() == "hours of work\n"


def test_the_tables_of_a_file_that_has_just_begun(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with pytest.raises(SystemExit, match="has no pairs"):
        power.replay(path)
    power.simulate(path, 1)
    shown = power.gate_table.tables([power.gate_table.Judged(pair) for pair in power.read(path)])
    assert "## unloaded: 1 pairs" in shown
    assert "loads a core" not in shown
    assert "found" not in shown.partition("goals")[2]


def test_what_cannot_be_told_has_its_own_column(power: ModuleType) -> None:
    generator = np.random.default_rng(0)
    noisy = [[[[10.0]], [[10.0 * math.exp(generator.normal(0, 0.3))]]] for _ in range(30)]
    pair: dict[str, Any] = {"kind": "same", "loaded": False, "elapsed_s": [*range(1, 31)], "other_cores": 0.1}
    pair["repeats_ms"] = noisy
    judged = [power.gate_table.Judged(pair)]
    ours = power.gate_table.table(judged)[2].strip("| ").split(" | ")
    assert (ours[1], ours[5]) == ("0/1: 0.0% [0.0, 97.5]", "1/1: 100.0% [2.5, 100.0]")
    assert judged[0].seconds == {0.05: 30, 0.025: 30}


def test_the_work_is_what_it_says(power: ModuleType) -> None:
    from hwnas.networks.count import count

    baseline, others = power.networks()
    macs = {kind: count(network.module(), (3, 14, 14))[0] for kind, network in others.items()}
    own = count(baseline.module(), (3, 14, 14))[0]
    assert macs["same"] == own
    assert others["same"].hash != baseline.hash
    assert macs["5 %"] / own == pytest.approx(1.05, abs=0.001)
    assert macs["10 %"] / own == pytest.approx(1.10, abs=0.001)
