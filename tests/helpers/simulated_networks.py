"""Small networks for the simulator's tests, and where the reference file is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hwnas.devices.simulator import Accelerator, Layer, Memory, Network

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "simulator" / "defines.json"

needs_reference = pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no reference file at {REFERENCE}")


def conv(
    name: str,
    source: int,
    k: int,
    c: int,
    size: int | tuple[int, int],
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
) -> Layer:
    """A convolution with 'same' padding; size is the output's (rows, columns)."""
    rows, cols = size if isinstance(size, tuple) else (size, size)
    pad = kernel // 2
    return Layer(
        name,
        "conv",
        (source,),
        k // groups,
        c // groups,
        groups,
        rows,
        cols,
        kernel,
        kernel,
        stride,
        stride,
        pads=(pad, pad, pad, pad),
        op="Conv",
    )


def add(name: str, a: int, b: int, channels: int, size: int) -> Layer:
    """A residual addition."""
    return Layer(name, "elementwise", (a, b), 1, 1, channels, size, size, op="Add")


def random_network(
    seed: int, blocks: int = 3, kinds: tuple[str, ...] = ("plain", "strided", "residual", "gated")
) -> Network:
    """A few blocks: plain, strided, residual or squeeze-and-excite convolutions on small maps."""
    choose = random.Random(seed)
    size, channels = choose.choice((12, 16, 20)), choose.choice((4, 8))
    layers = [conv("stem", -1, channels, 3, size)]
    for number in range(blocks):
        at = len(layers) - 1
        kind = choose.choice(kinds)
        wide = channels * choose.choice((1, 2))
        if kind == "plain":
            layers.append(conv(f"plain{number}", at, wide, channels, size, choose.choice((1, 3, 5))))
            channels = wide
        elif kind == "strided":
            size = -(-size // 2)
            layers.append(conv(f"down{number}", at, wide, channels, size, 3, 2))
            channels = wide
        elif kind == "residual":
            layers.append(conv(f"res{number}a", at, wide, channels, size, 1))
            layers.append(conv(f"res{number}b", at + 1, wide, wide, size, 3, groups=wide))
            layers.append(conv(f"res{number}c", at + 2, channels, wide, size, 1))
            layers.append(add(f"res{number}d", at, at + 3, channels, size))
        else:
            layers.append(
                Layer(
                    f"gate{number}a",
                    "pool",
                    (at,),
                    1,
                    1,
                    channels,
                    1,
                    1,
                    size,
                    size,
                    whole_input=True,
                    op="Pool",
                )
            )
            layers.append(Layer(f"gate{number}b", "conv", (at + 1,), channels, channels, op="Conv"))
            layers.append(add(f"gate{number}c", at, at + 2, channels, size))
    return Network(f"random{seed}", tuple(layers), 3, size_of_input(layers[0]), size_of_input(layers[0]))


def size_of_input(stem: Layer) -> int:
    """Rows of the input of a stride-one stem."""
    return stem.oy


def small_accelerator(activation_kib: int = 8, weight_kib: int = 4, bits: int = 8) -> Accelerator:
    """A small array with one buffer for maps, one for weights."""
    return Accelerator(
        "small",
        (("K", 4), ("C", 2), ("OX", 2), ("OY", 2)),
        0.04,
        (
            Memory("rf_w", ("W",), bits, bits, bits, 0.01, 0.01, (1, 1, 0), 8),
            Memory("rf_o", ("O",), 4 * bits, 4 * bits, 4 * bits, 0.02, 0.02, (2, 2, 0), 16),
            Memory("sram_w", ("W",), weight_kib * 8192, 128, 128, 10.0, 12.0),
            Memory("lb_a", ("I", "O"), 8192, 128, 128, 5.0, 6.0),
            Memory("sram_a", ("I", "O"), activation_kib * 8192, 128, 128, 20.0, 22.0),
            Memory("dram", ("I", "W", "O"), 1 << 33, 64, 64, 700.0, 750.0, (0, 0, 1)),
        ),
        activation_bits=bits,
        weight_bits=bits,
        partial_sum_bits=2 * bits,
    )
