from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import InputError
from hwnas.measurement import Conditions, Fingerprint, Layer, Measurement, Protocol

FINGERPRINT = Fingerprint(
    chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
)
PROTOCOL = Protocol(name="p", warmup_s=0.0, min_runs=1, min_s=0.0, repeats=3, max_repeats=6, max_spread=0.05)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
positive = st.floats(1e-6, 1e6)
samples = st.lists(positive, min_size=1, max_size=5).map(tuple)


OPTIONAL = ("schema", "layers", "network_name", "device_name")


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    repeats_ms = draw(st.lists(samples, min_size=1, max_size=4).map(tuple))
    anchor_ms = draw(st.just(()) | st.tuples(*[positive] * len(repeats_ms)))
    conditions = st.builds(
        Conditions,
        clocks_mhz=st.dictionaries(texts, positive, max_size=2),
        throttled=st.none() | st.booleans(),
        load=st.none() | positive,
    )
    return Measurement(
        network_hash=draw(texts),
        kind=draw(st.sampled_from(["measured", "modelled", "functional"])),
        repeats_ms=repeats_ms,
        warmup_ms=draw(samples),
        anchor_ms=anchor_ms,
        metrics=draw(st.dictionaries(texts, positive, max_size=2)),
        placement=draw(st.dictionaries(texts, st.dictionaries(texts, st.integers(0, 99)), max_size=2)),
        protocol=PROTOCOL,
        fingerprint=FINGERPRINT,
        conditions=draw(st.tuples(conditions, conditions)),
        started_at=draw(texts),
    )


def make(**changes: Any) -> Measurement:
    defaults: dict[str, Any] = {
        "network_hash": "n",
        "kind": "measured",
        "repeats_ms": ((1.0, 2.0, 9.0), (4.0, 4.0, 4.0), (3.0, 3.0, 3.0)),
        "warmup_ms": (),
        "anchor_ms": (),
        "metrics": {},
        "placement": {},
        "protocol": PROTOCOL,
        "fingerprint": FINGERPRINT,
        "conditions": (Conditions(), Conditions()),
        "started_at": "2025-01-01T00:00:00+00:00",
    }
    return Measurement(**defaults | changes)


@given(measurements())
def test_json_gives_the_measurement_back(measurement: Measurement) -> None:
    plain = json.loads(json.dumps(measurement.to_json(), allow_nan=False))
    assert Measurement.from_json(plain, "test") == measurement


@given(measurements())
def test_figures_lie_within_the_samples(measurement: Measurement) -> None:
    pooled = [sample for repeat in measurement.repeats_ms for sample in repeat]
    assert min(pooled) <= measurement.latency_ms <= max(pooled)
    assert measurement.spread >= 0
    percentiles = [measurement.percentile_ms(percent) for percent in (1, 50, 99)]
    assert percentiles == sorted(percentiles)


def test_latency_is_the_median_of_the_repeats_medians() -> None:
    measurement = make()
    assert measurement.medians_ms == (2.0, 4.0, 3.0)
    assert measurement.latency_ms == 3.0
    assert measurement.spread == pytest.approx(2 / 3)
    assert measurement.percentile_ms(50) == 3.0
    assert make(repeats_ms=((5.0,),)).percentile_ms(90) == 5.0


def test_the_ratio_is_taken_repeat_by_repeat() -> None:
    assert make(anchor_ms=(1.0, 2.0, 1.5)).anchor_ratio == 2.0
    with pytest.raises(InputError, match="without an anchor"):
        _ = make().anchor_ratio


@pytest.mark.parametrize(
    "changes",
    [
        {"repeats_ms": ()},
        {"repeats_ms": ((1.0,), ())},
        {"repeats_ms": ((0.0,),)},
        {"repeats_ms": ((float("nan"),),)},
        {"anchor_ms": (1.0,)},
        {"anchor_ms": (1.0, -1.0, 1.0)},
    ],
)
def test_a_measurement_that_says_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a measurement"):
        make(**changes)


@pytest.mark.parametrize("key", [key for key in make().to_json() if key not in OPTIONAL])
def test_every_key_is_needed_and_typed(key: str) -> None:
    plain = json.loads(json.dumps(make().to_json()))
    for wrong in ({name: value for name, value in plain.items() if name != key}, plain | {key: 1}):
        with pytest.raises(InputError, match=key):
            Measurement.from_json(wrong, "test")


def test_a_fingerprint_keeps_its_identity() -> None:
    assert FINGERPRINT.id == "325ff59e6b1b1545"
    others = [replace(FINGERPRINT, precision="int8"), replace(FINGERPRINT, driver="newer")]
    assert len({FINGERPRINT.id, *(other.id for other in others)}) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"min_runs": 0}, {"repeats": 0}, {"max_repeats": 2}, {"min_s": -0.1}, {"max_spread": float("nan")}],
)
def test_a_protocol_that_cannot_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(PROTOCOL, **wrong)


@pytest.mark.parametrize(
    ("medians_ms", "settled"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.04], True),
        ([1.0, 1.0, 1.1], False),
        ([2.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 1.0, 2.0], False),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], True),
    ],
)
def test_repeats_are_enough_when_the_latest_agree(medians_ms: list[float], settled: bool) -> None:
    assert PROTOCOL.settled(medians_ms) is settled


def test_throughput_counts_the_images_of_a_batch() -> None:
    measurement = replace(make(), repeats_ms=((4.0,), (4.0,)))
    assert measurement.throughput_per_s == 250.0
    assert replace(measurement, metrics={"batch_size": 32.0}).throughput_per_s == 8000.0


def test_layers_and_conditions_come_back() -> None:
    layers = (Layer(name="conv1", operator="Conv", unit="NPU", time_ms=None),)
    busy = Conditions(power_w={"gpu": 250.0}, limits=("power cap",), other_processes=1)
    measurement = replace(make(), layers=layers, conditions=(busy, busy))
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json())), "test") == measurement


def test_a_measurement_of_version_1_is_read() -> None:
    """Stored by the version that wrote it; it knew no names and no fresh repeats."""
    path = Path(__file__).with_name("stored") / "profile-1.json"
    (row,) = json.loads(path.read_text())
    old = Measurement.from_json(row["measurement"], str(path))
    assert (old.network_name, old.device_name, old.protocol.fresh) == ("", "", False)
    assert old.latency_ms == 0.014877000000000001
    assert old.protocol.id == "7d45578b2000be2a"  # so what was measured then is still known by it
    newest = old.to_json()
    assert newest["schema"] == "hwnas.measurement/3"
    assert Measurement.from_json(newest, "test") == old


def test_a_newer_measurement_is_refused() -> None:
    with pytest.raises(InputError, match=r"hwnas\.measurement/4"):
        Measurement.from_json(make().to_json() | {"schema": "hwnas.measurement/4"}, "test")
