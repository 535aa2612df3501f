from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import DeviceError, DeviceLostError, PreparationError
from hwnas.measurement import Measurement, MeasurementFailure, MeasurementResult, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.protocols import ONCE
from hwnas.profiles.session import TOGETHER, Session, require_kind
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.scripted import ScriptedDevice

TWICE = Protocol(name="twice", warmup_s=0, min_runs=3, min_s=0, repeats=2, max_repeats=2, max_spread=0.05)
ADAPTIVE = replace(TWICE, name="adaptive", repeats=3, max_repeats=6)


def network(name: str) -> Network:
    return Network(name, [Part(name, onnx=name.encode)])


def networks(names: str) -> list[Network]:
    return [network(name) for name in names]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with MeasurementStore(tmp_path / "measurements.db") as store:
        yield store


def measure(
    device: ScriptedDevice, store: MeasurementStore, names: str, protocol: Protocol = TWICE, **settings: Any
) -> dict[str, MeasurementResult]:
    """Results by network name, from one session with the anchor R that never sleeps."""
    settings = {"anchor": network("R"), "sleep": lambda _seconds: None, **settings}
    given = networks(names)
    with Session(device, protocol, store, **settings) as session:
        results = list(session.measure(given))
    assert [network_hash for network_hash, _ in results] == [network.hash for network in given]
    return {network.name: result for network, (_, result) in zip(given, results, strict=True)}


def measured(result: MeasurementResult) -> Measurement:
    assert isinstance(result, Measurement), result
    return result


def test_networks_are_interleaved_between_anchors_in_alternating_order(store: MeasurementStore) -> None:
    device = ScriptedDevice()
    measure(device, store, "abc")
    assert "".join(device.sampled) == "RabcR" + "RcbaR"


def test_the_warm_up_is_kept_apart(store: MeasurementStore) -> None:
    device = ScriptedDevice(latencies_ms={"a": [50.0, 1.0]})
    result = measured(measure(device, store, "ab", replace(TWICE, warmup_s=0.1))["a"])
    assert "".join(device.sampled) == "Rab" + "RabR" + "RbaR"
    assert result.warmup_ms == (50.0, 50.0)
    assert result.latency_ms == 1.0


def test_a_repeat_takes_at_least_its_runs_and_its_time(store: MeasurementStore) -> None:
    device = ScriptedDevice(latencies_ms={"a": [1.0], "b": [100.0]})
    results = measure(device, store, "ab", replace(TWICE, min_s=0.02))
    assert [len(samples) for samples in measured(results["a"]).repeats_ms] == [20, 20]
    assert [len(samples) for samples in measured(results["b"]).repeats_ms] == [3, 3]


def test_drift_cancels_in_the_ratio_to_the_anchor(store: MeasurementStore) -> None:
    device = ScriptedDevice(latencies_ms={"a": [20.0], "b": [5.0], "R": [10.0]}, drift=0.02)
    results = measure(device, store, "ab", replace(TWICE, repeats=4, max_repeats=4))
    assert measured(results["a"]).spread > 0.2
    assert measured(results["a"]).anchor_ratio == pytest.approx(2.0, rel=1e-12)
    assert measured(results["b"]).anchor_ratio == pytest.approx(0.5, rel=1e-12)


def test_without_an_anchor_there_is_no_ratio(store: MeasurementStore) -> None:
    device = ScriptedDevice()
    result = measured(measure(device, store, "a", anchor=None)["a"])
    assert device.sampled == ["a", "a"]
    assert result.anchor_ms == ()


def test_repeats_go_on_only_for_networks_that_need_them(store: MeasurementStore) -> None:
    device = ScriptedDevice(latencies_ms={"a": [10.0, 20.0, 10.0], "b": [10.0], "c": [10.0, 20.0] * 9})
    results = measure(device, store, "abc", ADAPTIVE)
    assert measured(results["a"]).medians_ms == (10.0, 20.0, 10.0, 10.0, 10.0)
    assert len(measured(results["b"]).repeats_ms) == 3
    assert len(measured(results["c"]).repeats_ms) == 6


def test_known_networks_and_duplicates_do_not_touch_the_device(store: MeasurementStore) -> None:
    first = measure(ScriptedDevice(), store, "ab")
    device = ScriptedDevice()
    assert measure(device, store, "abba") == first
    assert device.sampled == []
    measure(device, store, "acca")
    assert "".join(device.sampled) == "RcR" * 2


def test_other_protocols_and_fingerprints_are_measured_anew(store: MeasurementStore) -> None:
    measure(ScriptedDevice(), store, "a")
    device = ScriptedDevice()
    measure(device, store, "a", ADAPTIVE)
    assert device.sampled.count("a") == 3
    other = ScriptedDevice(replace(device.profile, power_mode="low"))
    measure(other, store, "a")
    assert other.sampled.count("a") == 2


@given(names=st.text("abcdefghijklmnop", max_size=40))
def test_every_network_is_answered_in_order_and_measured_once(names: str) -> None:
    device = ScriptedDevice(refused="ace")
    with MeasurementStore(Path(":memory:")) as store:
        measure(device, store, names, anchor=None)
    assert sorted(device.sampled) == sorted(2 * [name for name in set(names) if name not in "ace"])


def test_only_a_few_networks_are_held_at_once(store: MeasurementStore) -> None:
    device = ScriptedDevice()
    with Session(device, TWICE, store, network("R")) as session:
        results = session.measure(networks("abcdefghijklmnopqrstuvwxyz"))
        for _ in range(TOGETHER):
            next(results)
        assert set(device.sampled) == set("Rabcdefgh")
        assert device.held == ["R"]


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_nonsense_is_a_failure_and_the_others_go_on(store: MeasurementStore, answer: float | None) -> None:
    device = ScriptedDevice(latencies_ms={"b": [10.0, answer]})
    results = measure(device, store, "abc")
    failure = results["b"]
    assert isinstance(failure, MeasurementFailure)
    assert "as latencies" in failure.reason
    assert "try a single network" in failure.reason
    assert failure.transient
    assert measured(results["a"]).anchor_ratio == measured(results["c"]).anchor_ratio == 1.0
    assert device.held == []


def test_failures_are_remembered_with_their_reason(store: MeasurementStore) -> None:
    first = measure(ScriptedDevice(refused="b"), store, "ab", replace(TWICE, warmup_s=0.001))
    failure = first["b"]
    assert isinstance(failure, MeasurementFailure)
    assert failure.reason == "the script refuses b (change the script)"
    device = ScriptedDevice()
    assert measure(device, store, "ab", replace(TWICE, warmup_s=0.001)) == first
    assert device.sampled == []


def test_a_network_that_fails_in_its_warm_up(store: MeasurementStore) -> None:
    results = measure(ScriptedDevice(latencies_ms={"a": [None]}), store, "a", replace(TWICE, warmup_s=0.1))
    assert isinstance(results["a"], MeasurementFailure)


def test_a_throttled_round_is_taken_again_after_a_rest(store: MeasurementStore) -> None:
    rests: list[float] = []
    device = ScriptedDevice(throttled=3)
    result = measured(measure(device, store, "ab", sleep=rests.append)["a"])
    assert rests == [1.0, 1.0, 1.0]
    assert "".join(device.sampled) == "RabR" * 4 + "RbaR"
    assert len(result.repeats_ms) == 2
    assert result.conditions[1].throttled is False


def test_the_rest_before_each_round_is_the_protocols(store: MeasurementStore) -> None:
    rests: list[float] = []
    device = ScriptedDevice(throttled=1)
    measure(device, store, "a", replace(TWICE, cooldown_s=5.0), sleep=rests.append)
    assert rests == [5.0, 5.0, 5.0]


def test_a_device_that_stays_hot_fails_its_networks_until_it_is_cool(store: MeasurementStore) -> None:
    results = measure(ScriptedDevice(throttled=4), store, "ab")
    for failure in results.values():
        assert isinstance(failure, MeasurementFailure)
        assert "throttled in all of 4 attempts" in failure.reason
        assert failure.transient
    assert store.all() == list(results.values())
    assert measured(measure(ScriptedDevice(), store, "ab")["a"]).latency_ms == 10.0


def test_a_lost_device_keeps_what_was_measured(store: MeasurementStore) -> None:
    lost = DeviceLostError("the cable is out", "put it in again")
    names = "abcdefghijkl"
    first_chunk = 2 * (TOGETHER + 2)
    device = ScriptedDevice(raised={first_chunk + 3: lost})
    with pytest.raises(DeviceLostError):
        measure(device, store, names)
    assert device.held == []
    assert len(store.all()) == TOGETHER
    again = ScriptedDevice()
    assert all(isinstance(result, Measurement) for result in measure(again, store, names).values())
    assert set(again.sampled) == set("Rijkl")


def test_a_settled_network_is_stored_before_the_others_are(store: MeasurementStore) -> None:
    device = ScriptedDevice(
        latencies_ms={"b": [10.0, 20.0] * 9}, raised={3 * len("RabR") + 1: DeviceLostError("gone", "look")}
    )
    with pytest.raises(DeviceLostError):
        measure(device, store, "ab", ADAPTIVE)
    assert [result.network_hash for result in store.all()] == [network("a").hash]


def test_an_interrupt_releases_everything(store: MeasurementStore) -> None:
    device = ScriptedDevice(raised={6: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        measure(device, store, "abc")
    assert device.held == []
    assert len(measure(device, store, "abc")) == 3


def test_results_are_stored_before_they_are_yielded(store: MeasurementStore) -> None:
    with Session(ScriptedDevice(), TWICE, store) as session:
        for network_hash, result in session.measure(networks("abc")):
            assert store.get(network_hash, session.fingerprint, session.protocol) == result


def test_a_row_that_was_damaged_is_measured_again(store: MeasurementStore, tmp_path: Path) -> None:
    import sqlite3

    measure(ScriptedDevice(), store, "ab")
    with sqlite3.connect(tmp_path / "measurements.db") as connection:
        connection.execute("UPDATE results SET body = replace(body, '10.0', '1.0') WHERE id = 1")
    connection.close()
    device = ScriptedDevice()
    assert measured(measure(device, store, "ab")["a"]).latency_ms == 10.0
    assert set(device.sampled) == {"R", "a"}


def test_a_modelled_device_is_asked_once(store: MeasurementStore) -> None:
    device = ScriptedDevice(kind="modelled", latencies_ms={"R": [10.0], "a": [4.0]})
    results = measure(device, store, "abcdefghij", replace(ADAPTIVE, warmup_s=1.0))
    assert "".join(device.sampled) == "Rabcdefghij"
    result = measured(results["a"])
    assert (result.kind, result.protocol, result.repeats_ms) == ("modelled", ONCE, ((4.0,),))
    assert result.anchor_ratio == 0.4


def test_an_anchor_that_cannot_run_is_told_and_the_device_is_free_again(store: MeasurementStore) -> None:
    device = ScriptedDevice(refused="R")
    with pytest.raises(PreparationError, match="refuses R"):
        measure(device, store, "a")
    assert measure(device, store, "a", anchor=None)


def test_an_anchor_that_fails_ends_the_session_and_blames_no_network(store: MeasurementStore) -> None:
    device = ScriptedDevice(latencies_ms={"R": [10.0, None]})
    with pytest.raises(PreparationError):
        measure(device, store, "a")
    assert store.all() == []
    assert device.held == []


def test_a_session_must_be_open(store: MeasurementStore) -> None:
    session = Session(ScriptedDevice(), TWICE, store)
    with pytest.raises(DeviceError, match="not open"):
        list(session.measure(networks("a")))


def test_latencies_are_refused_where_they_mean_nothing() -> None:
    emulator = ScriptedDevice(kind="functional")
    with pytest.raises(DeviceError, match="measured or modelled; those of scripted are functional"):
        require_kind(emulator, {"measured", "modelled"}, "a search")
    require_kind(ScriptedDevice(), {"measured"}, "a gate")
