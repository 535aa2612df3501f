"""A graph that never ends, or asks for any memory, is ended and told; the session goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from child_processes import status, wait_for
from onnx import TensorProto, helper, numpy_helper

from hwnas import precision
from hwnas.devices.base import Handle
from hwnas.devices.host.device import DEADLINE_S, HostDevice
from hwnas.devices.host.process import HostProcess
from hwnas.errors import DeadlineError, DeviceError, NetworkFormError, PreparationError
from hwnas.measurement import DeviceProfile, Measurement, MeasurementFailure, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.protocols import ADAPTIVE, QUICK
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore

SHAPE = [1, 3, 8, 8]
SOON_S = 5.0


def value(name: str, shape: list[int], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path: Path, nodes: list[onnx.NodeProto], *weights: onnx.TensorProto) -> Path:
    graph = helper.make_graph(nodes, path.stem, [value("x", SHAPE)], [value("y", SHAPE)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def endless(folder: Path) -> Path:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("v", SHAPE)],
        [value("on", [], TensorProto.BOOL), value("w", SHAPE)],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    return saved(folder / "endless.onnx", [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)], yes)


def greedy(folder: Path) -> Path:
    """Adds up to 10^12."""
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["all"]),
        helper.make_node("ReduceSum", ["all"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    limits = [
        numpy_helper.from_array(np.float32(n), name) for name, n in zip("abc", (0, 1e12, 1), strict=True)
    ]
    return saved(folder / "greedy.onnx", nodes, *limits)


def simple(folder: Path) -> Path:
    return saved(folder / "simple.onnx", [helper.make_node("Relu", ["x"], ["y"])])


def host(**options: float) -> HostDevice:
    known = {"threads": 1, "deadline_s": SOON_S, **options}
    return HostDevice(DeviceProfile(name="cpu", device="host", description="x", options=known))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [QUICK, ADAPTIVE])
def test_a_network_that_never_ends_is_a_failure_and_the_others_are_measured(
    tmp_path: Path, protocol: Protocol
) -> None:
    networks = [Network.from_onnx(endless(tmp_path)), Network.from_onnx(simple(tmp_path))]
    how = replace(protocol, max_seconds=2.0, max_repeats=3, repeats=2)
    with MeasurementStore(tmp_path / "m.db") as store, Session(host(), how, store) as session:
        results = dict(session.measure(networks))
    failure, measured = (results[network.hash] for network in networks)
    assert isinstance(measured, Measurement)
    assert isinstance(failure, MeasurementFailure)
    assert "took longer than 5 s on cpu and was ended" in failure.reason
    assert "deadline_s" in failure.reason
    assert failure.transient  # another day the machine may do something else beside it


def test_a_network_of_our_own_that_never_ends_is_ended_in_this_process(tmp_path: Path) -> None:
    content = endless(tmp_path).read_bytes()
    with host() as device:
        with pytest.raises(DeadlineError, match="loading endless and running it once took longer than 5 s"):
            device.prepare(Network("endless", [Part("endless", onnx=lambda: content)]))
        handle = device.prepare(Network("simple", [Part("simple", onnx=simple(tmp_path).read_bytes)]))
        assert len(device.sample(handle, runs=3, seconds=0)) == 3


@pytest.mark.slow
def test_the_operators_of_a_network_that_never_ends(tmp_path: Path) -> None:
    with host() as device, pytest.raises(DeadlineError, match="timing the operators of endless"):
        device.layers(Network.from_onnx(endless(tmp_path)))


@pytest.mark.slow
def test_a_sampling_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is stopped, as a graph would whose loop depends on chance."""
    with host(deadline_s=1.0) as device:
        handle = device.prepare(Network.from_onnx(simple(tmp_path)))
        assert isinstance(handle.state, HostProcess)
        os.kill(handle.state._process.pid, signal.SIGSTOP)
        with pytest.raises(DeadlineError, match=r"2 runs that took .* s each at first took longer than"):
            device.sample(handle, runs=2, seconds=0)
        device.release(handle)
        assert handle.state is None


def test_long_samplings_have_the_time_that_they_ask_for(tmp_path: Path) -> None:
    with host(deadline_s=0.5) as device:
        handle = device.prepare(Network("simple", [Part("simple", onnx=simple(tmp_path).read_bytes)]))
        assert sum(device.sample(handle, runs=1, seconds=1.0)) >= 1000


def test_a_network_that_asks_for_any_memory_is_refused_with_the_operator(tmp_path: Path) -> None:
    with (
        host(deadline_s=60.0) as device,
        pytest.raises(PreparationError, match="Range asks for 3,725") as refusal,
    ):
        device.prepare(Network.from_onnx(greedy(tmp_path)))
    assert "GiB are free" in refusal.value.cause
    assert "--batch" in refusal.value.fix


@pytest.mark.slow
def test_calibration_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "DEADLINE_S", 5.0)
    network = Network.from_onnx(endless(tmp_path))
    network = network.calibrated(np.zeros((8, *SHAPE[1:]), np.float32))
    with pytest.raises(NetworkFormError, match="calibration for int8 took longer than 5 s and was ended"):
        network.onnx("int8")


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("inf"), float("nan"), 1e300])
def test_a_deadline_is_a_number_of_seconds(deadline_s: float) -> None:
    with pytest.raises(DeviceError, match="deadline_s is"):
        host(deadline_s=deadline_s)
    assert HostDevice(DeviceProfile(name="cpu", device="host", description="x")).deadline_s == DEADLINE_S


def test_a_late_end_of_another_kind_is_told_as_it_is() -> None:
    class Failing(HostDevice):
        def prepare_impl(self, network: Network) -> Handle:
            raise NetworkFormError("no such form", "make one")

    device = Failing(DeviceProfile(name="cpu", device="host", description="x"))
    with device, pytest.raises(NetworkFormError, match="no such form"):
        device.prepare(Network("n", [Part("n", onnx=lambda: b"")]))


PARENT = """
import sys
from hwnas.devices.host.process import HostProcess
process = HostProcess()
print(process._process.pid, flush=True)
process.load(open(sys.argv[1], "rb").read(), 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_network_that_never_ends_does_not_outlive_its_parent(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PARENT, str(endless(tmp_path))]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(lambda: "VmRSS" in status(pid) and cpu_ticks(pid) > 100)  # it runs
        parent.kill()
    wait_for(lambda: not status(pid) or "State:\tZ" in status(pid))


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[11])
