"""Repeats that share nothing, and that go on to a precision or until the time is up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import InputError, PreparationError
from hwnas.measurement import Measurement, MeasurementFailure, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.protocols import ADAPTIVE, SEARCH, describe, ending, is_enough, queued
from hwnas.profiles.session import Session
from hwnas.profiles.statistics import half_width
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.scripted import ScriptedDevice

FRESH = Protocol(
    name="fresh",
    warmup_s=0.001,
    min_runs=1,
    min_s=0,
    repeats=3,
    max_repeats=40,
    max_spread=0.0,
    fresh=True,
    precision=0.01,
)


class CountingDevice(ScriptedDevice):
    """Counts how often each network is prepared."""

    prepared = ""

    def prepare_impl(self, network: Network):  # type: ignore[no-untyped-def]
        self.prepared += network.name
        return super().prepare_impl(network)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with MeasurementStore(tmp_path / "measurements.db") as store:
        yield store


def measure(
    device: ScriptedDevice, store: MeasurementStore, names: str, protocol: Protocol, step_s: float = 0.0
) -> dict[str, Any]:
    networks = [Network(name, [Part(name, onnx=name.encode)]) for name in names]
    clock = itertools.count(step=step_s).__next__
    with Session(device, protocol, store, clock=clock) as session:
        return dict(zip(names, (result for _, result in session.measure(networks)), strict=True))


def test_each_repeat_prepares_warms_up_samples_and_lets_go(store: MeasurementStore) -> None:
    device = CountingDevice(latencies_ms={"a": [50.0, 10.0] * 3})
    results = measure(device, store, "ab", FRESH)
    assert device.prepared == "ab" + "ba" + "ab"
    assert "".join(device.sampled) == "aabb" + "bbaa" + "aabb"
    assert device.held == []
    result = results["a"]
    assert isinstance(result, Measurement)
    assert (result.warmup_ms, result.repeats_ms) == ((50.0,) * 3, ((10.0,),) * 3)
    assert (result.network_name, result.device_name) == ("a", "scripted")


def test_repeats_go_on_until_the_median_is_known(store: MeasurementStore) -> None:
    noisy = [
        latency
        for pair in zip(itertools.repeat(1.0), [10.0, 12.0, 11.0] * 9, strict=False)
        for latency in pair
    ]
    calm = [1.0, 11.0]
    device = ScriptedDevice(latencies_ms={"a": noisy + calm * 60, "b": [10.0]})
    results = measure(device, store, "ab", FRESH)
    assert len(results["b"].medians_ms) == 3
    taken = results["a"].medians_ms
    assert half_width(taken) <= 0.01 < half_width(taken[:-1])
    assert ending(FRESH, taken).startswith("precise enough: ± ")


def test_the_time_ends_repeats_and_is_said(store: MeasurementStore) -> None:
    device = ScriptedDevice(latencies_ms={"a": [1.0, 10.0, 1.0, 20.0] * 50})
    slow = replace(FRESH, max_seconds=35.0)
    taken = measure(device, store, "a", slow, step_s=10.0)["a"].medians_ms
    assert len(taken) == 4
    assert "the time was up" in ending(slow, taken)
    assert ending(slow, taken[:1]) == "the time was up after 1 repeat"
    full = measure(ScriptedDevice(latencies_ms={"a": [1.0, 10.0, 1.0, 20.0] * 50}), store, "a", FRESH)["a"]
    assert len(full.medians_ms) == FRESH.max_repeats
    assert "the most of the protocol" in ending(FRESH, full.medians_ms)
    assert ending(SEARCH, (1.0, 1.0, 1.0)) == "3 repeats, as the protocol says"


def test_a_network_that_fails_later_is_a_failure(store: MeasurementStore) -> None:
    class Forgetful(CountingDevice):
        def prepare_impl(self, network: Network):  # type: ignore[no-untyped-def]
            if self.prepared.count("a") == 2 and network.name == "a":
                raise PreparationError("no memory is left", "close something")
            return super().prepare_impl(network)

    device = Forgetful()
    results = measure(device, store, "ab", FRESH)
    failure = results["a"]
    assert isinstance(failure, MeasurementFailure)
    assert "no memory is left" in failure.reason
    assert isinstance(results["b"], Measurement)
    assert device.held == []
    nonsense = measure(ScriptedDevice(latencies_ms={"a": [None]}), store, "a", FRESH)["a"]
    assert isinstance(nonsense, MeasurementFailure)


def test_a_protocol_without_the_new_words_keeps_its_identity() -> None:
    assert len({SEARCH.id, replace(SEARCH, fresh=True).id, replace(SEARCH, precision=0.01).id}) == 3
    assert replace(SEARCH, max_seconds=0.0).id == SEARCH.id


def test_at_a_queue_a_precision_is_not_chased() -> None:
    jobs = queued(ADAPTIVE)
    assert (jobs.repeats, jobs.max_repeats, jobs.fresh, jobs.precision, jobs.max_seconds) == (
        6,
        6,
        False,
        0,
        0,
    )


def test_the_adaptive_protocol_says_what_it_does() -> None:
    assert describe(ADAPTIVE) == (
        "adaptive: 0.1 s of warm-up, 6 × at least 30 runs and 0.3 s, each in a session of its own, until "
        "the median is known to 1.0%, at most 60 s together; median of the repeats' medians"
    )
    assert not is_enough(ADAPTIVE, [1.0] * 5, 0.0)
    assert is_enough(ADAPTIVE, [1.0] * 6, 0.0)
    assert is_enough(ADAPTIVE, [1.0], 60.0)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="precision"):
        replace(SEARCH, precision=-1.0)
    with pytest.raises(InputError, match="max_seconds"):
        replace(SEARCH, max_seconds=-1.0)
