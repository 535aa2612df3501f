"""What is said against measurements: each kind where it is there, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import InputError
from hwnas.files import decode, encode
from hwnas.measurement import Conditions, CpuTimes, Fingerprint, Measurement
from hwnas.network import Network, Part
from hwnas.profiles.comparison import compare
from hwnas.profiles.gate.check import Entry, Terms, check
from hwnas.profiles.gate.formats import markdown
from hwnas.profiles.history.series import write_history
from hwnas.profiles.judgement import clean_bill, disturbed_by, judge, sentences, two_modes
from hwnas.profiles.parts import sum_error, times_of_parts
from hwnas.profiles.profile_page import write_report
from hwnas.profiles.profile_rows import Profiled, as_csv, as_markdown
from hwnas.profiles.protocols import ADAPTIVE, QUICK, SIDE_BY_SIDE
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.scripted import ScriptedDevice

FINGERPRINT = Fingerprint(
    chip="chip", os_build="os", driver="none", runtime="run", precision="fp32", power_mode="default"
)
START = CpuTimes(cpus=2, clock_s=100.0, busy_s=50.0, own_s=3.0)


def measurement() -> Measurement:
    """Eight repeats around 10 ms, of which nothing is known."""
    draws = 10 + np.random.default_rng(3).random((8, 30))
    return Measurement(
        network_hash="hash",
        kind="measured",
        repeats_ms=tuple(map(tuple, draws.tolist())),
        warmup_ms=(),
        anchor_ms=(),
        metrics={},
        placement={},
        protocol=ADAPTIVE,
        fingerprint=FINGERPRINT,
        conditions=(Conditions(), Conditions()),
        started_at="2026-01-08T00:00:00+00:00",
    )


def under(after: CpuTimes, **conditions: Any) -> Measurement:
    """A measurement that began at `START` and ended with these counters."""
    return replace(measurement(), conditions=(Conditions(cpu=START), Conditions(cpu=after, **conditions)))


def ran(seconds: float, others: float, own: float) -> CpuTimes:
    """The counters some seconds later, others and the process itself having used so much CPU time."""
    return replace(START, clock_s=100 + seconds, busy_s=50 + others + own, own_s=3 + own)


def kinds(known: Measurement) -> list[str]:
    return [finding.kind for finding in judge(known)]


def test_other_work_is_told_with_its_share_and_the_load() -> None:
    (finding,) = judge(under(ran(10, others=10.8, own=8), load=10.7))
    assert finding.text.startswith("other work took 54% of the time of 2 CPUs")
    assert "load average 10.7" in finding.text
    assert disturbed_by(under(ran(10, others=10.8, own=8))) == "other work 54%"


def test_one_s_own_work_is_no_load() -> None:
    assert kinds(under(ran(10, others=0.2, own=19.5), load=10.7)) == []


@given(
    seconds=st.floats(0.05, 1000),
    share=st.floats(0, 1),
    own=st.floats(0, 1),
    load=st.none() | st.floats(0, 99),
)
def test_only_a_share_beyond_what_counters_can_be_off_is_told(
    seconds: float, share: float, own: float, load: float | None
) -> None:
    """Whatever the process itself does, and whatever the load average was."""
    known = under(ran(seconds, others=2 * share * seconds, own=2 * own * seconds), load=load)
    if share > 0.0501 + 0.02 / seconds:
        assert kinds(known) == ["other work"]
    if share < 0.0499 + 0.02 / seconds:
        assert kinds(known) == []


def test_a_quota_is_told_by_its_periods() -> None:
    after = replace(ran(10, 0, 5), quota_cpus=0.5, quota_periods=115, throttled_periods=114, throttled_s=5.44)
    (finding,) = judge(under(after))
    assert "CPU quota of 0.5 CPUs stopped this process in 114 of 115 periods (5.4 s)" in finding.text
    assert kinds(under(replace(after, throttled_periods=0))) == []


def test_clocks_governor_heat_and_other_processes() -> None:
    fast, slow = {"cpu0": 2600.0, "cpu1": 2600.0}, {"cpu0": 2590.0, "cpu1": 1800.0}

    def between(before: Conditions, after: Conditions) -> Measurement:
        return replace(measurement(), conditions=(before, after))

    assert kinds(between(Conditions(clocks_mhz=fast), Conditions(clocks_mhz=slow))) == ["clocks"]
    assert kinds(between(Conditions(clocks_mhz=slow), Conditions(clocks_mhz=fast))) == []
    lazy = Conditions(clocks_mhz=slow, governor="powersave")  # which lowers them as soon as nothing runs
    assert kinds(between(Conditions(clocks_mhz=fast), lazy)) == ["governor"]
    assert kinds(between(Conditions(), Conditions(governor="performance"))) == []
    assert kinds(between(Conditions(throttled=True), Conditions())) == ["throttling"]
    (finding,) = judge(between(Conditions(other_processes=0), Conditions(other_processes=2)))
    assert finding.text == "2 other processes use the device as well"


def test_two_modes_and_drift() -> None:
    generator = np.random.default_rng(0)
    two = np.concatenate([generator.normal(10, 0.3, 300), generator.normal(16, 0.3, 300)])
    assert not two_modes(generator.normal(10, 0.5, 600).tolist())
    assert not two_modes(generator.uniform(8, 16, 600).tolist())
    assert two_modes(two.tolist())
    assert kinds(measurement()) == []
    assert kinds(replace(measurement(), repeats_ms=(tuple(generator.permutation(two)),))) == ["two modes"]
    assert kinds(replace(measurement(), repeats_ms=tuple((10.0 + n,) * 5 for n in range(9)))) == ["drift"]


def test_a_model_is_not_disturbed() -> None:
    assert judge(replace(under(ran(10, 15, 1)), kind="modelled")) == []


def test_a_clean_bill_says_no_more_than_is_known() -> None:
    assert "whether other work ran is not known" in clean_bill(measurement())
    quiet = under(ran(10, 0, 9), throttled=False)
    assert clean_bill(quiet) == "No other work, throttling, drift or second mode is seen."
    assert "whether it throttled is not known" in clean_bill(under(ran(10, 0, 9)))


def test_of_several_the_worst_is_told_once() -> None:
    known = [under(ran(10, others, 1)) for others in (4.0, 0.1, 12.0)]
    (text,) = sentences([judge(one) for one in known])
    assert text.startswith("other work took 60%")
    assert text.endswith("(2 of 3 networks; this is the worst)")


def test_every_form_of_a_profile_tells() -> None:
    busy = under(ran(10, others=10.8, own=8))
    row = Profiled(model="a|b", device="d", result=busy)
    plain = json.loads(json.dumps(row.to_json()))
    (text,) = plain["summary"]["judgement"]
    assert text.startswith("other work took 54%")
    assert text in as_csv([row])
    assert f"- a\\|b: {text}" in as_markdown([row]).splitlines()


@pytest.mark.parametrize("key", ["clock_s", "busy_s", "own_s", "throttled_s", "quota_cpus", "cpus"])
@pytest.mark.parametrize("value", [-1, 10**400, 1e308, float("nan"), float("inf")])
def test_counters_that_cannot_be_are_refused(key: str, value: float) -> None:
    plain = encode(START) | {key: value}
    with pytest.raises(InputError):
        decode(CpuTimes, plain, "imported")


def timed(*medians_ms: float, **changed: Any) -> Measurement:
    return replace(measurement(), repeats_ms=tuple((ms, ms, ms) for ms in medians_ms), **changed)


def test_a_sum_is_called_wrong_only_where_that_is_shown() -> None:
    parts = {"a": timed(4.0, 4.1, 4.2), "b": timed(5.0, 5.1, 5.2)}
    wrong = times_of_parts("m", timed(20.0, 20.2, 20.4), parts).describe()
    assert "the sum is wrong by -54.5% [-55.9%, -53.0%]" in wrong
    within = times_of_parts("m", timed(9.0, 9.1, 9.5), parts).describe()
    assert "wrong" not in within
    assert "no more than repeats of one network do" in within


@given(
    st.lists(st.floats(1, 100), min_size=3, max_size=12),
    st.lists(st.lists(st.floats(1, 100), min_size=3, max_size=12), min_size=1, max_size=5),
)
def test_the_sentence_and_the_interval_agree(whole_ms: list[float], parts_ms: list[list[float]]) -> None:
    whole, parts = timed(*whole_ms), [timed(*part_ms) for part_ms in parts_ms]
    interval = sum_error(whole, parts)
    assert interval is not None
    assert interval.low <= interval.value <= interval.high
    said = times_of_parts("m", whole, {str(n): part for n, part in enumerate(parts)}).describe()
    assert ("is wrong by" in said) == (not interval.low <= 0 <= interval.high)


def test_a_sum_of_disturbed_or_single_measurements_is_not_judged() -> None:
    whole, part = timed(20.0, 20.2, 20.4), timed(4.0, 4.1, 4.2)
    busy = replace(part, conditions=(Conditions(cpu=START), Conditions(cpu=ran(10, 10.8, 8))))
    for one, other in ((whole, busy), (replace(whole, conditions=busy.conditions), part)):
        said = times_of_parts("m", one, {"a": other}).describe()
        assert "cannot be told: disturbed by other work 54%" in said
    once = times_of_parts("m", timed(20.0), {"a": timed(4.0)}).describe()
    assert "cannot be told: too few repeats" in once
    modelled = times_of_parts("m", timed(20.0, kind="modelled"), {"a": timed(4.0, kind="modelled")})
    assert modelled.describe().endswith("the sum is wrong by -80.0%")


class BusyDevice(ScriptedDevice):
    """Others take three quarters of its two CPUs."""

    def conditions(self) -> Conditions:
        looks = self._looks = self._looks + 1
        return Conditions(load=8.0, cpu=ran(10 * looks, others=15 * looks, own=2 * looks))


TOLD = "other work took 75% of the time of 2 CPUs"


def network(name: str) -> Network:
    return Network(name, [Part(name, onnx=name.encode)])


def test_a_session_a_comparison_and_a_check_are_judged(tmp_path: Path) -> None:
    with (
        MeasurementStore(tmp_path / "m.db") as store,
        Session(BusyDevice(), QUICK, store) as session,
    ):
        assert session.judgement == []
        dict(session.measure([network("a"), network("b")]))
        (text,) = session.judgement
        assert text.startswith(TOLD)
        assert text.endswith("(2 of 2 networks; this is the worst)")
        dict(session.measure([network("a")]))
        assert session.judgement == [text]  # what is remembered was judged when it was measured
    short = replace(SIDE_BY_SIDE, warmup_s=0, slice_s=0.001, min_s=0.02, min_runs=2, max_repeats=8)
    store = MeasurementStore(tmp_path / "m.db")
    busy, quiet = (Session(device, short, store, recall=False) for device in (BusyDevice(), ScriptedDevice()))
    compared = compare(busy, network("a"), network("b"), precision=0.01)
    assert compared.judgement[0].startswith(TOLD)
    entry = Entry(model="a", network=network("a"), baseline=network("b"))
    terms = Terms(threshold=0.05, baseline="b", accept="x")
    report = check(busy, [entry], terms)
    assert report.judgement[0].startswith(TOLD)
    assert report.to_json()["judgement"] == (report.judgement[0],)
    assert "Other work took 75%" in markdown(report)
    assert check(quiet, [entry], terms).judgement == ()


def test_pages_tell(tmp_path: Path) -> None:
    busy = under(ran(10, others=15, own=2), load=8.0)
    parts = times_of_parts("net", busy, {"stem": busy})
    rows = [
        Profiled(model="net", device="d", result=busy, parts=parts),
        Profiled(model="quiet", device="d", result=measurement()),
    ]
    write_report(tmp_path / "p.html", rows)
    page = (tmp_path / "p.html").read_text()
    assert f"O{TOLD[1:]}" in page
    assert page.count("is seen; whether") == 1  # of the other one
    assert "whether the sum is wrong cannot be told: disturbed by other work 75%" in page
    assert "load average" in page
    write_history(tmp_path / "h.html", "net", [busy, measurement()])
    history = (tmp_path / "h.html").read_text()
    assert '"symbol":["circle-open","circle"]' in history.replace(": ", ":").replace(", ", ",")
    assert "load average 8.0, disturbed by other work 75%" in history
