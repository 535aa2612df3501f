"""Networks as PyTorch exports them: the right multiplications and weights, and sound schedules."""

from __future__ import annotations

import io
import warnings
from functools import cache

import pytest
from scipy.stats import kendalltau

from hwnas.devices.simulator import (
    Network,
    Scheduler,
    accelerator_names,
    evaluate,
    load_accelerator,
    read_onnx,
)

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

# Millions of multiply-accumulates in convolutions and matrix products, and of stored weights.
NETWORKS = {
    "efficientnet_b0": (385.8, 5.24),
    "resnet18": (1814.1, 11.68),
    "mobilenetv3_large_100": (216.6, 5.45),
    "convnext_atto": (547.3, 3.68),
    "vit_tiny_patch16_224": (1253.7, 5.65),
}


@cache
def exported(name: str, dynamo: bool) -> Network:
    module = timm.create_model(name, pretrained=False).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(module, (torch.zeros(1, 3, 224, 224),), verbose=False)
            buffer.write(program.model_proto.SerializeToString())
        else:
            torch.onnx.export(module, (torch.zeros(1, 3, 224, 224),), buffer, dynamo=False)
    return read_onnx(buffer.getvalue(), name)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_export_is_counted_right(name: str, dynamo: bool) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    network = exported(name, dynamo)
    products = sum(layer.macs for layer in network.layers if layer.kind in ("conv", "matmul"))
    millions, weights = NETWORKS[name]
    assert products / 1e6 == pytest.approx(millions, abs=0.1)
    assert network.weight_bytes / 1e6 == pytest.approx(weights, abs=0.01)
    assert network.charged == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_export_is_scheduled(name: str) -> None:
    network = exported(name, False)
    scheduler = Scheduler(load_accelerator())
    chosen = scheduler.schedule(network)
    whole, single = (scheduler.schedule(network, mode=m) for m in ("layer-by-layer", "single-layer"))
    assert chosen.latency_cycles <= whole.latency_cycles <= single.latency_cycles
    assert max(chosen.dram_bytes, whole.dram_bytes) < single.dram_bytes
    assert chosen.dram_read_bytes >= network.weight_bytes
    assert chosen.macs >= network.macs
    names = [row.name for row in chosen.layers if row.name != "input"]
    assert names == [layer.name for layer in network.layers]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_both_models_agree_on_single_layers(name: str) -> None:
    """The closed form and the order search, on the schedule that is the same in both."""
    network, accelerator = exported(name, False), load_accelerator("meta-prototype-df")
    fast = Scheduler(accelerator).schedule(network, mode="single-layer")
    exact = evaluate(network, accelerator, mode="single-layer")
    assert fast.macs == exact.macs == network.macs
    assert fast.latency_cycles == pytest.approx(exact.latency_cycles, rel=0.15)
    assert fast.energy_mj == pytest.approx(exact.energy_mj, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", accelerator_names())
def test_schedules_are_ranked_as_the_detailed_model_ranks_them(accelerator: str) -> None:
    """The closed form ranks real networks and their schedules nearly so, whatever the accelerator."""
    detailed, closed = (
        [
            (r.latency_cycles, r.energy_mj, r.dram_bytes)
            for name in sorted(NETWORKS)
            for mode in (None, "layer-by-layer", "single-layer")
            for r in [scheduler.schedule(exported(name, False), mode=mode)]
        ]
        for scheduler in (
            Scheduler(load_accelerator(accelerator)),
            Scheduler(load_accelerator(accelerator), model="closed-form"),
        )
    )
    for metric, most in enumerate((0.11, 0.15, 0.10)):
        wanted, found = ([float(f"{row[metric]:.6g}") for row in side] for side in (detailed, closed))
        assert kendalltau(wanted, found).statistic >= 0.95
        assert found == pytest.approx(wanted, rel=most)
