from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from hwnas.devices.base import Device
from hwnas.devices.host import chip, machine
from hwnas.devices.host.device import HostDevice
from hwnas.devices.host.ort_session import PROVIDER
from hwnas.errors import DeviceError, NetworkFormError, PreparationError
from hwnas.measurement import DeviceProfile, Measurement
from hwnas.network import Network, Part
from hwnas.profiles.protocols import ONCE
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import DeviceContract


def make_host(**settings: Any) -> HostDevice:
    return HostDevice(DeviceProfile(name="cpu", device="host", description="this CPU", **settings))


def graph_network(graph: onnx.GraphProto) -> Network:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Network(graph.name, [Part(graph.name, onnx=model.SerializeToString)])


class TestHostContract(DeviceContract):
    def make_device(self) -> Device:
        return make_host(options={"threads": 1})


def test_runs_the_network_itself() -> None:
    import torch

    network = TestHostContract().make_network()
    with make_host() as device:
        handle = device.prepare(network)
        (output,) = handle.state.binding.copy_outputs_to_cpu()
        image = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
        with torch.no_grad():
            expected = network.module()(torch.from_numpy(image))
        assert np.abs(output - expected.numpy()).max() < 1e-4


@pytest.mark.skipif(
    not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"),
    reason="this ONNX Runtime does not tell where a node runs",
)
def test_placement_tells_where_each_operator_runs() -> None:
    with make_host() as device:
        placement = device.prepare(TestHostContract().make_network()).placement
    assert list(placement) == [PROVIDER]
    assert placement[PROVIDER]["Conv"] == 1


def test_a_batch_is_run_as_one_and_counts_as_many_images(tmp_path: Path) -> None:
    network = TestHostContract().make_network()
    plain = make_host()
    with make_host(options={"batch": 8}) as device:
        handle = device.prepare(network)
        (output,) = handle.state.binding.copy_outputs_to_cpu()
        assert output.shape == (8, 4)
        assert handle.network_hash == network.hash
        assert device.fingerprint().runtime.endswith(", batch 8")
    with plain:
        assert "batch" not in plain.fingerprint().runtime
    with (
        MeasurementStore(tmp_path / "m.db") as store,
        Session(make_host(options={"batch": 8}), ONCE, store) as session,
    ):
        (result,) = dict(session.measure([network])).values()
    assert isinstance(result, Measurement)
    assert result.throughput_per_s == pytest.approx(8000 / result.latency_ms)


def test_a_graph_with_a_batch_of_its_own_counts_as_many_images() -> None:
    network = TestHostContract().make_network().batched(4)
    with make_host() as device:
        assert device.prepare(network).metrics == {"batch_size": 4.0}


def test_inputs_of_every_type() -> None:
    inputs = [
        helper.make_tensor_value_info("table", TensorProto.DOUBLE, [4, 2]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, [3]),
    ]
    output = helper.make_tensor_value_info("picked", TensorProto.DOUBLE, [3, 2])
    node = helper.make_node("Gather", ["table", "rows"], ["picked"])
    with make_host() as device:
        handle = device.prepare(graph_network(helper.make_graph([node], "gather", inputs, [output])))
        assert len(device.sample(handle, runs=3, seconds=0)) == 3


def test_an_open_shape_is_refused() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "open", values[:1], values[1:])
    with make_host() as device, pytest.raises(PreparationError, match=r"input 'x' has the open shape"):
        device.prepare(graph_network(graph))


def test_int8_needs_images() -> None:
    with make_host(precision="int8") as device, pytest.raises(NetworkFormError, match="calibration"):
        device.prepare(TestHostContract().make_network())


@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": -1}, {"threads": "two"}, {"threads": True}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="thread"):
        make_host(options=options)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed there by Linux alone")
def test_the_threads_that_are_told_are_those_that_run() -> None:
    """On one CPU and under `OMP_NUM_THREADS` alike; ONNX Runtime's threads are counted by the system."""
    script = """
import os, sys
os.sched_setaffinity(0, {cpus})
sys.path.insert(0, {folder!r})
from test_host import TestHostContract, make_host
before = len(os.listdir("/proc/self/task"))
with make_host() as device:
    told = device.fingerprint().runtime
    handle = device.prepare(TestHostContract().make_network())
    for _ in range(10_000):  # the thread that watched the deadline may not have gone yet
        more = len(os.listdir("/proc/self/task")) - before
        if not more:
            break
        os.sched_yield()
    print(told, "|", device.threads, more)
"""
    cpus = os.sched_getaffinity(0)
    for allowed, given in (({min(cpus)}, {}), (cpus, {"OMP_NUM_THREADS": "1"})):
        text = script.format(cpus=allowed, folder=str(Path(__file__).parent))
        done = subprocess.run(
            [sys.executable, "-c", text],
            env={**os.environ, **given},
            capture_output=True,
            text=True,
            check=True,
        )
        told, _, counts = done.stdout.partition("|")
        threads, more = map(int, counts.split())
        assert (threads, more) == (1, 0)
        assert "1 threads" in told


def test_threads_are_part_of_the_fingerprint() -> None:
    all_cores, two = make_host(), make_host(options={"threads": 2})
    assert all_cores.threads == machine.usable_cores()
    assert "2 threads" in two.fingerprint().runtime
    assert make_host(options={"threads": 99}).fingerprint().id != two.fingerprint().id


@pytest.fixture
def fake_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one core at 2.4 GHz, one thermal zone at 51.5 °C and a throttle counter."""
    core, zone = tmp_path / "cpu/cpu0", tmp_path / "thermal/thermal_zone0"
    files = {
        core / "cpufreq/scaling_governor": "powersave\n",
        core / "cpufreq/scaling_cur_freq": "2400000\n",
        core / "thermal_throttle/core_throttle_count": "7\n",
        zone / "type": "x86_pkg_temp\n",
        zone / "temp": "51500\n",
        tmp_path / "thermal/thermal_zone1/temp": "not readable as a number\n",
        tmp_path / "proc/cpuinfo": "processor\t: 0\nmodel name\t: Test CPU @ 2.4 GHz\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpu")
    monkeypatch.setattr(machine, "THERMAL", tmp_path / "thermal")
    monkeypatch.setattr(chip, "ROOT", tmp_path)
    return core


@pytest.mark.usefixtures("fake_cpu")
def test_conditions_of_a_machine_that_tells_them() -> None:
    with make_host() as device:
        conditions = device.conditions()
        fingerprint = device.fingerprint()
    assert conditions.clocks_mhz == {"cpu0": 2400.0}
    assert conditions.temperatures_c == {"thermal_zone0 x86_pkg_temp": 51.5}
    assert fingerprint.chip.startswith("Test CPU @ 2.4 GHz, ")
    assert fingerprint.power_mode == "powersave"


def test_throttling_is_what_happened_since_the_last_look(fake_cpu: Path) -> None:
    with make_host() as device:
        assert device.conditions().throttled is False
        (fake_cpu / "thermal_throttle/core_throttle_count").write_text("9\n")
        assert device.conditions().throttled is True
        assert device.conditions().throttled is False


def test_conditions_of_a_machine_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("CPUS", "THERMAL", "ROOT"):
        monkeypatch.setattr(machine, place, tmp_path / "nothing")
    monkeypatch.setattr(chip, "ROOT", tmp_path / "nothing")
    with make_host(power_mode="performance") as device:
        conditions = device.conditions()
        assert device.fingerprint().power_mode == "performance"
        assert device.fingerprint().chip
    assert (conditions.clocks_mhz, conditions.temperatures_c, conditions.throttled) == ({}, {}, None)
    assert conditions.cpu is None


@pytest.mark.usefixtures("fake_cpu")
def test_a_power_mode_that_the_cpu_is_not_in_is_refused() -> None:
    device = make_host(power_mode="performance")
    with pytest.raises(DeviceError, match="asks for power mode performance, the CPU is in powersave"), device:
        pass
