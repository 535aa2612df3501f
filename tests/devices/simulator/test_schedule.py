"""The scheduler: its dynamic program against brute force, its geometry against the detailed model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from simulated_networks import conv, random_network, small_accelerator

from hwnas.devices.simulator import Layer, Network, Scheduler, evaluate, explain, load_accelerator
from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.closed_form.plan import candidates
from hwnas.devices.simulator.closed_form.table import concatenate
from hwnas.devices.simulator.explanation import COLUMNS, schedule_rows
from hwnas.devices.simulator.forced import MODE_NAMES
from hwnas.devices.simulator.schedule import Choice
from hwnas.errors import InputError


def brute_force(scheduler: Scheduler, network: Network, column: int) -> float:
    """Least cost over every set of cuts, every tile and mode of every stack, and every residency."""
    rows, last_use = concatenate([scheduler.part(network)])
    ends = [p for p in range(len(rows)) if rows[p, col.UNIT_END]]
    table: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    for i, end in enumerate(ends):
        last = end
        while rows[last, col.RIDER] and last > 0:
            last -= 1
        tried = np.zeros((64, 3), dtype=np.int64)
        heights = np.array(scheduler.heights, dtype=np.int64)
        widths = np.array(scheduler.widths, dtype=np.int64)
        count = candidates(int(rows[last, col.OY]), int(rows[last, col.OX]), heights, widths, tried)
        for start in [0, *[e + 1 for e in ends[:i]]]:
            found: dict[tuple[int, int], float] = {}
            for y, x, mode in tried[:count]:
                choice = Choice(start, end, False, False, (int(y), int(x)), MODE_NAMES[int(mode)])
                costs, allowed, _, _ = scheduler.stack_costs(rows, last_use, choice)
                for rin, rout in product(range(2), range(2)):
                    if allowed[rin, rout]:
                        value = float(costs[rin, rout, column])
                        found[rin, rout] = min(value, found.get((rin, rout), np.inf))
            table[start, end] = found
    best = np.inf
    inner = ends[:-1]
    for chosen in product((False, True), repeat=len(inner)):
        cuts = [e for e, use in zip(inner, chosen, strict=True) if use] + [ends[-1]]
        starts = [0, *[c + 1 for c in cuts[:-1]]]
        for stays in product((0, 1), repeat=len(cuts) - 1):
            keep = (0, *stays, 0)
            costs_of = [
                table[s, e].get((keep[j], keep[j + 1]), np.inf)
                for j, (s, e) in enumerate(zip(starts, cuts, strict=True))
            ]
            best = min(best, sum(costs_of))
    return best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("objective", ["latency", "energy"])
def test_the_dynamic_program_is_optimal(seed: int, objective: str) -> None:
    network = random_network(seed)
    scheduler = Scheduler(
        small_accelerator(activation_kib=4 + seed % 3 * 4),
        objective,
        model="closed-form",
        heights=(1, 2, 4),
        widths=(1, 2),
    )
    result = scheduler.schedule(network)
    found = result.latency_cycles if objective == "latency" else result.energy_mj * 1e9
    column = col.CYCLES if objective == "latency" else col.ENERGY
    assert found == pytest.approx(brute_force(scheduler, network, column), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_multiplications_do_not_depend_on_the_schedule(seed: int) -> None:
    """With full caching nothing is computed twice, whatever the tile."""
    network = random_network(seed, blocks=4)
    scheduler = Scheduler(small_accelerator(activation_kib=64, weight_kib=64))
    for tile in ((1000, 4), (4, 4), (5, 3)):
        assert scheduler.schedule(network, mode="fully-cached", tile=tile).iterations == network.iterations
    assert scheduler.schedule(network).iterations >= network.iterations


@pytest.mark.parametrize("seed", range(8))
def test_recomputed_work_agrees_with_the_detailed_model(seed: int) -> None:
    network = random_network(seed, 2, ("plain", "strided", "residual"))
    accelerator = small_accelerator(activation_kib=256, weight_kib=256)
    exact = evaluate(network, accelerator, mode="fully-recompute", tile=(7, 5), cuts=())
    rows, last_use = concatenate([Scheduler(accelerator).part(network)])
    choice = Choice(0, len(rows) - 1, False, False, (5, 7), "fully_recompute")
    costs, allowed, _, _ = Scheduler(accelerator).stack_costs(rows, last_use, choice)
    assert allowed[0, 0]
    # Tiles at the right and lower edge count as full ones in the closed form, hence a little more.
    assert exact.iterations <= costs[0, 0, col.ITERATIONS] <= 1.25 * exact.iterations


def test_parts_cost_what_the_whole_network_costs() -> None:
    network = random_network(1, blocks=3)
    accelerator = small_accelerator()
    scheduler = Scheduler(accelerator)
    whole = scheduler.part(network)
    cut = int(np.flatnonzero(whole.rows[:, col.UNIT_END] == 2)[0]) + 1
    stem = Network("stem", network.layers[:cut], 3, network.input_rows, network.input_cols)
    source = network.layers[cut - 1]
    rest = tuple(
        replace(layer, inputs=tuple(i - cut if i >= cut else -1 for i in layer.inputs))
        for layer in network.layers[cut:]
    )
    tail = Network("tail", rest, source.output_channels, source.oy, source.ox)
    assert scheduler.figures([scheduler.part(stem), scheduler.part(tail)]) == scheduler.figures([whole])


def test_rows_add_up_to_the_totals() -> None:
    result = Scheduler(load_accelerator()).schedule(random_network(2, blocks=5))
    assert sum(s.cycles for s in result.stacks) == pytest.approx(result.latency_cycles)
    assert sum(s.energy_pj for s in result.stacks) / 1e9 == pytest.approx(result.energy_mj)
    assert sum(s.dram_bytes for s in result.stacks) == pytest.approx(result.dram_bytes, abs=2)
    assert result.latency_ms == result.latency_cycles / 800e3


def test_a_forced_schedule_never_beats_the_chosen_one() -> None:
    for seed in range(6):
        network = random_network(seed, blocks=4)
        scheduler = Scheduler(small_accelerator(), model="closed-form")
        chosen = scheduler.schedule(network).latency_cycles
        for mode in (
            "layer-by-layer",
            "single-layer",
            "fully-cached",
            "h-cached-v-recompute",
            "fully-recompute",
        ):
            assert scheduler.schedule(network, mode=mode).latency_cycles >= chosen * (1 - 1e-12)


def test_single_layer_sends_every_map_through_dram() -> None:
    network = random_network(0, blocks=2)
    result = Scheduler(small_accelerator(activation_kib=64)).schedule(network, mode="single-layer")
    maps = [s for s in result.stacks if not s.output_on_chip]
    assert len(maps) == len(result.stacks)


def test_the_same_question_has_the_same_answer() -> None:
    network = random_network(4, blocks=4)
    assert Scheduler(load_accelerator()).schedule(network) == Scheduler(load_accelerator()).schedule(network)


def test_forced_stacks_are_taken() -> None:
    network = random_network(3, blocks=3)
    scheduler = Scheduler(small_accelerator(activation_kib=64, weight_kib=64))
    ends = np.flatnonzero(scheduler.part(network).rows[:, col.UNIT_END])
    cut = int(ends[len(ends) // 2])
    result = scheduler.schedule(network, cuts=[cut])
    assert [s.layers[-1].name for s in result.stacks] == [network.layers[cut].name, network.layers[-1].name]


@pytest.mark.parametrize("bad", [{"mode": "sideways"}, {"tile": (0, 4)}, {"cuts": [999]}])
def test_nonsense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Scheduler(small_accelerator()).schedule(random_network(0), **bad)  # type: ignore[arg-type]


def test_explain_shows_stacks_and_comparison() -> None:
    network = random_network(7, blocks=4)
    scheduler = Scheduler(small_accelerator())
    chosen = scheduler.schedule(network)
    other = scheduler.schedule(network, mode="layer-by-layer")
    first, second = schedule_rows(chosen, {"layer-by-layer": other})
    assert (first[0], second[0]) == ("chosen", "layer-by-layer")
    assert dict(zip(COLUMNS, second[1:], strict=True))["ms"] == f"{other.latency_ms:.3f}"
    assert first[-2:] == ["1.00x", "1.00x"]
    assert second[-2] == f"{other.latency_cycles / chosen.latency_cycles:.2f}x"
    text = explain(chosen)
    assert "DRAM" in text
    assert all(name in text for name in ("stem", network.layers[-1].name))


def test_batch_loads_weights_once() -> None:
    network = random_network(1, blocks=1)
    one = small_accelerator(activation_kib=64, weight_kib=64)
    eight = replace(one, batch=8)
    a, b = (evaluate(network, acc, mode="fully-cached", tile=(8, 8), cuts=()) for acc in (one, eight))
    assert b.dram_write_bytes == 8 * a.dram_write_bytes
    assert b.dram_read_bytes < 8 * a.dram_read_bytes
    assert b.iterations == 8 * a.iterations


def test_peak_memory_stays_within_the_accelerator() -> None:
    accelerator = small_accelerator(activation_kib=8, weight_kib=4)
    for seed in range(8):
        result = Scheduler(accelerator).schedule(random_network(seed, blocks=4))
        for stack in result.stacks:
            if stack.tiles > 1:
                assert stack.live_bytes + stack.cache_bytes <= 8 * 1024
                assert stack.weight_bytes <= 4 * 1024
        # Whole maps that do not fit spill; what is on chip never exceeds the chip.
        for forced in (None, "layer-by-layer", "single-layer"):
            network = random_network(seed, blocks=4)
            for peak in (
                Scheduler(accelerator).schedule(network, mode=forced).peak_onchip_bytes,
                evaluate(network, accelerator, mode=forced or "fully-cached").peak_onchip_bytes,
            ):
                assert 0 < peak <= (1 + 8 + 4) * 1024


def many_branches(count: int) -> Network:
    """One map read by many convolutions, whose outputs are joined at the end."""
    layers = [conv("stem", -1, 4, 3, 8)]
    layers += [conv(f"branch{i}", 0, 4, 4, 8, 1) for i in range(count)]
    for i in range(2, count + 1):
        layers.append(Layer(f"join{i}", "concat", (len(layers) - 1 if i > 2 else 1, i), g=4 * i, oy=8, ox=8))
    return Network("branches", tuple(layers), 3, 8, 8)


def test_any_number_of_maps_may_wait_for_their_readers() -> None:
    for count in (60, 70, 300):
        network = many_branches(count)
        result = Scheduler(load_accelerator()).schedule(network)
        assert result.iterations == sum(layer.iterations for layer in network.layers if layer.kind == "conv")


@pytest.mark.parametrize("tile", [None, (8, 4)])
def test_every_output_is_computed_and_written(tile: tuple[int, int] | None) -> None:
    """A second output that nobody reads, and an output that others read on."""
    a, b, c = conv("a", -1, 8, 3, 16), conv("b", 0, 8, 8, 16), conv("c", 0, 8, 8, 8, 3, 2)
    large, small = 8 * 16 * 16, 8 * 8 * 8
    scheduler = Scheduler(small_accelerator(activation_kib=64, weight_kib=64))
    for layers, outputs, written in (
        ((a, b, c), (), large + small),
        ((a, b, c), (0,), 2 * large + small),
        ((a, c), (), small),
        ((a, c), (0,), large + small),
    ):
        network = Network("several", layers, 3, 16, 16, outputs=outputs)
        fast = scheduler.schedule(network, tile=tile, mode="fully-cached")
        exact = evaluate(network, scheduler.accelerator, mode="fully-cached", tile=tile, cuts=())
        assert fast.iterations == exact.iterations == network.iterations
        assert fast.dram_write_bytes == pytest.approx(written, rel=0.05)
        # The detailed model takes one stack for each output, so a map that both read goes off chip.
        shared = large if b in layers and not outputs else 0
        assert exact.dram_write_bytes == pytest.approx(written + shared, rel=0.05)


def test_a_part_without_layers_costs_nothing() -> None:
    network = random_network(2)
    empty = Network("flatten", (), 8, 4, 4)
    scheduler = Scheduler(small_accelerator())
    part, nothing = scheduler.part(network), scheduler.part(empty)
    assert scheduler.figures([nothing, part, nothing]) == scheduler.figures([part])
    with pytest.raises(InputError, match="no layers"):
        scheduler.figures([nothing])
    with pytest.raises(InputError, match="no layers"):
        scheduler.schedule(empty)
    with pytest.raises(InputError, match="no layers"):
        evaluate(empty, small_accelerator())


def test_totals_of_a_forced_schedule_are_those_of_its_rows() -> None:
    network = random_network(5, blocks=4)
    scheduler = Scheduler(small_accelerator())
    forms: list[tuple[str | None, tuple[int, int] | None]]
    forms = [("single-layer", None), (None, (4, 4)), (None, (10**30, 4))]
    for mode, tile in forms:
        rows = scheduler.schedule(network, mode=mode, tile=tile)
        totals = scheduler.figures([scheduler.part(network)], mode=mode, tile=tile)
        assert totals.latency_cycles == rows.latency_cycles


def test_weights_that_fit_nowhere_are_refused() -> None:
    network = random_network(1)
    roomy = small_accelerator()
    last = replace(roomy.memories[-1], size_bits=1 << 17)
    small = replace(roomy, memories=(*roomy.memories[:-1], last))
    heavy = replace(network, layers=(replace(network.layers[0], k=1 << 14), *network.layers[1:]))
    assert Scheduler(small).schedule(network).iterations >= network.iterations
    with pytest.raises(InputError, match="weights take"):
        Scheduler(small).schedule(heavy)
    with pytest.raises(InputError, match="weights take"):
        evaluate(heavy, small)


def test_a_network_without_padding_is_not_scheduled() -> None:
    with pytest.raises(InputError, match="no padding"):
        Scheduler(load_accelerator()).schedule(replace(random_network(0), padded=False))
