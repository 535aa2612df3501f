"""The power study: the collector goes on where it was, and the rules say what is plain."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from hwnas.devices.base import BaseDevice
from hwnas.measurement import DeviceProfile
from hwnas.testing.scripted import ScriptedDevice


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/gate_power.py with a device that does as it is told: the time is the number of layers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    gate_power = importlib.import_module("gate_power")

    def open_device(profile: DeviceProfile) -> BaseDevice:
        return ScriptedDevice(latencies_ms={f"{layers} layers": [float(layers)] for layers in (20, 21, 22)})

    monkeypatch.setattr(gate_power, "open_device", open_device)
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


def test_samples_of_another_machine_are_not_added_to(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    power.collect(path, "cpu", 1, 60.0)
    path.write_text(path.read_text().replace('"chip": "scripted"', '"chip": "other"'))
    with pytest.raises(SystemExit, match="collected elsewhere"):
        power.collect(path, "cpu", 2, 60.0)


def test_every_rule_decides_what_is_plain(power: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    power.simulate(path, 10)
    pairs = power.read(path)
    assert [pair["loaded"] for pair in pairs] == [False] * 5 + [True] * 5
    same, slower = pairs[0]["repeats_ms"], pairs[3]["repeats_ms"]
    for name, rule in power.gate_rules.RULES.items():
        twice = [[old, [[2 * run for run in part] for part in new]] for old, new in same]
        assert rule(twice, 0.05) == "regression", name
        if name != "t-test on runs":  # which has no threshold
            assert rule(same, 0.25) == "pass", name
    assert power.gate_rules.ours(slower, 0.05) == "regression"
    assert power.gate_rules.ours(same, 0.025) == "pass"


def test_the_table_names_shares_with_intervals(
    power: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "samples.jsonl"
    power.simulate(path, 10)
    power.replay(path)
    shown = capsys.readouterr().out
    assert all(rule in shown for rule in power.gate_rules.RULES)
    assert "   0/6      0.0% [0.0%, 45.9%]" in shown  # 1 − 0.025^(1/6), by Clopper and Pearson
    assert "\nloaded: 5 pairs" in shown


def test_the_work_is_what_it_says(power: ModuleType) -> None:
    from hwnas.compress.blocks import count

    baseline, others = power.networks()
    macs = {kind: count(network.module(), (3, 14, 14))[0] for kind, network in others.items()}
    own = count(baseline.module(), (3, 14, 14))[0]
    assert macs["same"] == own
    assert others["same"].hash != baseline.hash
    assert macs["5 %"] / own == pytest.approx(1.05, abs=0.001)
    assert macs["10 %"] / own == pytest.approx(1.10, abs=0.001)
