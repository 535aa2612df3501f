"""The simulator as a device: the contract, and what a profile can ask of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import timm
from onnx import TensorProto, helper

from hwnas.devices.simulator import Scheduler, accelerator_names, load_accelerator, read_onnx
from hwnas.devices.simulator.device import SimulatorDevice
from hwnas.errors import DeviceError, HwnasError, PreparationError
from hwnas.measurement import Measurement
from hwnas.network import Network, Part, export_onnx
from hwnas.profiles.catalogue import load_profile, open_device, profile_names
from hwnas.profiles.protocols import QUICK
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import DeviceContract


def device(**options: str | int | bool) -> SimulatorDevice:
    profile = load_profile("sim-npu")
    return SimulatorDevice(replace(profile, options={**profile.options, **options}))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.from_module("lite0", timm.create_model("tf_efficientnet_lite0"), (1, 3, 64, 64))


class TestSimulatorDevice(DeviceContract):
    def make_device(self) -> SimulatorDevice:
        return device()


@pytest.mark.slow
def test_every_accelerator_has_a_profile_that_opens(network: Network) -> None:
    names = [name for name in profile_names() if load_profile(name).device == "simulator"]
    assert {load_profile(name).options["accelerator"] for name in names} == set(accelerator_names())
    latencies = set()
    for name in names:
        opened = open_device(load_profile(name))
        assert isinstance(opened, SimulatorDevice)
        assert opened.kind == "modelled"
        with opened:
            latencies.add(opened.sample(opened.prepare(network), runs=1, seconds=0)[0])
    assert len(latencies) == len(names)


def test_a_batch_shares_the_loading_of_weights(network: Network) -> None:
    """So a batch costs less than its images one by one, and its throughput is of images."""
    with device() as single, device(batch=8) as batched:
        one, many = single.prepare(network), batched.prepare(network)
        assert single.fingerprint() != batched.fingerprint()
        one_ms, many_ms = one.state, many.state
    assert (one.metrics["batch_size"], many.metrics["batch_size"]) == (1.0, 8.0)
    assert one_ms < many_ms < 8 * one_ms
    assert many.metrics["macs"] == 8 * one.metrics["macs"]
    with pytest.raises(DeviceError, match="batch is -1"):
        device(batch=-1)


def test_a_network_of_parts_costs_what_its_stitched_graph_costs() -> None:
    """Parts are parsed one by one; the whole graph is parsed by itself."""
    from hwnas.networks.partition import partition

    parts = partition(timm.create_model("efficientnet_b0").eval(), (3, 64, 64))
    pieces = [
        Part(name, onnx=lambda m=module, s=shape: export_onnx(m, (1, *s)))  # type: ignore[misc]
        for name, module, shape in zip(parts.names, parts.modules, parts.shapes[:-1], strict=True)
    ]
    network = Network("b0", pieces)
    whole = read_onnx(network.onnx())
    expected = Scheduler(load_accelerator("mobile-npu")).schedule(whole)
    with device() as opened:
        handle = opened.prepare(network)
        assert opened.sample(handle, runs=1, seconds=0) == [pytest.approx(expected.latency_ms, rel=1e-9)]
        assert handle.metrics["energy_mj"] == pytest.approx(expected.energy_mj, rel=1e-9)
        assert handle.metrics["macs"] == expected.macs


def test_forced_schedules_are_no_better_and_have_their_own_fingerprint(network: Network) -> None:
    results = {}
    for name, options in {
        "best": {},
        "layers": {"mode": "layer-by-layer"},
        "single": {"mode": "single-layer"},
        "tile": {"tile": "8x8"},
    }.items():
        with device(**options) as opened:
            results[name] = (
                opened.sample(opened.prepare(network), runs=1, seconds=0)[0],
                opened.fingerprint().id,
            )
    best = results.pop("best")
    assert all(latency_ms >= best[0] for latency_ms, _ in results.values())
    assert results["single"][0] > results["layers"][0] > best[0]
    assert best[1] not in {fingerprint for _, fingerprint in results.values()}


def test_explain_gives_the_schedules_beside_it(network: Network) -> None:
    with device() as opened:
        others = opened.explain(network)
        chosen = others.pop("chosen")
        assert opened.sample(opened.prepare(network), runs=1, seconds=0) == [pytest.approx(chosen.latency_ms)]
    assert sorted(others) == ["layer-by-layer", "single-layer"]
    assert all(other.latency_ms > chosen.latency_ms for other in others.values())


def test_measurements_are_modelled_with_energy_and_traffic(network: Network, tmp_path: Path) -> None:
    with (
        MeasurementStore(tmp_path / "m.db") as store,
        Session(device(), QUICK, store, anchor=network) as session,
    ):
        ((_, result),) = session.measure([network])
    assert isinstance(result, Measurement)
    assert result.kind == "modelled"
    assert result.anchor_ratio == 1.0
    assert result.metrics["energy_mj"] > 0
    assert result.metrics["single_layers_ms"] > result.latency_ms
    assert result.metrics["dram_read_bytes"] > result.metrics["dram_write_bytes"] > 0


def test_the_fingerprint_is_of_what_is_simulated(tmp_path: Path) -> None:
    """Neither of the path of a description nor of a default that is spelled out."""
    from importlib import resources

    shipped = resources.files("hwnas.devices.simulator") / "accelerators" / "mobile-npu.toml"
    copy = tmp_path / "mine.toml"
    copy.write_text(shipped.read_text())
    plain, spelled, copied = device(), device(mode="best", batch=1), device(accelerator=str(copy))
    assert plain.fingerprint().id == spelled.fingerprint().id == copied.fingerprint().id
    copy.write_text(shipped.read_text().replace("clock_mhz = 800", "clock_mhz = 400"))
    assert device(accelerator=str(copy)).fingerprint().id != plain.fingerprint().id


def unknown_operator() -> Network:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], domain="my.domain")
    graph = helper.make_graph([node], "g", [value], [result])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    content = helper.make_model(graph, opset_imports=opsets).SerializeToString()
    assert onnx.load_model_from_string(content).graph.node[0].op_type == "NoSuchOperator"
    return Network("odd", [Part("odd", onnx=lambda: content)])


def test_an_unknown_operator_fails_the_network_and_names_it() -> None:
    with device() as opened, pytest.raises(PreparationError, match="NoSuchOperator"):
        opened.prepare(unknown_operator())
    with device(allow_unknown=True) as opened:
        assert opened.sample(opened.prepare(unknown_operator()), runs=1, seconds=0)[0] > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"accelerater": "x"}, "accelerater"),
        ({"accelerator": "no-such"}, "no-such"),
        ({"accelerator": 3}, "accelerator"),
        ({"mode": "sideways"}, "sideways"),
        ({"tile": "wide"}, "wide"),
        ({"tile": "8x0"}, "8"),
        ({"stacks": "a,b"}, "a,b"),
        ({"objective": "beauty"}, "beauty"),
    ],
)
def test_nonsense_is_refused_by_name(options: dict[str, str], named: str, network: Network) -> None:
    with pytest.raises((HwnasError, DeviceError), match=named), device(**options) as opened:
        opened.prepare(network)
