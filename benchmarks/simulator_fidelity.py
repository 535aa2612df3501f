"""The simulator against the public DeFiNES reference cases, every case in its own row.

    python benchmarks/simulator_fidelity.py [--reference ../shared/reference/simulator/defines.json]

Goals: MACs exact, DRAM bytes and latency within 10 %, energy within 15 %, Kendall tau of the schedules'
ranking at least 0.95. A row that misses one says so. Three tables: the detailed model on the given schedule
(evaluate); what a `sim-*` device answers when the schedule is forced on it, which is the detailed model on
the scheduler's own stacks; and the closed form by which the scheduler chooses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from hwnas.devices.simulator import (
    Mapper,
    Network,
    Scheduler,
    evaluate_reference,
    load_reference,
    reference_accelerator,
    reference_network,
)
from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.closed_form.table import concatenate
from hwnas.devices.simulator.detailed.axes import full_sizes
from hwnas.devices.simulator.detailed.stacks import cut_stacks
from hwnas.devices.simulator.result import Model
from hwnas.devices.simulator.schedule import Choice

DEFAULT = Path(__file__).parents[1] / ".." / "shared" / "reference" / "simulator" / "defines.json"
GOALS = {"macs": 0.0, "dram": 0.10, "latency": 0.10, "energy": 0.15}
METRICS = ("macs", "dram", "latency", "energy")
Figures = dict[str, float]


def expected(case: dict[str, Any]) -> Figures:
    """A case's figures under the names used here."""
    return {
        "macs": case["macs"],
        "dram": case["dram_bytes"],
        "latency": case["latency_cycles"],
        "energy": case["energy_uJ"],
    }


def detailed(reference: dict[str, Any], cases: Sequence[dict[str, Any]]) -> list[Figures]:
    """Figures of every case from the detailed model."""
    mappers = {
        a: Mapper(reference_accelerator(a, reference["accelerators"][a])) for a in {c["arch"] for c in cases}
    }
    found = []
    for case in cases:
        mapper = mappers[case["arch"]]
        r = evaluate_reference(
            mapper.accelerator,
            reference["workloads"][case["workload"]]["layer_list"],
            mode=case["mode"],
            tile=case["tile"],
            stack_cuts=case["stack_cuts"],
            mapper=mapper,
        )
        found.append(
            {
                "macs": r.iterations,
                "dram": r.dram_bytes,
                "latency": r.latency_cycles,
                "energy": r.energy_mj * 1e3,
            }
        )
    return found


def grown(network: Network) -> Network:
    """A reference workload as a padded network whose maps are so large that nothing is clipped."""
    rows, cols = full_sizes(network, "y"), full_sizes(network, "x")
    layers = tuple(
        replace(layer, oy=rows[i], ox=cols[i], whole_input=layer.kind == "pool" and rows[i] == cols[i] == 1)
        for i, layer in enumerate(network.layers)
    )
    return replace(network, layers=layers, padded=True, input_rows=rows[-1], input_cols=cols[-1])


def scheduled(
    reference: dict[str, Any], cases: Sequence[dict[str, Any]], model: Model
) -> list[Figures | None]:
    """Figures of every case as `sim-*` answers when the schedule is forced; None where it takes another.

    The scheduler takes no stack of several tiles that does not fit on chip.
    """
    found: list[Figures | None] = []
    schedulers: dict[str, Scheduler] = {}
    for case in cases:
        arch = case["arch"]
        if arch not in schedulers:
            described = reference_accelerator(arch, reference["accelerators"][arch])
            schedulers[arch] = Scheduler(described, model=model)
        network = grown(reference_network(reference["workloads"][case["workload"]]["layer_list"]))
        found.append(_scheduled(schedulers[arch], network, case))
    return found


def _scheduled(scheduler: Scheduler, network: Network, case: dict[str, Any]) -> Figures | None:
    if case["mode"] in ("layer_by_layer", "single_layer"):
        rows = scheduler.part(network).rows
        # Pooling that makes a vector goes with the map that it reads, so there is no cut between them.
        cuts = [int(c) for c in case["stack_cuts"] if not rows[int(c) + 1, col.RIDER]]
        r = scheduler.schedule(
            network, mode=case["mode"], cuts=cuts if case["mode"] == "layer_by_layer" else None
        )
        figures = r.iterations, r.dram_bytes, r.latency_cycles, r.energy_mj * 1e3
        return dict(zip(METRICS, figures, strict=True))
    rows, last_use = concatenate([scheduler.part(network)])
    total = np.zeros(col.COSTS)
    for stack in cut_stacks(network, [int(c) for c in case["stack_cuts"]]):
        choice = Choice(
            stack.layers[0], stack.last, False, False, (case["tile"][1], case["tile"][0]), case["mode"]
        )
        cost = scheduler.cost(rows, last_use, choice)
        if cost is None:
            return None
        total += cost.total
    return {
        "macs": total[col.ITERATIONS],
        "dram": (total[col.DRAM_READ] + total[col.DRAM_WRITE]) / 8,
        "latency": total[col.CYCLES],
        "energy": total[col.ENERGY] / 1e6,
    }


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-b; values that agree to six digits are tied."""
    wanted, found = ([float(f"{value:.6g}") for value in side] for side in zip(*pairs, strict=True))
    return float(kendalltau(wanted, found).statistic)


def report(title: str, cases: Sequence[dict[str, Any]], found: Sequence[Figures | None]) -> int:
    """Print a table with one row a case and one line a workload; returns how many rows miss a goal."""
    print(f"\n{title}\n")
    print("| case | workload | schedule | tile | stacks cut after | MACs | DRAM | latency | energy | goals |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    missed = 0
    for number, (case, figures) in enumerate(zip(cases, found, strict=True)):
        tile = f"{case['tile'][0]}x{case['tile'][1]}"
        label = f"| {number} | {case['workload']} | {case['mode']} | {tile} | {_cuts(case)} |"
        if figures is None:
            print(f"{label} | | | | not stated |")
            continue
        want = expected(case)
        off = {m: figures[m] / want[m] - 1 for m in METRICS}
        over = [m for m in METRICS if abs(off[m]) > GOALS[m] + (0 if m != "macs" else 1e-12)]
        missed += bool(over)
        exact = "exact" if not over or "macs" not in over else f"{off['macs']:+.2%}"
        print(
            f"{label} {exact} | {off['dram']:+.1%} | {off['latency']:+.1%} | {off['energy']:+.1%} | "
            f"{'met' if not over else 'MISSED: ' + ', '.join(over)} |"
        )
    for workload in dict.fromkeys(c["workload"] for c in cases):
        chosen = [
            (expected(c), f)
            for c, f in zip(cases, found, strict=True)
            if c["workload"] == workload and f is not None
        ]
        taus = ", ".join(
            f"{m} {kendall_tau([(w[m], f[m]) for w, f in chosen]):.3f}" for m in ("latency", "energy", "dram")
        )
        print(f"\nKendall tau, {workload} ({len(chosen)} schedules): {taus}")
    return missed


def _cuts(case: dict[str, Any]) -> str:
    return "every layer" if case["stack"] == "every layer" else ", ".join(case["stack_cuts"]) or "-"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", type=Path, default=DEFAULT)
    loaded = load_reference(parser.parse_args().reference)
    for title, figures in (
        ("Detailed model (evaluate)", detailed(loaded, loaded["cases"])),
        ("What sim-* answers (Scheduler, detailed model)", scheduled(loaded, loaded["cases"], "detailed")),
        ("Closed form (what the Scheduler minimises)", scheduled(loaded, loaded["cases"], "closed-form")),
    ):
        missed = report(title, loaded["cases"], figures)
        stated = sum(f is not None for f in figures)
        print(f"\n{stated - missed} of {stated} stated cases meet every goal ({len(figures)} cases)")
