"""The detailed model against the reference cases, row by row."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import pytest
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
    assert result.macs == case["macs"]
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
    pairs = []
    for number in numbers:
        result = simulated(number)
        ours = result.latency_cycles if metric == "latency_cycles" else result.energy_mj
        pairs.append((reference()["cases"][number][metric], ours))
    assert kendall_tau_b(pairs) >= 0.95


def kendall_tau_b(pairs: list[tuple[float, float]]) -> float:
    """Rank correlation with ties (Kendall, 1945); values within a millionth count as tied."""
    together = apart = ties_a = ties_b = 0
    for (a, x), (b, y) in combinations(pairs, 2):
        da = 0 if abs(a - b) <= 1e-6 * max(a, b) else (1 if a > b else -1)
        db = 0 if abs(x - y) <= 1e-6 * max(x, y) else (1 if x > y else -1)
        together += da * db > 0
        apart += da * db < 0
        ties_a += da == 0 and db != 0
        ties_b += db == 0 and da != 0
    total = ((together + apart + ties_a) * (together + apart + ties_b)) ** 0.5
    return (together - apart) / total if total else 1.0
