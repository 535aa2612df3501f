"""Tiles, halos and caches against direct counting."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_networks import random_network

from hwnas.devices.simulator.detailed.axes import axis_tiles, full_sizes
from hwnas.devices.simulator.detailed.port_windows import window_union
from hwnas.devices.simulator.detailed.reference import reference_network
from hwnas.devices.simulator.detailed.stacks import cut_stacks
from hwnas.devices.simulator.layers import Layer, Network, articulation_points


def needed_rows(network: Network, tile: tuple[int, int]) -> dict[int, set[int]]:
    """Every row of every map behind some rows of the last output, by walking through each window."""
    rows: dict[int, set[int]] = {len(network.layers) - 1: set(range(*tile))}
    for position in range(len(network.layers) - 1, -1, -1):
        layer = network.layers[position]
        for source in layer.inputs:
            size = network.input_rows if source < 0 else network.layers[source].oy
            for row in rows.get(position, set()):
                if size == 1 or layer.whole_input:
                    touched = set(range(size))
                else:
                    touched = {row * layer.stride_y - layer.pads[0] + k for k in range(layer.fy)}
                rows.setdefault(source, set()).update(r for r in touched if 0 <= r < size)
    return rows


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("tile", [1, 3, 4])
def test_padded_tiles_compute_exactly_what_is_needed(seed: int, tile: int) -> None:
    network = random_network(seed, 3, ("plain", "strided", "residual"))
    (stack,) = cut_stacks(network, ())
    sizes = full_sizes(network, "y")
    total = sizes[stack.last]
    starts = [0, *range(total % tile or tile, total, tile)]
    ends = [*starts[1:], total]
    for cached in (False, True):
        tiles = [t for t in axis_tiles(network, stack, "y", tile, cached, sizes) for _ in range(t.count)]
        assert len(tiles) == len(starts)
        done: dict[int, int] = {}
        for one, start, end in zip(tiles, starts, ends, strict=True):
            rows = needed_rows(network, (start, end))
            for position in (*stack.layers, *stack.sources):
                low, high = min(rows[position]), max(rows[position]) + 1
                fresh = high - (max(low, min(high, done.get(position, 0))) if cached else low)
                assert one.out[position] == fresh
                done[position] = max(done.get(position, 0), high)


def test_maps_without_padding_grow_backwards() -> None:
    entries = [
        {"id": -1, "kind": "input", "channels": 3, "rows": 1, "cols": 1},
        {
            "id": 0,
            "kind": "conv",
            "inputs": [-1],
            "K": 8,
            "C": 3,
            "FY": 3,
            "FX": 3,
            "stride_y": 2,
            "stride_x": 2,
            "rows": 1,
            "cols": 1,
        },
        {
            "id": 1,
            "kind": "pool",
            "inputs": [0],
            "G": 8,
            "FY": 2,
            "FX": 2,
            "stride_y": 2,
            "stride_x": 2,
            "rows": 4,
            "cols": 5,
        },
        {"id": 2, "kind": "conv", "inputs": [1], "K": 8, "C": 8, "FY": 3, "FX": 3, "rows": 2, "cols": 3},
        {"id": 3, "kind": "add", "inputs": [1, 2], "G": 8, "rows": 2, "cols": 3},
    ]
    network = reference_network(entries)
    assert full_sizes(network, "y") == {3: 2, 2: 2, 1: 4, 0: 8, -1: 17}
    assert full_sizes(network, "x") == {3: 3, 2: 3, 1: 5, 0: 10, -1: 21}
    (stack,) = cut_stacks(network, ())
    first, second = axis_tiles(network, stack, "y", 1, True, full_sizes(network, "y"))
    assert [first.out[p] for p in (3, 2, 1, 0, -1)] == [1, 1, 3, 6, 13]
    assert [second.out[p] for p in (3, 2, 1, 0, -1)] == [1, 1, 1, 2, 4]
    # The map that branches is kept for both readers: two rows of overlap cover the shortcut's lag.
    assert second.keep[1] == 2


def test_articulation_points_stand_after_residual_adds() -> None:
    network = random_network(0, 6, ("residual",))
    points = articulation_points(network.layers)
    adds = [i for i, layer in enumerate(network.layers) if layer.kind == "elementwise"]
    assert [p for p in points if p > 0] == adds


def test_cuts_inside_a_branch_make_stacks_that_lead_to_one_output() -> None:
    network = random_network(0, 1, ("residual",))
    stacks = cut_stacks(network, (1,))
    assert [s.layers for s in stacks] == [(0, 1), (2, 3, 4)]
    assert stacks[0].kept == (0,)
    assert set(stacks[1].sources) == {0, 1}


@pytest.mark.parametrize("seed", range(30))
def test_union_of_periodic_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.integers(1, 6, size=4)
    periods = np.cumprod(factors).astype(np.int64)
    windows = np.array([rng.integers(1, p + 1) for p in periods], dtype=np.int64)
    cycles = np.arange(periods[-1])
    covered = np.zeros(len(cycles), dtype=bool)
    for period, window in zip(periods, windows, strict=True):
        covered |= cycles % period < window
    assert window_union(periods, windows, 4) == covered.sum()


def test_a_layer_counts_its_multiplications() -> None:
    layer = Layer("x", "conv", (-1,), 2, 3, 4, 5, 6, 7, 8)
    assert layer.iterations == 2 * 3 * 4 * 5 * 6 * 7 * 8
    assert (layer.input_channels, layer.output_channels, layer.weight_elements) == (12, 8, 2 * 3 * 4 * 7 * 8)
