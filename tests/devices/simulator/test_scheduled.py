"""What the scheduler reports is the detailed model's cost of the schedule that it found."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import kendalltau
from simulated_networks import REFERENCE, add, conv, needs_reference, random_network, small_accelerator

from hwnas.devices.simulator import (
    Network,
    Scheduler,
    accelerator_names,
    evaluate,
    load_accelerator,
    load_reference,
)
from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.closed_form.table import concatenate
from hwnas.devices.simulator.result import Model
from hwnas.devices.simulator.schedule import Choice, Detail
from hwnas.errors import InputError

MODE = "fully_cached"
Figures = dict[str, float]


BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@cache
def fidelity() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("simulator_fidelity")


@cache
def answers(model: Model) -> list[tuple[str, Figures, Figures | None]]:
    reference = load_reference(REFERENCE)
    cases = reference["cases"]
    found = fidelity().scheduled(reference, cases, model)
    return [(case["workload"], fidelity().expected(case), f) for case, f in zip(cases, found, strict=True)]


@needs_reference
@pytest.mark.parametrize("model", ["detailed", "closed-form"])
def test_what_is_answered_meets_every_published_case(model: Model) -> None:
    stated = [(want, got) for _, want, got in answers(model) if got is not None]
    assert len(stated) == 16
    for want, got in stated:
        assert got["macs"] == pytest.approx(want["macs"], rel=1e-12)
        for metric in ("dram", "latency", "energy"):
            tolerance = fidelity().GOALS[metric] if model == "closed-form" else 0.02
            assert got[metric] == pytest.approx(want[metric], rel=tolerance)


@needs_reference
@pytest.mark.parametrize("model", ["detailed", "closed-form"])
@pytest.mark.parametrize("workload", ["fsrcnn", "mobilenetv1"])
@pytest.mark.parametrize("metric", ["latency", "energy", "dram"])
def test_published_schedules_are_ranked(model: Model, workload: str, metric: str) -> None:
    pairs = [(w[metric], g[metric]) for name, w, g in answers(model) if g and name == workload]
    wanted, found = ([float(f"{v:.6g}") for v in side] for side in zip(*pairs, strict=True))
    assert kendalltau(wanted, found).statistic >= 0.95


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mode", ["fully_recompute", "h_cached_v_recompute", "fully_cached"])
def test_a_stack_costs_what_evaluate_says(seed: int, mode: str) -> None:
    """Read back from the scheduler's table, a schedule is the one that evaluate is given."""
    network = random_network(seed, 2, ("plain", "strided", "residual"))
    accelerator = small_accelerator(activation_kib=256, weight_kib=256)
    scheduler = Scheduler(accelerator)
    rows, last_use = concatenate([scheduler.part(network)])
    got = scheduler.cost(rows, last_use, Choice(0, len(rows) - 1, False, False, (5, 7), mode))
    assert got is not None
    want = evaluate(network, accelerator, mode=mode, tile=(7, 5), cuts=())
    assert got.total[col.CYCLES] == pytest.approx(want.latency_cycles, rel=1e-12)
    assert got.total[col.ENERGY] == pytest.approx(want.energy_mj * 1e9, rel=1e-12)
    assert got.total[col.DRAM_READ] == pytest.approx(want.dram_read_bytes * 8, abs=8)
    assert got.total[col.ITERATIONS] == want.iterations


def test_a_map_that_stays_on_chip_saves_its_way_through_dram() -> None:
    network = Network("pair", (conv("a", -1, 16, 3, 32), conv("b", 0, 16, 16, 32)), 3, 32, 32)
    scheduler = Scheduler(small_accelerator(activation_kib=64, weight_kib=64))
    rows, last_use = concatenate([scheduler.part(network)])

    def costs(p: int) -> tuple[Detail | None, ...]:
        return tuple(
            scheduler.cost(rows, last_use, Choice(p, p, stays and p == 1, stays and p == 0, (32, 32), MODE))
            for stays in (False, True)
        )

    first, second = costs(0), costs(1)
    bits = 16 * 32 * 32 * 8
    for (through, kept), way in ((first, col.DRAM_WRITE), (second, col.DRAM_READ)):
        assert through is not None
        assert kept is not None
        assert through.total[way] - kept.total[way] == bits
        assert kept.total[col.CYCLES] <= through.total[col.CYCLES]


@pytest.mark.parametrize("seed", range(8))
def test_figures_rows_and_parts_agree(seed: int) -> None:
    network = random_network(seed, blocks=4)
    for name in ("mobile-npu", "tpu-like-df"):
        scheduler = Scheduler(load_accelerator(name))
        result, figures = scheduler.schedule(network), scheduler.figures([scheduler.part(network)])
        assert result.latency_cycles == figures.latency_cycles
        assert sum(row.energy_pj for row in result.layers) == pytest.approx(result.energy_mj * 1e9)
        assert result.model == "detailed"
        # What was costed before is not costed differently.
        assert scheduler.figures([scheduler.part(network)]) == figures
        whole = scheduler.schedule(network, mode="layer-by-layer")
        assert result.latency_cycles <= whole.latency_cycles


def test_a_vector_beside_a_map_is_costed_once() -> None:
    """Squeeze-and-excite: pooling rides on tiles, its result never leaves the chip."""
    network = random_network(3, 2, ("gated",))
    scheduler = Scheduler(small_accelerator(activation_kib=64, weight_kib=64))
    result = scheduler.schedule(network)
    by_name = {row.name: row for row in result.layers}
    for layer in network.layers:
        if layer.kind == "pool":
            assert by_name[layer.name].iterations == layer.iterations
            assert by_name[layer.name].dram_write_bytes == 0


def test_networks_are_ranked_as_the_detailed_model_ranks_them() -> None:
    """The closed form ranks schedules and networks nearly as the detailed model, whatever the accelerator."""
    networks = [random_network(seed, blocks=4) for seed in range(10)]
    taus = []
    for name in accelerator_names():
        both = []
        for model in ("detailed", "closed-form"):
            scheduler = Scheduler(load_accelerator(name), model=model)
            both.append(
                [
                    scheduler.schedule(n, mode=m).latency_cycles
                    for n in networks
                    for m in (None, "single-layer")
                ]
            )
        taus.append(float(kendalltau(*both).statistic))
    assert np.mean(taus) >= 0.95


def test_an_addition_of_maps_from_outside_is_costed() -> None:
    layers = (conv("a", -1, 8, 3, 16), conv("b", 0, 8, 8, 16), add("c", 0, 1, 8, 16))
    network = Network("residual", layers, 3, 16, 16)
    result = Scheduler(small_accelerator()).schedule(network, mode="single-layer")
    assert [row.name for row in result.layers if row.name != "input"] == ["a", "b", "c"]
    assert result.dram_read_bytes >= (3 + 8 + 2 * 8) * 256


def test_a_model_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="model 'exact' is unknown"):
        Scheduler(small_accelerator(), model="exact")  # type: ignore[arg-type]
