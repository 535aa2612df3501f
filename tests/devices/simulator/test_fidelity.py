"""The detailed model against the reference cases, row by row."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from scipy.stats import kendalltau
from simulated_networks import REFERENCE, needs_reference

from hwnas.devices.simulator import Mapper, Result, evaluate_reference, load_reference, reference_accelerator

pytestmark = needs_reference
CASES = range(24)


@cache
def reference() -> dict[str, Any]:
    return load_reference(REFERENCE)


@cache
def mapper(arch: str) -> Mapper:
    return Mapper(reference_accelerator(arch, reference()["accelerators"][arch]))


@cache
def simulated(number: int) -> Result:
    case = reference()["cases"][number]
    shared = mapper(case["arch"])
    return evaluate_reference(
        shared.accelerator,
        reference()["workloads"][case["workload"]]["layer_list"],
        mode=case["mode"],
        tile=case["tile"],
        stack_cuts=case["stack_cuts"],
        mapper=shared,
    )


@pytest.mark.parametrize("number", CASES)
def test_a_reference_case_is_met(number: int) -> None:
    case, result = reference()["cases"][number], simulated(number)
    assert result.iterations == case["macs"]
    assert result.dram_bytes == pytest.approx(case["dram_bytes"], rel=0.03)
    assert result.dram_read_bytes == pytest.approx(case["dram_read_bytes"], rel=0.04)
    assert result.dram_write_bytes == pytest.approx(case["dram_write_bytes"], rel=0.01)
    assert result.latency_cycles == pytest.approx(case["latency_cycles"], rel=0.02)
    assert result.energy_mj * 1e3 == pytest.approx(case["energy_uJ"], rel=0.03)


@pytest.mark.parametrize("number", [0, 4, 8, 22])
def test_every_layer_of_a_reference_case_is_met(number: int) -> None:
    """FSRCNN's rows agree layer by layer, so totals do not hide errors that cancel."""
    case, result = reference()["cases"][number], simulated(number)
    names = {"datamovement_b4_InputLayerNode_-1": "input"}
    expected: dict[str, list[float]] = {}
    for label, energy, cycles, read, write in case["per_layer"]:
        name = names.get(label, label.rsplit("_", 1)[-1])
        own = expected.setdefault(name, [0.0, 0.0, 0.0, 0.0])
        for i, value in enumerate((energy, cycles, read, write)):
            own[i] += value
    for row in result.layers:
        energy, cycles, read, write = expected[row.name]
        assert row.energy_pj / 1e6 == pytest.approx(energy, rel=0.02)
        assert row.cycles == pytest.approx(cycles, rel=0.01)
        assert row.dram_read_bytes == pytest.approx(read, rel=0.02, abs=8)
        assert row.dram_write_bytes == pytest.approx(write, rel=0.02, abs=8)


@pytest.mark.parametrize("workload", ["fsrcnn", "mobilenetv1"])
@pytest.mark.parametrize("metric", ["latency_cycles", "energy_uJ"])
def test_schedules_are_ranked_as_in_the_reference(workload: str, metric: str) -> None:
    numbers = [i for i in CASES if reference()["cases"][i]["workload"] == workload]
    results = [simulated(number) for number in numbers]
    ours = [r.latency_cycles if metric == "latency_cycles" else r.energy_mj for r in results]
    theirs = [reference()["cases"][number][metric] for number in numbers]
    # Values that agree to six digits are tied.
    wanted, found = ([float(f"{value:.6g}") for value in side] for side in (theirs, ours))
    assert kendalltau(wanted, found).statistic >= 0.95
