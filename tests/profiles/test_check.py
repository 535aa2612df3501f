"""A whole check on a device that does as it is told: interleaving, verdicts, faults."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwnas.devices.base import BaseDevice
from hwnas.errors import DeviceError, DeviceLostError
from hwnas.measurement import Fingerprint, Measurement, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.gate.baseline import Recorded
from hwnas.profiles.gate.check import BEFORE, Entry, Terms, check, lower_deciles_ms
from hwnas.profiles.gate.report import Checked, Report
from hwnas.profiles.interleave import Series, interleave, latency_ms
from hwnas.profiles.protocols import SIDE_BY_SIDE
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore, open_history
from hwnas.testing.scripted import ScriptedDevice
from hwnas.testing.scripted_queue import ScriptedHub, ScriptedQueueDevice

SHORT = replace(SIDE_BY_SIDE, warmup_s=0, slice_s=0.001, min_s=0.02, min_runs=2, repeats=1, max_repeats=12)
TERMS = Terms(threshold=0.05, baseline="main", accept="hwnas check record")


def network(name: str) -> Network:
    return Network(name, [Part(name, onnx=name.encode)])


def entry(name: str, baseline: str | None = "old", recorded: Recorded | None = None) -> Entry:
    old = network(baseline) if baseline else None
    return Entry(model=name, network=network(name), baseline=old, recorded=recorded)


def recorded(latency_ms: float = 10.0, repeats: int = 16) -> Recorded:
    samples = (latency_ms,) * repeats
    return Recorded(model="new", network_hash="old", commit="", repeats_ms=samples, medians_ms=samples)


def run(device: BaseDevice, *entries: Entry, terms: Terms = TERMS, protocol: Protocol = SHORT) -> Report:
    told: list[Checked] = []
    with open_history() as store:
        report = check(opened(device, store, protocol), entries, terms, on_result=told.append)
    assert tuple(told) == report.networks
    return report


def opened(device: BaseDevice, store: MeasurementStore, protocol: Protocol = SHORT) -> Session:
    clock = itertools.count().__next__
    return Session(device, protocol, store, recall=False, sleep=lambda seconds: None, clock=clock)


def rounds(device: ScriptedDevice, names: str, protocol: Protocol, step: float = 0.0) -> list[list[Series]]:
    """The networks' series after each round, as far as the time and the protocol's repeats allow."""
    taken = []
    ticks = itertools.count(step=step).__next__
    with device:
        for round_ in interleave(
            device, [network(name) for name in names], protocol, sleep=lambda seconds: None, clock=ticks
        ):
            taken.append(list(round_.active))
            if len(taken) == protocol.max_repeats:
                break
    return taken


def verdict(device: BaseDevice, *entries: Entry, **terms: Any) -> str:
    (checked,) = run(device, *entries, terms=replace(TERMS, **terms)).networks
    return checked.verdict


@pytest.mark.parametrize(("new_ms", "code"), [(11.0, 1), (10.4, 0), (10.0, 0), (9.0, 0)])
def test_the_exit_code_follows_from_the_effect(new_ms: float, code: int) -> None:
    report = run(ScriptedDevice(latencies_ms={"new": [new_ms]}), entry("new"))
    assert report.exit_code == code
    (checked,) = report.networks
    assert checked.how == "interleaved"
    assert checked.decision is not None
    assert checked.decision.effect == pytest.approx(new_ms / 10 - 1)


class Stopped(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def stop_after_the_first(checked: Checked) -> None:
    raise Stopped


def stopped(device: BaseDevice, *entries: Entry, terms: Terms = TERMS, protocol: Protocol = SHORT) -> None:
    with open_history() as store, pytest.raises(Stopped):
        check(opened(device, store, protocol), entries, terms, on_result=stop_after_the_first)


def test_a_stopped_check_goes_on_where_it_was() -> None:
    entries = (entry("a"), entry("b"))
    stopped(ScriptedDevice(latencies_ms={"a": [12.0]}), *entries)
    device = ScriptedDevice(latencies_ms={"a": [8.0], "b": [10.0]})
    report = run(device, *entries)
    assert [checked.verdict for checked in report.networks] == ["regression", "pass"]
    assert "a" not in device.sampled
    assert [BEFORE in checked.reason for checked in report.networks] == [True, False]
    anew = run(ScriptedDevice(latencies_ms={"a": [8.0]}), *entries)
    assert [checked.verdict for checked in anew.networks] == ["improvement", "pass"]


def test_another_check_does_not_go_on_from_a_stopped_one() -> None:
    stopped(ScriptedDevice(latencies_ms={"a": [12.0]}), entry("a"), entry("b"))
    others: list[tuple[tuple[Entry, ...], dict[str, Any]]] = [
        ((entry("a"),), {}),
        ((entry("b"), entry("a")), {}),
        ((entry("a", baseline="older"), entry("b")), {}),
        ((entry("a"), entry("b")), {"terms": replace(TERMS, threshold=0.06)}),
        ((entry("a"), entry("b")), {"protocol": replace(SHORT, max_seconds=4000.0)}),
    ]
    for entries, changed in others:
        report = run(ScriptedDevice(), *entries, **changed)
        assert {checked.verdict for checked in report.networks} == {"pass"}, changed
        assert not any(BEFORE in checked.reason for checked in report.networks)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE open_checks SET decided_at_s = decided_at_s - 90000",
        "UPDATE open_checks SET body = replace(body, 'regression', 'pass')",
        "UPDATE open_checks SET entry = 1",
    ],
)
def test_what_is_old_or_damaged_is_decided_anew(change: str) -> None:
    entries = (entry("a"), entry("b"))
    stopped(ScriptedDevice(latencies_ms={"a": [12.0]}), *entries)
    with open_history() as store:
        store.write(change, ())
    device = ScriptedDevice()
    report = run(device, *entries)
    assert [checked.verdict for checked in report.networks] == ["pass", "pass"]
    assert {"a", "b"} <= {*device.sampled}


def test_a_lost_device_leaves_what_was_decided() -> None:
    entries = (entry("a"), entry("b"))
    first = ScriptedDevice(latencies_ms={"a": [12.0]})
    run(first, entry("a"))
    calls = len(first.sampled)
    lost = ScriptedDevice(latencies_ms={"a": [12.0]}, raised={calls + 2: DeviceLostError("gone", "look")})
    assert [checked.verdict for checked in run(lost, *entries).networks] == ["regression", "failed"]
    again = run(ScriptedDevice(latencies_ms={"a": [8.0]}), *entries)
    assert [checked.verdict for checked in again.networks] == ["regression", "pass"]


def test_what_to_do_is_said() -> None:
    slow, fast = ScriptedDevice(latencies_ms={"new": [12.0]}), ScriptedDevice(latencies_ms={"new": [8.0]})
    assert "accept it: hwnas check record" in run(slow, entry("new")).networks[0].reason
    (faster,) = run(fast, entry("new")).networks
    assert (faster.verdict, "accept the new baseline: hwnas check record" in faster.reason) == (
        "improvement",
        True,
    )


def test_the_two_take_turns_and_every_repeat_prepares_anew() -> None:
    device = ScriptedDevice()
    taken = rounds(device, "ab", replace(SHORT, max_repeats=2))
    assert device.held == []
    assert "".join(device.sampled) == "abba" + "baab"
    assert [[len(slices) for slices in series.repeats] for series in taken[-1]] == [[2, 2], [2, 2]]


def test_a_drift_of_the_device_cancels() -> None:
    report = run(ScriptedDevice(drift=0.01), entry("new"))
    assert report.networks[0].verdict == "pass"
    assert abs(report.networks[0].decision.effect) < 0.003  # type: ignore[union-attr]


def test_delays_that_hit_some_runs_do_not_move_the_lower_decile() -> None:
    generator = np.random.default_rng(0)
    samples_ms = 10.0 + generator.exponential(9, 120) * (generator.random(120) < 0.6)
    assert latency_ms(samples_ms.tolist()) == 10.0
    assert np.median(samples_ms) > 10.5


def test_noise_over_the_threshold_is_inconclusive() -> None:
    noisy = np.random.default_rng(1).lognormal(2.3, 0.5, 1000).tolist()
    assert verdict(ScriptedDevice(latencies_ms={"new": noisy}), entry("new")) == "inconclusive"


def test_the_time_is_kept() -> None:
    with (
        open_history() as store,
        Session(
            ScriptedDevice(),
            replace(SHORT, max_seconds=35.0),
            store,
            recall=False,
            clock=itertools.count(step=10.0).__next__,
        ) as session,
    ):
        (taken,) = session.side_by_side([network("a")], lambda taken: False)
    assert len(taken.repeats_ms) == 3
    few = run(ScriptedDevice(), entry("new"), protocol=replace(SHORT, max_repeats=3))
    assert (few.exit_code, few.networks[0].verdict) == (3, "inconclusive")
    assert "repeats are too few to tell (3)" in few.networks[0].reason
    assert "--max-seconds" in few.networks[0].reason


def test_the_same_network_is_not_measured() -> None:
    device = ScriptedDevice()
    report = run(device, entry("new", baseline="new"))
    assert (report.exit_code, report.networks[0].verdict, device.sampled) == (0, "unchanged", [])


def test_only_networks_that_are_measured_share_the_chance_of_a_false_alarm() -> None:
    unchanged = [entry("new", baseline="new") for _ in range(9)]
    alone = run(ScriptedDevice(), entry("new")).networks[0].decision
    assert alone is not None
    assert run(ScriptedDevice(), *unchanged, entry("new")).networks[-1].decision == alone
    (among_ten, *_) = run(ScriptedDevice(), *[entry("new")] * 10).networks
    assert among_ten.decision is not None
    assert among_ten.decision.repeats > alone.repeats


@pytest.mark.parametrize(("new_ms", "expected"), [(11.0, "regression"), (10.0, "pass"), (8.0, "improvement")])
def test_recorded_samples_serve_where_the_network_is_not_at_hand(new_ms: float, expected: str) -> None:
    device = ScriptedDevice(latencies_ms={"new": [new_ms]})
    with device:
        here = device.fingerprint()
    assert verdict(device, entry("new", None, recorded()), recorded_on=here) == expected


def test_samples_of_another_fingerprint_are_never_compared() -> None:
    device = ScriptedDevice(latencies_ms={"new": [99.0]})
    elsewhere = Fingerprint(
        chip="other", os_build="none", driver="none", runtime="script", precision="fp32", power_mode="default"
    )
    report = run(device, entry("new", None, recorded()), terms=replace(TERMS, recorded_on=elsewhere))
    assert report.exit_code == 3
    assert "chip was 'other', is 'scripted'" in report.networks[0].reason
    assert "--baseline REF" in report.networks[0].reason
    assert device.sampled == []


def test_a_network_that_cannot_run_is_told_and_the_others_are_checked() -> None:
    device = ScriptedDevice(refused=["bad"], latencies_ms={"slow": [12.0]})
    report = run(device, entry("bad"), entry("new"))
    assert [checked.verdict for checked in report.networks] == ["failed", "pass"]
    assert report.exit_code == 2
    assert report.networks[0].reason == "the script refuses bad; change the script"
    assert (
        run(
            ScriptedDevice(refused=["bad"], latencies_ms={"slow": [12.0]}), entry("bad"), entry("slow")
        ).exit_code
        == 1
    )


def test_a_device_that_vanishes_keeps_what_was_decided() -> None:
    gone = DeviceLostError("the cable is out", "put it in again")
    device = ScriptedDevice(latencies_ms={"first": [12.0]}, raised={70: gone})
    report = run(device, entry("first"), entry("second"), entry("third"))
    assert [checked.verdict for checked in report.networks] == ["regression", "failed", "failed"]
    assert all("the cable is out; put it in again" in checked.reason for checked in report.networks[1:])
    assert device.held == []


def test_an_emulator_is_refused() -> None:
    with pytest.raises(DeviceError, match="a check needs latencies that are measured or modelled"):
        run(ScriptedDevice(kind="functional"), entry("new"))


def test_a_throttled_repeat_is_left_out() -> None:
    device = ScriptedDevice(throttled=2)
    taken = rounds(device, "a", replace(SHORT, max_repeats=1))
    assert [len(series.repeats) for series in taken[0]] == [1]
    assert len(device.sampled) == 3 * 2  # two repeats that throttled, one that did not
    (checked,) = run(ScriptedDevice(throttled=1000), entry("new")).networks
    assert (checked.verdict, "throttled in all of 4 attempts" in checked.reason) == ("failed", True)


def test_a_model_is_asked_once() -> None:
    device = ScriptedDevice(kind="modelled", latencies_ms={"new": [10.6]})
    (checked,) = run(device, entry("new")).networks
    assert (checked.verdict, checked.how, sorted(device.sampled)) == (
        "regression",
        "modelled",
        ["new", "old"],
    )


def test_at_a_queue_each_repeat_is_a_job() -> None:
    device = ScriptedQueueDevice(ScriptedHub(latencies_ms={"new": [12.0]}))
    device.poll_s = 0.0
    (checked,) = run(device, entry("new"), protocol=SIDE_BY_SIDE).networks
    assert (checked.verdict, checked.how) == ("regression", "jobs")
    assert len(checked.now_ms) == len(checked.baseline_ms) == 6


def test_one_network_is_recorded_alone() -> None:
    with open_history() as store:
        with opened(ScriptedDevice(), store) as session:
            (taken,) = session.side_by_side([network("a")], lambda taken: False)
        assert lower_deciles_ms(taken) == (10.0,) * 12
        assert store.get(network("a").hash, taken.fingerprint, SHORT) == taken


def test_what_a_check_took_is_in_the_history() -> None:
    run(ScriptedDevice(), entry("new"))
    with open_history() as store:
        names = [found.network_name for found in store.all() if isinstance(found, Measurement)]
    assert sorted(names) == ["new", "old"]
