"""Does the closed form rank real networks and their schedules as the detailed model does?

    python benchmarks/simulator_ranks.py [--accelerators NAME ...] [--networks TIMM_NAME ...]

Every network is scheduled in four ways (best, layer by layer, single layers, forced tiles of 56 x 4) in both
models. A row tells Kendall's tau over all networks and ways, its mean over the ways, and the largest errors
of the closed form. Goal: tau at least 0.95 in latency, energy and DRAM bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import timm
from simulator_fidelity import kendall_tau

from hwnas.devices.simulator import Network, Scheduler, accelerator_names, load_accelerator, read_onnx
from hwnas.devices.simulator.result import Model
from hwnas.network import export_onnx

NETWORKS = (
    "efficientnet_b0",
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "convnext_atto",
    "regnety_002",
    "vgg11",
    "vit_tiny_patch16_224",
)
WAYS = ((None, None), ("layer-by-layer", None), ("single-layer", None), ("fully-cached", (56, 4)))
METRICS = ("latency", "energy", "DRAM")
GOAL = 0.95


def exported(name: str) -> Network:
    """A network of timm as the simulator reads it."""
    module = timm.create_model(name, pretrained=False).eval()
    return read_onnx(export_onnx(module, (1, 3, 224, 224)), name)


def figures(accelerator: str, networks: Sequence[Network]) -> np.ndarray:
    """Latency, energy, DRAM bytes: (metric, model, way, network)."""
    found = np.zeros((len(METRICS), 2, len(WAYS), len(networks)))
    models: tuple[Model, Model] = ("detailed", "closed-form")
    for m, model in enumerate(models):
        scheduler = Scheduler(load_accelerator(accelerator), model=model)
        for w, (mode, tile) in enumerate(WAYS):
            for n, network in enumerate(networks):
                r = scheduler.schedule(network, mode=mode, tile=tile)
                found[:, m, w, n] = r.latency_cycles, r.energy_mj, r.dram_bytes
    return found


def row(accelerator: str, found: np.ndarray) -> tuple[str, bool]:
    """One line of the table, and whether it meets the goal."""
    cells, met = [accelerator], True
    for detailed, closed in found:
        tau = kendall_tau(list(zip(detailed.ravel(), closed.ravel(), strict=True)))
        ways = [kendall_tau(list(zip(*pair, strict=True))) for pair in zip(detailed, closed, strict=True)]
        off = closed / detailed - 1
        met = met and tau >= GOAL
        cells.append(f"{tau:.3f} ({np.mean(ways):.3f})")
        cells.append(f"{off.min():+.1%} … {off.max():+.1%}")
    return "| " + " | ".join([*cells, "met" if met else "MISSED"]) + " |", met


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--accelerators", nargs="+", default=accelerator_names())
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    given = parser.parse_args()
    networks = [exported(name) for name in given.networks]
    print("| accelerator |" + "".join(f" tau of {m} | errors in {m} |" for m in METRICS) + " goal |")
    print("|---|" + "---|---|" * len(METRICS) + "---|")
    for accelerator in given.accelerators:
        print(row(accelerator, figures(accelerator, networks))[0], flush=True)
