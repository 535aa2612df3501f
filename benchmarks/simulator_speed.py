"""How fast the scheduler answers: EfficientNet-B0-sized networks in a search, and growth with depth.

    python benchmarks/simulator_speed.py [--accelerator NAME] [--networks N] [--model FILE.onnx]

A network is a tuple of parts (stem, blocks, head) that are parsed once; every network of the search is
another choice of blocks. One core, no warm results: the compiled code is loaded before the clock starts.
CPU time is shown beside wall time because only the former is free of what else the machine does.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace

from hwnas.devices.simulator import Layer, Network, Scheduler, load_accelerator
from hwnas.devices.simulator.closed_form.table import Table

# EfficientNet-B0 (Tan and Le, ICML 2019, table 1): expansion, channels, repeats, stride, kernel. A part is
# what stands between two cuts of a search: stem, five blocks, head.
STAGES = (
    ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3)),
    ((6, 40, 2, 2, 5),),
    ((6, 80, 3, 2, 3),),
    ((6, 112, 3, 1, 5),),
    ((6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)


def conv(
    name: str, source: int, k: int, c: int, size: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> Layer:
    """A convolution with 'same' padding."""
    pad = kernel // 2
    return Layer(
        name,
        "conv",
        (source,),
        k // groups,
        c // groups,
        groups,
        size,
        size,
        kernel,
        kernel,
        stride,
        stride,
        pads=(pad, pad, pad, pad),
        op="Conv",
    )


def mbconv(
    layers: list[Layer],
    name: str,
    channels: int,
    expansion: int,
    out: int,
    size: int,
    kernel: int,
    stride: int,
) -> None:
    """Append an inverted bottleneck with squeeze-and-excite; size is that of its output."""
    at, wide = len(layers) - 1, channels * expansion
    if expansion > 1:
        layers.append(conv(f"{name}.expand", at, wide, channels, size * stride))
    layers.append(conv(f"{name}.dw", len(layers) - 1, wide, wide, size, kernel, stride, wide))
    body = len(layers) - 1
    squeezed = max(1, channels // 4)
    layers.append(
        Layer(f"{name}.pool", "pool", (body,), 1, 1, wide, 1, 1, size, size, whole_input=True, op="Pool")
    )
    layers.append(Layer(f"{name}.reduce", "conv", (body + 1,), squeezed, wide, op="Conv"))
    layers.append(Layer(f"{name}.gate", "conv", (body + 2,), wide, squeezed, op="Conv"))
    layers.append(Layer(f"{name}.mul", "elementwise", (body, body + 3), 1, 1, wide, size, size, op="Mul"))
    layers.append(conv(f"{name}.project", len(layers) - 1, out, wide, size))
    if stride == 1 and channels == out:
        layers.append(
            Layer(f"{name}.add", "elementwise", (at, len(layers) - 1), 1, 1, out, size, size, op="Add")
        )


def parts(scheduler: Scheduler, choices: int) -> list[list[Table]]:
    """For every part its variants: expansion, kernel and repeats differ, shapes at the cuts do not."""
    rng = random.Random(0)
    stem = Network("stem", (conv("stem", -1, 32, 3, 112, 3, 2),), 3, 224, 224)
    found = [[scheduler.part(stem)]]
    channels, size = 32, 112
    for number, stage in enumerate(STAGES):
        variants = []
        for choice in range(choices):
            layers: list[Layer] = [conv("anchor", -1, channels, channels, size)]
            c, s = channels, size
            for e, out, repeats, stride, kernel in stage:
                for i in range(repeats if choice == 0 else max(1, repeats - rng.randrange(2))):
                    step = stride if i == 0 else 1
                    s //= step
                    expansion = e if choice == 0 or e == 1 else rng.choice((2, 3, 4, 6))
                    mbconv(
                        layers,
                        f"b{number}.{choice}.{out}.{i}",
                        c,
                        expansion,
                        out,
                        s,
                        kernel if choice == 0 else rng.choice((3, 5)),
                        step,
                    )
                    c = out
            body = tuple(replace(layer, inputs=tuple(i - 1 for i in layer.inputs)) for layer in layers[1:])
            variants.append(scheduler.part(Network(f"block{number}.{choice}", body, channels, size, size)))
        channels, size = c, s
        found.append(variants)
    head = [
        conv("head", -1, 1280, channels, size),
        Layer("pool", "pool", (0,), 1, 1, 1280, 1, 1, size, size, whole_input=True, op="Pool"),
        Layer("classifier", "matmul", (1,), 1000, 1280, op="Gemm"),
    ]
    found.append([scheduler.part(Network("head", tuple(head), channels, size, size))])
    return found


def search_speed(accelerator: str, networks: int) -> None:
    """Random networks of the space, one after the other."""
    print(
        "| objective | networks | layers each | networks a second | a second of CPU time | CPU ms a network |"
    )
    print("|---|---|---|---|---|---|")
    for objective in ("latency", "energy"):
        scheduler = Scheduler(load_accelerator(accelerator), objective)
        space = parts(scheduler, 20)
        rng = random.Random(1)
        chosen = [[rng.choice(variants) for variants in space] for _ in range(networks)]
        scheduler.figures([variants[0] for variants in space])
        start, start_cpu = time.perf_counter(), time.process_time()
        for network in chosen:
            scheduler.figures(network)
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        layers = sum(len(p.last_use) for network in chosen for p in network) / networks
        print(
            f"| {objective} | {networks} | {layers:.0f} | {networks / seconds:,.0f} | {networks / cpu:,.0f} "
            f"| {cpu / networks * 1e3:.2f} |"
        )


def growth(accelerator: str) -> None:
    """A chain of residual blocks of growing depth."""
    scheduler = Scheduler(load_accelerator(accelerator))
    print("\n| layers | CPU ms | us a layer |")
    print("|---|---|---|")
    for wanted in (50, 100, 200, 500, 1000, 2000):
        layers = [conv("stem", -1, 32, 3, 56, 3)]
        while len(layers) + 4 <= wanted:
            at = len(layers) - 1
            layers += [
                conv(f"{at}.a", at, 96, 32, 56),
                conv(f"{at}.b", at + 1, 96, 96, 56, 3, groups=96),
                conv(f"{at}.c", at + 2, 32, 96, 56),
                Layer(f"{at}.d", "elementwise", (at, at + 3), 1, 1, 32, 56, 56, op="Add"),
            ]
        while len(layers) < wanted:
            layers.append(conv(f"{len(layers)}", len(layers) - 1, 32, 32, 56, 3))
        table = [scheduler.part(Network("chain", tuple(layers), 3, 56, 56))]
        scheduler.figures(table)
        best = min(_timed(scheduler, table) for _ in range(5))
        print(f"| {len(layers):,} | {best * 1e3:.2f} | {best * 1e6 / len(layers):.1f} |")


def _timed(scheduler: Scheduler, table: list[Table]) -> float:
    start = time.process_time()
    scheduler.figures(table)
    return time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--accelerator", default="mobile-npu")
    parser.add_argument("--networks", type=int, default=1000)
    given = parser.parse_args()
    search_speed(given.accelerator, given.networks)
    growth(given.accelerator)
