"""Published facts that a right simulator reproduces."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from simulated_networks import REFERENCE, conv, needs_reference, small_accelerator

from hwnas.devices.simulator import (
    Layer,
    Mapper,
    Network,
    Result,
    evaluate,
    evaluate_reference,
    layer_by_layer_peak_bytes,
    load_reference,
    reference_accelerator,
)

MIB = 1 << 20


def pool(name: str, source: int, channels: int, size: int) -> Layer:
    return Layer(name, "pool", (source,), 1, 1, channels, size, size, 2, 2, 2, 2, op="MaxPool")


def test_vggnet_e_fused_as_alwani_et_al() -> None:
    """Fact 1: first five convolutions, fp32: 77.1 -> 3.64 MiB off chip with 356 kB of overlaps on chip."""
    layers = (
        conv("conv1_1", -1, 64, 3, 224),
        conv("conv1_2", 0, 64, 64, 224),
        pool("pool1", 1, 64, 112),
        conv("conv2_1", 2, 128, 64, 112),
        conv("conv2_2", 3, 128, 128, 112),
        pool("pool2", 4, 128, 56),
        conv("conv3_1", 5, 256, 128, 56),
    )
    network = Network("vgg", layers, 3, 224, 224)
    accelerator = small_accelerator(activation_kib=4096, weight_kib=4096, bits=32)
    weights = 4 * network.weight_bytes
    mapper = Mapper(accelerator, loop_factor_limit=3)
    # Without fusion every convolution reads the map before it (pooling on the way) and writes its own.
    apart = evaluate(
        network, accelerator, mode="fully-cached", tile=(56, 2), cuts=(0, 1, 3, 4), mapper=mapper
    )
    fused = evaluate(network, accelerator, mode="fully-cached", tile=(56, 1), cuts=(), mapper=mapper)
    assert (apart.dram_bytes - weights) / MIB == pytest.approx(77.1, abs=0.2)
    assert (fused.dram_bytes - weights) / MIB == pytest.approx(3.64, abs=0.02)
    assert fused.stacks[0].cache_bytes == pytest.approx(356_000, rel=0.02)
    assert fused.iterations == apart.iterations == network.iterations


def mobilenet_v2() -> Network:
    """MobileNetV2 1.0 at 224 x 224 (Sandler et al., CVPR 2018, table 2)."""
    layers = [conv("stem", -1, 32, 3, 112, 3, 2)]
    channels, size = 32, 112
    for t, c, n, s in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(n):
            stride = s if i == 0 else 1
            at, wide = len(layers) - 1, channels * t
            if t > 1:
                layers.append(conv(f"{c}.{i}.expand", at, wide, channels, size, 1))
            out = size // stride
            layers.append(conv(f"{c}.{i}.dw", len(layers) - 1, wide, wide, out, 3, stride, groups=wide))
            layers.append(conv(f"{c}.{i}.project", len(layers) - 1, c, wide, out, 1))
            if stride == 1 and channels == c:
                layers.append(
                    Layer(f"{c}.{i}.add", "elementwise", (at, len(layers) - 1), 1, 1, c, out, out, op="Add")
                )
            channels, size = c, out
    layers.append(conv("head", len(layers) - 1, 1280, channels, size, 1))
    return Network("mobilenetv2", tuple(layers), 3, 224, 224)


def test_mobilenet_v2_needs_1372_kib_layer_by_layer() -> None:
    """Fact 2."""
    assert layer_by_layer_peak_bytes(mobilenet_v2()) == 1372 * 1024


@cache
def reference() -> dict[str, Any]:
    return load_reference(REFERENCE)


@cache
def mapper(arch: str) -> Mapper:
    return Mapper(reference_accelerator(arch, reference()["accelerators"][arch]))


@cache
def run(arch: str, workload: str, mode: str, tile: tuple[int, int] | None = None) -> Result:
    # The file writes the unrolling of Meta_prototype_DF beside the layers; other arrays derive their own.
    entries = [
        {k: v for k, v in e.items() if k != "spatial_unrolling"}
        for e in reference()["workloads"][workload]["layer_list"]
    ]
    return evaluate_reference(mapper(arch).accelerator, entries, mode=mode, tile=tile, mapper=mapper(arch))


TILES = [(x, y) for x in (1, 4, 16, 60, 240, 960) for y in (1, 4, 18, 72, 270, 540)]
MODES = ("fully_recompute", "h_cached_v_recompute", "fully_cached")


@pytest.mark.slow
@needs_reference
def test_fsrcnn_over_all_tiles_and_modes() -> None:
    """Facts 3 and 5: best and worst of 36 tiles x 3 modes, and a best tile that is interior."""
    table = {(m, t): run("Meta_prototype_DF", "fsrcnn", m, t) for m in MODES for t in TILES}
    by_energy = sorted(table, key=lambda key: table[key].energy_mj)
    best, worst = table[by_energy[0]], table[by_energy[-1]]
    assert by_energy[0] == ("fully_cached", (4, 72))
    assert best.energy_mj == pytest.approx(1.81, abs=0.01)
    assert best.latency_cycles == pytest.approx(18.5e6, rel=0.005)
    assert by_energy[-1] == ("fully_recompute", (1, 1))
    assert worst.energy_mj == pytest.approx(47.3, abs=0.1)
    assert worst.latency_cycles == pytest.approx(1026e6, rel=0.005)
    large = table["fully_cached", (240, 270)]
    assert large.energy_mj > 0.8 * run("Meta_prototype_DF", "fsrcnn", "layer_by_layer").energy_mj


@needs_reference
def test_gain_over_layer_by_layer() -> None:
    """Fact 4: energy 11.2 x and 4.6 x, latency 1.57 x and 1.41 x."""
    for workload, tile, energy, latency in (
        ("fsrcnn", (4, 72), 11.2, 1.57),
        ("mobilenetv1", (7, 7), 4.6, 1.41),
    ):
        whole = run("Meta_prototype_DF", workload, "layer_by_layer")
        fused = run("Meta_prototype_DF", workload, "fully_cached", tile)
        assert whole.energy_mj / fused.energy_mj == pytest.approx(energy, rel=0.02)
        assert whole.latency_cycles / fused.latency_cycles == pytest.approx(latency, rel=0.01)


@needs_reference
def test_tiny_recomputed_tiles_lose() -> None:
    """Fact 5: MobileNetV1 at 7 x 7, recomputed, takes about twice as long as layer by layer."""
    whole = run("Meta_prototype_DF", "mobilenetv1", "layer_by_layer")
    tiny = run("Meta_prototype_DF", "mobilenetv1", "fully_recompute", (7, 7))
    assert tiny.latency_cycles / whole.latency_cycles == pytest.approx(1.93, abs=0.05)


@needs_reference
def test_fusion_needs_a_weight_buffer() -> None:
    """Fact 6: FSRCNN on TPU-like stays at 21.8 mJ; with an on-chip weight buffer fusion gains 6 x."""
    without = run("TPU_like", "fsrcnn", "layer_by_layer")
    tiled = min(
        (run("TPU_like", "fsrcnn", "fully_cached", t) for t in ((960, 540), (60, 72), (16, 18))),
        key=lambda r: r.energy_mj,
    )
    assert without.energy_mj == pytest.approx(21.8, abs=0.05)
    assert tiled.energy_mj == pytest.approx(21.8, abs=0.05)
    whole = run("TPU_like_DF", "fsrcnn", "layer_by_layer")
    fused = run("TPU_like_DF", "fsrcnn", "fully_cached", (4, 72))
    assert 5.5 < whole.energy_mj / fused.energy_mj < 7
