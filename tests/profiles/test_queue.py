from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.database import Database
from hwnas.errors import DeviceError, DeviceLostError, PreparationError
from hwnas.measurement import Measurement, MeasurementFailure, MeasurementResult, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.protocols import REPORT, describe, queued
from hwnas.profiles.queue import QueueStatus
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.scripted import ScriptedDevice
from hwnas.testing.scripted_queue import ScriptedHub, ScriptedQueueDevice

ONE = Protocol(name="one", warmup_s=1.0, min_runs=9, min_s=1.0, repeats=1, max_repeats=1, max_spread=0.05)
TWICE = replace(ONE, name="twice", repeats=2, max_repeats=2)


class Killed(BaseException):
    """Stands for the end of the process."""


def network(name: str) -> Network:
    return Network(name, [Part(name, onnx=name.encode)])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with MeasurementStore(tmp_path / "measurements.db") as store:
        yield store


def measure(
    hub: ScriptedHub,
    store: MeasurementStore,
    names: str,
    protocol: Protocol = ONE,
    max_in_flight: int = 5,
    **settings: Any,
) -> dict[str, MeasurementResult]:
    settings = {"anchor": network("R"), "sleep": lambda _seconds: None, **settings}
    with Session(
        ScriptedQueueDevice(hub, max_in_flight=max_in_flight), protocol, store, **settings
    ) as session:
        given = [network(name) for name in names]
        results = list(session.measure(given))
    assert [network_hash for network_hash, _ in results] == [network.hash for network in given]
    return {network.name: result for network, (_, result) in zip(given, results, strict=True)}


def measured(result: MeasurementResult) -> Measurement:
    assert isinstance(result, Measurement), result
    return result


def submitted(hub: ScriptedHub) -> list[str]:
    return [call.split()[1] for call in hub.calls if call.startswith("submit")]


def test_everything_that_a_job_told_is_in_the_measurement(store: MeasurementStore) -> None:
    hub = ScriptedHub(latencies_ms={"a": [4.0, 6.0], "R": [10.0]})
    result = measured(measure(hub, store, "a", TWICE)["a"])
    assert result.repeats_ms == ((4.0,) * 3, (6.0,) * 3)
    assert result.anchor_ratio == pytest.approx(0.5)
    assert result.metrics == {"first_load_ms": 100.5}
    assert result.placement == {"script": {"Conv": 1}}
    assert result.layers[0].time_ms == 1.0
    assert result.protocol == queued(TWICE)
    assert (result.protocol.warmup_s, result.protocol.min_runs) == (0.0, 1)
    assert store.get(network("a").hash, result.fingerprint, queued(TWICE)) == result


def test_the_reference_is_measured_once_a_run_and_is_the_unit(store: MeasurementStore) -> None:
    hub = ScriptedHub(latencies_ms={"R": [10.0, 99.0], "a": [5.0], "b": [20.0]})
    assert measured(measure(hub, store, "a")["a"]).anchor_ratio == 0.5
    results = measure(hub, store, "bR")
    assert measured(results["b"]).anchor_ratio == 2.0
    assert measured(results["R"]).anchor_ratio == 1.0
    assert submitted(hub) == ["R", "a", "b"]


def test_a_network_that_is_done_before_the_reference_waits_for_it(store: MeasurementStore) -> None:
    hub = ScriptedHub(latencies_ms={"a": [5.0], "R": [10.0, 30.0, 20.0]})
    protocol = replace(ONE, max_repeats=3, repeats=3)
    assert measured(measure(hub, store, "a", protocol)["a"]).anchor_ratio == 0.25


def test_no_more_jobs_than_allowed_are_in_flight(store: MeasurementStore) -> None:
    hub = ScriptedHub(looks=3)
    assert len(measure(hub, store, "abcdefgh", max_in_flight=2)) == 8
    assert hub.most_in_flight == 2


def test_results_are_taken_as_they_finish(store: MeasurementStore) -> None:
    hub = ScriptedHub(looks=2)
    measure(hub, store, "ab", TWICE, max_in_flight=1, anchor=None)
    assert submitted(hub) == ["a", "a", "b", "b"]
    hub = ScriptedHub(looks=2)
    measure(hub, store, "cd", TWICE, max_in_flight=2, anchor=None)
    assert submitted(hub) == ["c", "d", "c", "d"]


def test_repeats_go_on_until_they_agree(store: MeasurementStore) -> None:
    hub = ScriptedHub(latencies_ms={"a": [10.0, 20.0, 10.0]})
    results = measure(hub, store, "ab", replace(TWICE, max_repeats=6), anchor=None)
    assert measured(results["a"]).medians_ms == (10.0, 20.0, 10.0, 10.0)
    assert measured(results["b"]).medians_ms == (10.0, 10.0)


def test_a_failed_job_is_a_failed_network_with_the_reason_and_the_link(store: MeasurementStore) -> None:
    hub = ScriptedHub(refused={"b"})
    results = measure(hub, store, "abc")
    failure = results["b"]
    assert isinstance(failure, MeasurementFailure)
    assert failure.reason.startswith("the script refuses b (see script://hwnas-")
    assert measured(results["a"]) and measured(results["c"])
    assert measure(hub, store, "b") == {"b": failure}
    assert submitted(hub).count("b") == 1


def test_a_failed_reference_ends_the_session_and_nothing_is_paid_again(store: MeasurementStore) -> None:
    with pytest.raises(PreparationError, match="refuses R"):
        measure(ScriptedHub(refused={"R"}), store, "a", max_in_flight=1)
    assert store.all() == []


@pytest.mark.parametrize("call", range(1, 14))
def test_a_run_that_is_killed_picks_its_jobs_up(store: MeasurementStore, call: int) -> None:
    hub = ScriptedHub(looks=1, latencies_ms={"a": [5.0, 7.0]})
    hub.call = _killing(hub, call)  # type: ignore[method-assign]
    with pytest.raises(Killed):
        measure(hub, store, "ab", TWICE)
    results = measure(hub, store, "ab", TWICE)
    assert all(isinstance(result, Measurement) for result in results.values())
    assert sorted(submitted(hub)) == ["R", "R", "a", "a", "b", "b"]


def _killing(hub: ScriptedHub, number: int) -> Any:
    plain = ScriptedHub.call

    def call(*arguments: Any) -> Any:
        answer = plain(hub, *arguments)
        if len(hub.calls) == number:  # the hub has done it, but nobody is left to hear of it
            raise Killed
        return answer

    return call


@settings(max_examples=15)
@given(busy=st.sets(st.integers(1, 40)), unanswered=st.sets(st.integers(1, 40)))
def test_rate_limits_and_lost_answers_cost_time_but_no_second_job(
    busy: set[int], unanswered: set[int]
) -> None:
    hub = ScriptedHub(looks=1, busy=busy, unanswered=unanswered)
    with tempfile.TemporaryDirectory() as folder, MeasurementStore(Path(folder, "m.db")) as store:
        results = measure(hub, store, "abc", anchor=None)
    assert all(isinstance(result, Measurement) for result in results.values())
    assert sorted(set(submitted(hub))) == ["a", "b", "c"]
    assert len(hub._names) == 3


def test_pauses_grow_while_the_queue_is_busy_and_the_run_gives_up_after_an_hour(
    store: MeasurementStore,
) -> None:
    slept: list[float] = []
    hub = ScriptedHub(busy=range(1, 10_000))
    with pytest.raises(DeviceLostError, match="limits the rate; so it goes for 60 minutes") as lost:
        measure(hub, store, "a", sleep=slept.append)
    assert "picked up" in lost.value.fix
    assert 3600 < sum(slept) < 4300
    assert len(hub.calls) < 30
    measure(replace(hub, busy=(), calls=[]), store, "a")


def test_measuring_anew_on_purpose_submits_anew(store: MeasurementStore) -> None:
    hub = ScriptedHub()
    measure(hub, store, "a", anchor=None, recall=False)
    measure(hub, store, "a", anchor=None, recall=False)
    assert submitted(hub) == ["a", "a"]
    assert len(store.all()) == 2


@pytest.mark.parametrize("write", range(1, 8))
def test_a_kill_beside_any_write_neither_loses_nor_repeats_a_result(
    store: MeasurementStore, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring anew on purpose never answers with what an earlier run had finished."""
    hub = ScriptedHub(latencies_ms={"a": [1.0, 2.0, 3.0, 4.0]})
    plain, writes = Database.write, []

    def kill(database: Database, sql: str, *rows: Any) -> None:
        plain(database, sql, *rows)
        writes.append(sql)
        if len(writes) == write:
            raise Killed

    monkeypatch.setattr(Database, "write", kill)
    try:
        measure(hub, store, "a", TWICE, anchor=None, recall=False)
        stored = True
    except Killed:
        stored = "INTO results" in writes[-1]
    monkeypatch.undo()
    again = measured(measure(hub, store, "a", TWICE, anchor=None, recall=False)["a"])
    assert again.medians_ms == ((3.0, 4.0) if stored else (1.0, 2.0))
    assert len(submitted(hub)) == 2 + 2 * stored
    assert len(store.all()) == 1 + stored


def test_whoever_waits_is_told_how_far_the_queue_is(store: MeasurementStore) -> None:
    told: list[QueueStatus] = []
    slept: list[float] = []
    hub = ScriptedHub(looks=3, busy={4, 5})
    measure(hub, store, "abc", max_in_flight=2, anchor=None, watch=told.append, sleep=slept.append)
    assert {status.networks for status in told} == {3}
    assert [status.done for status in told] == sorted(status.done for status in told)
    assert (told[-1].done, told[-1].jobs, told[-1].waited_s) == (3, 0, sum(slept))
    assert max(status.jobs for status in told) == 2
    assert len(told) > len(slept)
    troubles = {status.trouble for status in told}
    assert "the script limits the rate; trying again after 10 s" in troubles
    assert told[-1].trouble == ""
    busy = next(status for status in told if status.trouble)
    assert busy.describe().endswith("limits the rate; trying again after 10 s")
    assert QueueStatus(done=0, networks=3, jobs=2, waited_s=3661).describe() == (
        "jobs in the queue: 2, waited 1:01:01"
    )


def test_a_damaged_job_is_submitted_again(store: MeasurementStore, tmp_path: Path) -> None:
    hub = ScriptedHub(looks=1)
    hub.call = _killing(hub, 1)  # type: ignore[method-assign]
    with pytest.raises(Killed):
        measure(hub, store, "a", anchor=None)
    with sqlite3.connect(tmp_path / "measurements.db") as connection:
        connection.execute("UPDATE jobs SET body = '{'")
    connection.close()
    assert measured(measure(hub, store, "a", anchor=None)["a"])


def test_a_bound_on_measurements_holds_for_all_sessions_of_a_run(store: MeasurementStore) -> None:
    hub = ScriptedHub()
    assert all(isinstance(r, Measurement) for r in measure(hub, store, "Ra", max_measurements=4).values())
    results = measure(hub, store, "abcde", max_measurements=4)
    beyond = [results["d"], results["e"]]
    for failure in beyond:
        assert isinstance(failure, MeasurementFailure)
        assert "4 measurements are used up (raise --max-measurements" in failure.reason
        assert failure.transient
    assert sorted(set(submitted(hub))) == ["R", "a", "b", "c"]
    assert measured(measure(hub, store, "d", max_measurements=5)["d"])


def test_the_reference_counts_even_when_nobody_asks_for_it(store: MeasurementStore) -> None:
    hub = ScriptedHub()
    measure(hub, store, "abc", max_measurements=3)
    assert submitted(hub) == ["R", "a", "b"]


def test_the_bound_holds_for_devices_without_a_queue_as_well(store: MeasurementStore) -> None:
    device = ScriptedDevice()
    settings: dict[str, Any] = {"sleep": lambda _s: None, "max_measurements": 2}
    with Session(device, ONE, store, **settings) as session:
        results = dict(session.measure([network(name) for name in "abcab"]))
    assert [isinstance(result, Measurement) for result in results.values()] == [True, True, False]


def test_what_a_protocol_is_at_a_queue() -> None:
    protocol = queued(REPORT)
    assert (protocol.repeats, protocol.min_runs, protocol.cooldown_s) == (5, 1, 0.0)
    assert protocol.id != REPORT.id
    assert describe(protocol) == "report, queued: 5 repeats; median of the repeats' medians"


def test_a_job_that_was_not_submitted_cannot_be_collected() -> None:
    from hwnas.devices.queue import QueueJob

    with ScriptedQueueDevice(ScriptedHub()) as device, pytest.raises(DeviceError, match="submit it first"):
        device.collect(QueueJob(name="n", network_hash="h", created_at=""))
