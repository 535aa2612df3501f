from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from hwnas.errors import DeviceError
from hwnas.measurement import Measurement
from hwnas.network import Network, Part
from hwnas.profiles.comparison import Comparison, compare
from hwnas.profiles.protocols import SIDE_BY_SIDE
from hwnas.profiles.session import Session
from hwnas.profiles.store import open_history
from hwnas.testing.scripted import ScriptedDevice

SHORT = replace(SIDE_BY_SIDE, warmup_s=0, slice_s=0.001, min_s=0.02, min_runs=2)


def run(device: ScriptedDevice, precision: float = 0.01) -> tuple[Comparison, list[Measurement]]:
    networks = [Network(name, [Part(name, onnx=name.encode)]) for name in "ab"]
    with open_history() as store:
        session = Session(device, SHORT, store, recall=False, clock=itertools.count().__next__)
        result = compare(session, *networks, precision=precision)
        return result, [found for found in store.all() if isinstance(found, Measurement)]


def test_the_ratio_is_that_of_the_two_whatever_the_drift() -> None:
    result, kept = run(ScriptedDevice(latencies_ms={"a": [10.0], "b": [12.5]}, drift=0.001))
    assert result.is_precise
    assert result.ratio.low <= result.ratio.value <= result.ratio.high
    assert result.ratio.value == pytest.approx(1.25, rel=0.003)
    assert result.repeats == 6  # the fewest with a 95 % interval
    assert [measurement.network_name for measurement in kept] == ["a", "b"]
    assert kept[1].latency_ms == pytest.approx(12.5, rel=0.1)


def test_it_goes_on_until_precise_or_the_end() -> None:
    noisy = [10.0, 12.0, 11.0, 13.0, 10.5, 12.5] * 500
    result, _ = run(ScriptedDevice(latencies_ms={"b": noisy}), precision=0.0001)
    assert (result.is_precise, result.repeats) == (False, 30)


def test_an_emulator_is_refused_and_a_model_is_exact() -> None:
    with pytest.raises(DeviceError, match="a comparison needs"):
        run(ScriptedDevice(kind="functional"))
    result, _ = run(ScriptedDevice(kind="modelled", latencies_ms={"b": [5.0]}))
    assert (result.ratio.value, result.ratio.low, result.ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert result.is_precise
