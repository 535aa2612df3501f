"""A device that answers nonsense: it is reported and never used, and measured again when it is mended."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from spoilt_runs import go_on

from hwnas.measurement import Measurement
from hwnas.profiles.interleave import without_outliers
from hwnas.profiles.store import MeasurementStore

FAST = (
    'name = "fast"\nwarmup_s = 0.0\nmin_runs = 11\nmin_s = 0.0\n'
    "repeats = 3\nmax_repeats = 5\nmax_spread = 0.1\n"
)


@pytest.mark.parametrize(
    ("before_ms", "answers_ms", "taken_ms"),
    [
        ([], [3000.0], 3000.0),
        ([3.0], [4.0], 4.0),
        ([3.0], [3000.0, 3.0, 3.5], 3.5),
        ([3000.0], [3.0, 3.5, 3000.0], 3.5),
        ([3.0], [90.0, 91.0, 92.0], 91.0),
        ([3.0], [0.003, 4.0, 0.003], 0.003),
    ],
)
def test_of_three_answers_the_one_in_the_middle_stands(
    before_ms: list[float], answers_ms: list[float], taken_ms: float
) -> None:
    answers = iter(answers_ms)
    assert without_outliers(lambda: [next(answers)], before_ms) == [taken_ms]
    assert list(answers) == []


def test_a_network_that_fails_when_it_is_asked_again_has_no_samples() -> None:
    answers = iter([[3000.0], []])
    assert without_outliers(lambda: next(answers), [3.0]) == ()


@pytest.fixture
def measured(copy: Path, workplace: Path) -> dict[str, Any]:
    """The front of the honest device."""
    (workplace / "fast.toml").write_text(FAST)
    return search(copy, workplace, lie="fast", every=10**9)


def search(copy: Path, workplace: Path, **options: Any) -> dict[str, Any]:
    """The front of a lying device, whose folder is its own."""
    (workplace / "liar.toml").write_text(
        'name = "liar"\ndevice = "liar"\ndescription = "a plugin"\n[options]\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    )
    front: dict[str, Any] = go_on(
        copy, device="liar.toml", protocol="fast.toml", filter="none", generations=6, picks=()
    )["front"]
    return front


def forget(copy: Path) -> None:
    for file in (copy / "devices/liar").iterdir():
        file.unlink()


def stored(copy: Path) -> list[Measurement]:
    with MeasurementStore(copy / "devices/liar/measurements.db") as store:
        return [known for known in store.all() if isinstance(known, Measurement)]


@pytest.mark.parametrize(
    ("lie", "how"),
    [
        ("fast", {"every": 7}),
        pytest.param("slow", {"every": 7}, marks=pytest.mark.slow),
        ("slow", {"every": 1, "runs": 0.3}),
        pytest.param("fast", {"every": 1, "runs": 0.3}, marks=pytest.mark.slow),
        pytest.param("fast", {"every": 5}, marks=pytest.mark.slow),
        pytest.param("slow", {"every": 3}, marks=pytest.mark.slow),
    ],
)
def test_an_outlier_of_1000_times_in_a_minority_of_answers_changes_no_latency(
    lie: str, how: dict[str, Any], measured: dict[str, Any], copy: Path, workplace: Path
) -> None:
    forget(copy)
    front = search(copy, workplace, lie=lie, **how)
    told = front["judgement"]
    assert front | {"judgement": []} == measured
    if "runs" in how:  # a repeat of which every run is off is taken again; one with two heaps is told
        assert told[0].startswith("two modes")


@pytest.mark.parametrize(
    "lie",
    [
        "zero",
        "nan",
        *(pytest.param(lie, marks=pytest.mark.slow) for lie in ("negative", "infinite", "nothing")),
    ],
)
def test_answers_that_are_no_latency_are_never_stored_and_asked_again(
    lie: str, measured: dict[str, Any], copy: Path, workplace: Path
) -> None:
    forget(copy)
    front = search(copy, workplace, lie=lie, sizes=3)
    failed = {tuple(point["choices"]): point["reason"] for point in front["failed"]}
    assert failed
    assert all("answered [" in reason for reason in failed.values())
    assert not [row for row in front["front"] if tuple(row["choices"]) in failed]
    for measurement in stored(copy):
        assert all(
            math.isfinite(value) and value > 0 for repeat in measurement.repeats_ms for value in repeat
        )
    assert search(copy, workplace, lie=lie, every=10**9) == measured


def test_a_network_that_always_seems_1000_times_too_fast_is_reported_and_measured_again(
    measured: dict[str, Any], copy: Path, workplace: Path
) -> None:
    forget(copy)
    front = search(copy, workplace, lie="fast", sizes=3)
    assert front["failed"]
    for point in front["failed"]:
        assert "the device's clock erred" in point["reason"]
    assert all(row["cost_ratios"]["latency"] > 0.1 for row in front["front"])
    assert search(copy, workplace, lie="fast", every=10**9) == measured


def test_a_network_that_always_seems_1000_times_too_slow_is_not_on_the_front(
    measured: dict[str, Any], copy: Path, workplace: Path
) -> None:
    forget(copy)
    front = search(copy, workplace, lie="slow", sizes=3)
    assert all(row["cost_ratios"]["latency"] <= 1 for row in front["front"])


@pytest.mark.parametrize(
    "value", ["nan", *(pytest.param(value, marks=pytest.mark.slow) for value in ("inf", "-1", "0"))]
)
def test_a_metric_that_cannot_be_is_a_failure_with_its_name(
    value: str, measured: dict[str, Any], copy: Path, workplace: Path
) -> None:
    from hwnas.errors import PreparationError

    forget(copy)
    with pytest.raises(PreparationError, match=rf"answered {float(value)} as energy_mj"):
        search(copy, workplace, lie="fast", every=10**9, metric=value)


def test_a_sensor_without_a_number_is_left_out(measured: dict[str, Any], copy: Path, workplace: Path) -> None:
    forget(copy)
    assert search(copy, workplace, lie="fast", every=10**9, sensor="nan") == measured
    assert stored(copy)
    assert all(not at.temperatures_c for known in stored(copy) for at in known.conditions)
