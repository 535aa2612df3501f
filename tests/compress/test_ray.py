"""Tasks and devices on a real Ray cluster of several nodes, all on loopback."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray_cluster as clusters
import tiny
from workplace import tinynet

from hwnas.compress import executor as executors
from hwnas.compress.executor import LocalExecutor, OnProgress, RayExecutor, executor_at
from hwnas.compress.library.worker import PackedContext
from hwnas.compress.run.device_check import check_devices
from hwnas.compress.run.directory import versions
from hwnas.devices import remote
from hwnas.devices.base import Device
from hwnas.errors import DeviceError, DeviceLostError, HwnasError, InputError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.progress import Progress

ROOM = Path(remote.__file__).parents[1]


@pytest.mark.slow
def test_two_files_know_ray() -> None:
    knowing = {
        str(path.relative_to(ROOM))
        for path in ROOM.rglob("*.py")
        if re.search(r"^\s*(import ray|from ray)\b", path.read_text(), re.MULTILINE)
    }
    assert knowing == {"compress/executor.py", "devices/remote.py"}


@pytest.mark.slow
def test_without_ray_the_fix_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="not installed") as error, executor_at("127.0.0.1:1"):
        pass
    assert "hwnas[ray]" in error.value.fix


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:none"])
def test_an_address_where_nothing_listens_is_told_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would ask there for minutes"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        given = address.format(port=bound.getsockname()[1])
        with pytest.raises(InputError, match=f"no Ray cluster answers at {given}") as error:
            remote.connect(given)
    assert "ray start --head" in error.value.fix


@dataclass(frozen=True)
class Doubling:
    """A context that says where it was opened."""

    factor: int = 2
    threads: int = 1
    gpus: int = 0
    pid: int = 0

    @property
    def needs(self) -> dict[str, int]:
        return {"CPU": self.threads} | ({"GPU": self.gpus} if self.gpus else {})

    def pack(self) -> Doubling:
        return self

    def open(self) -> Doubling:
        return replace(self, pid=os.getpid())


def multiply(context: Doubling, task: int, on_progress: OnProgress) -> tuple[int, int]:
    on_progress(1, 0.5)
    if task < 0:
        raise InputError("a negative task", "take another")
    return context.factor * task, context.pid


def stand_still(context: Doubling, task: int, on_progress: OnProgress) -> int:
    while task:
        time.sleep(0.1)
    return task


@pytest.mark.slow
def test_local_tasks_come_in_order_and_tell() -> None:
    told: list[tuple[int, int, float]] = []
    found = list(LocalExecutor().run(multiply, Doubling(), [3, 1], lambda *what: told.append(what)))
    assert found == [(3, (6, 0)), (1, (2, 0))]
    assert told == [(3, 1, 0.5), (1, 1, 0.5)]


@pytest.fixture(scope="module")
def small() -> Iterator[Any]:
    """A cluster with one node that computes and has devices."""
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(tiny.__file__).parent)])
    }
    with pytest.MonkeyPatch.context() as patch, clusters.running_cluster() as cluster:
        for name, value in environment.items():
            patch.setenv(name, value)
        clusters.add_node(cluster, ("cpu", "sim-npu"))
        yield cluster


@pytest.mark.slow
def test_tasks_run_on_the_nodes(small: Any) -> None:
    executor = RayExecutor(small.address)
    told: list[tuple[int, int, float]] = []
    found = dict(executor.run(multiply, Doubling(), range(200), lambda *what: told.append(what)))
    assert sorted(told) == [(task, 1, 0.5) for task in range(200)]
    assert {task: result for task, (result, _) in found.items()} == {task: 2 * task for task in range(200)}
    pids = {pid for _, pid in found.values()}
    assert os.getpid() not in pids
    assert len(pids) == 1  # the context was opened once
    with pytest.raises(InputError, match="a negative task"):
        list(executor.run(multiply, Doubling(), [1, -1, 2], lambda *_: None))
    with pytest.raises(HwnasError, match="a task failed on the Ray cluster"):
        broken: list[Any] = ["text"]
        list(executor.run(multiply, Doubling(), broken, lambda *_: None))


@pytest.mark.slow
def test_a_bench_is_not_opened_with_other_packages() -> None:
    packed = PackedContext(
        architecture=Any,  # type: ignore[arg-type]  # nothing of it is looked at before
        weights={},
        whole_classifier={},
        statistics={},
        settings=Any,  # type: ignore[arg-type]
        data_hash="",
        versions={**versions(), "torch": "1.0"},
        folder="",
    )
    with pytest.raises(InputError, match=r"has .*torch.*, the driver .*torch 1\.0") as error:
        packed.open()
    assert "same versions" in error.value.fix


@pytest.mark.slow
def test_tasks_that_no_node_has_cores_for_are_refused(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would let them wait for ever, for a node that may come."""
    with pytest.raises(InputError, match=r"takes 2 CPU .*have 1 CPU at most") as error:
        RayExecutor(small.address).require({"CPU": 2})
    assert "--threads" in error.value.fix
    RayExecutor(small.address).require({"CPU": 1})
    LocalExecutor().require({"CPU": 1000})
    with pytest.raises(InputError, match="takes 2 CPU"):
        list(RayExecutor(small.address).run(multiply, Doubling(threads=2), [1], lambda *_: None))
    node = small.add_node(num_cpus=2, **clusters.NODE)
    monkeypatch.setattr(executors, "PATIENCE_S", 0.5)
    waiting = RayExecutor(small.address).run(stand_still, Doubling(threads=2), range(2), lambda *_: None)
    assert next(waiting) == (0, 0)
    small.remove_node(node, allow_graceful=False)
    with pytest.raises(InputError, match="takes 2 CPU"):
        list(waiting)


@pytest.mark.slow
def test_tasks_of_a_gpu_run_on_the_nodes_that_have_one(small: Any) -> None:
    one = Doubling(gpus=1)
    with pytest.raises(InputError, match=r"takes 1 CPU, 1 GPU .*have 1 CPU, 0 GPU at most") as error:
        list(RayExecutor(small.address).run(multiply, one, [1], lambda *_: None))
    assert "--train-on cpu" in error.value.fix
    node = small.add_node(num_cpus=1, num_gpus=1, **clusters.NODE)
    found = dict(RayExecutor(small.address).run(multiply, one, [1, 2], lambda *_: None))
    assert [value for value, _ in found.values()] == [2, 4]
    small.remove_node(node, allow_graceful=False)


def device_of(profile: DeviceProfile, address: str = "") -> Device:
    device = open_device(profile, address)
    assert isinstance(device, Device)
    return device


@pytest.mark.slow
def test_a_device_of_a_node(small: Any) -> None:
    network = Network.from_module("tiny", tinynet.seeded(), (1, 3, 32, 32))
    other = Network.from_module("seven", tinynet.seven(), (1, 3, 32, 32))
    profile = load_profile("sim-npu")
    with device_of(profile) as local:
        expected = [local.sample(local.prepare(each), runs=1, seconds=0) for each in (network, other)]
        fingerprint = local.fingerprint()
    with device_of(profile, small.address) as device:
        assert isinstance(device, remote.RemoteDevice)
        assert device.kind == "modelled"
        assert device.fingerprint() == fingerprint
        handles = [device.prepare(each) for each in (network, other)]
        found = [device.sample(handle, runs=1, seconds=0) for handle in handles]
        assert found == expected
        assert handles[0].metrics["energy_mj"] > 0
        device.release(handles[0])
        busy = open_device(profile, small.address)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(DeviceError, match="was not free"):
            patch.setattr(remote, "PLACING_S", 0.5)
            busy.__enter__()


@pytest.mark.slow
def test_the_host_of_a_node_is_measured_alone_and_takes_modules(small: Any) -> None:
    batched = DeviceProfile(
        name="cpu-batch-4", device="host", description="x", options={"threads": 1, "batch": 4}
    )
    network = Network.from_module("tiny", tinynet.seeded(), (1, 3, 32, 32))
    with device_of(batched, small.address) as device:
        handle = device.prepare(network)
        assert handle.metrics["batch_size"] == 4
        assert handle.placement
        assert len(device.sample(handle, runs=5, seconds=0)) >= 5
        ray = remote.connect(small.address)
        wait_for(lambda: ray.available_resources().get("CPU", 0) == 0)
        assert device.conditions().load is not None
    assert device.needs_quiet_host  # the node is on this machine


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [1, 3])
def test_a_process_that_dies_while_it_is_placed_is_started_again(
    deaths: int, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, ready = str(tmp_path / "deaths"), remote.Holder.ready

    def dying(self: Any) -> str:
        with Path(notes).open("a+") as file:
            file.seek(0)
            if len(file.read()) < deaths:
                file.write("x")
                file.flush()
                os._exit(1)
        return ready(self)

    dying.__module__ = "__main__"  # sent as it is: the node has no such module
    monkeypatch.setattr(remote.Holder, "ready", dying)
    monkeypatch.setattr(remote.Holder, "__module__", "__main__")
    device = device_of(load_profile("sim-npu"), small.address)
    if deaths < remote.PLACINGS:
        with device:
            assert device.fingerprint().chip
        return
    with pytest.raises(DeviceLostError), device:
        pass


class Ghost(Device):
    """A device of a package that the node does not have."""

    lock_name = None

    def fingerprint(self) -> Any: ...

    def prepare_impl(self, network: Network) -> Any: ...

    def sample_impl(self, handle: Any, runs: int, seconds: float) -> list[float]:
        return []


@pytest.mark.slow
def test_a_device_that_its_node_cannot_make_is_told_and_nobody_holds_it(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile("sim-npu")
    with monkeypatch.context() as patch, pytest.raises(DeviceError, match="ghost") as error:
        patch.setattr(remote, "device_class", lambda _: Ghost)
        with open_device(replace(profile, device="ghost"), small.address):
            pass
    assert not isinstance(error.value, DeviceLostError)
    monkeypatch.setattr(remote, "PLACING_S", 20)
    with device_of(profile, small.address) as device:
        assert not device.needs_quiet_host


@pytest.mark.slow
def test_a_device_that_cannot_be_opened_is_free_again(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("sim-npu")
    broken = replace(profile, options={"accelerator": "absent.toml"})
    with pytest.raises(HwnasError, match="absent") as error, open_device(broken, small.address):
        pass
    assert error.value.fix
    monkeypatch.setattr(remote, "PLACING_S", 20)
    with device_of(profile, small.address):
        pass  # though `error` still knows the device that could not be opened


@pytest.mark.slow
def test_a_device_that_no_node_has(small: Any) -> None:
    with pytest.raises(DeviceError, match=r"no node of the Ray cluster has the device cpu-int8") as error:
        open_device(load_profile("cpu-int8"), small.address)
    assert "hwnas:cpu-int8" in error.value.fix
    assert not isinstance(open_device(load_profile("sim-tpu-like"), small.address), remote.RemoteDevice)


@pytest.mark.slow
def test_devices_of_nodes_are_checked_and_free_again(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained: the one that a node has, and the one that none has."""
    there, absent = load_profile("cpu-1"), load_profile("cpu-int8")
    said: list[str] = []
    clusters.add_node(small, ("cpu-1",))
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    with pytest.raises(DeviceError, match=r"device cpu-int8 cannot be used: no node .*Nothing was trained"):
        check_devices([(there, small.address), (absent, small.address)], Progress())
    assert [text.partition(":")[0] for text in said] == ["device cpu-1"]
    monkeypatch.setattr(remote, "PLACING_S", 20)
    with device_of(there, small.address) as device:
        assert isinstance(device, remote.RemoteDevice)


@pytest.mark.slow
def test_a_node_that_dies_takes_its_device_away(small: Any) -> None:
    profile = load_profile("sim-tpu-like")
    node = clusters.add_node(small, ("sim-tpu-like",))
    with device_of(profile, small.address) as device:
        handle = device.prepare(Network.from_module("tiny", tinynet.seeded(), (1, 3, 32, 32)))
        small.remove_node(node, allow_graceful=False)
        with pytest.raises(DeviceLostError, match="went away with its node"):
            wait_for(lambda: not device.sample(handle, runs=1, seconds=0))  # its process outlives it a little


@pytest.mark.slow
def test_a_node_killed_in_mid_distillation_leaves_the_identical_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes distil and finetune; one is killed while it does, and only the other one has the device."""
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    predictor = ("--quality=predictor", "--predictor-networks=5", "--predictor-epochs=1")
    arguments = tiny.compress_arguments("far", *predictor)
    arguments[1] = "gated:make"
    with clusters.running_cluster() as cluster:
        doomed = clusters.add_node(cluster)
        clusters.add_node(cluster, ("steady",))
        options = ["--executor=ray", f"--ray-address={cluster.address}"]
        log = (tmp_path / "log").open("w")
        command = [sys.executable, "-m", "hwnas", *arguments, *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | clusters.LOOPBACK)
        wait_for(lambda: len(held(tmp_path)) == 2 or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        workers = held(tmp_path)
        cluster.remove_node(doomed, allow_graceful=False)
        wait_for(lambda: sum(map(is_alive, workers)) == 1)
        (tmp_path / "go").touch()
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
    wait_for(lambda: not any(map(is_alive, workers)))
    here = tiny.compress_arguments("here", *predictor)
    here[1] = "gated:make"
    done = tiny.run_hwnas(tmp_path, *here)
    assert done.returncode == 0, done.stderr
    far = tiny.snapshot(tmp_path / "far")
    assert far == tiny.snapshot(tmp_path / "here")
    assert sum(key.startswith("library/blocks/") for key in far) == 12
    assert sum(key.startswith("architectures/") for key in far) >= 5 * 2 + 1


@pytest.mark.slow
def test_devices_of_nodes_are_searched_side_by_side_as_they_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = [*tiny.compress_arguments("far"), "--device=picky.toml", "--json"]
    with clusters.running_cluster() as cluster:
        clusters.add_node(cluster, ("steady", "picky"))
        options = ["--executor=ray", f"--ray-address={cluster.address}"]
        far = tiny.run_hwnas(tmp_path, *arguments, *options, **clusters.LOOPBACK)
    assert far.returncode == 0, far.stderr
    assert "side by side: steady, picky" in far.stderr
    here = tiny.run_hwnas(tmp_path, *arguments, "--out=here")
    assert here.returncode == 0, here.stderr
    assert json.loads(far.stdout)["comparison"] == json.loads(here.stdout)["comparison"]
    assert tiny.snapshot(tmp_path / "far") == tiny.snapshot(tmp_path / "here")


def held(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("held-")) for path in folder.glob("held-*")]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "zombie" not in status.read_text()
