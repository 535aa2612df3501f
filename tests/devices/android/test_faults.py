"""What happens when something breaks, on a real adb daemon: the link, the runner, the disk, the host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_phone import SERIAL, FakePhone

from hwnas.devices.android.device import RUNS_AT_ONCE, AndroidDevice
from hwnas.devices.android.runner_client import Runner
from hwnas.errors import DeviceError, DeviceLostError, PreparationError
from hwnas.measurement import Measurement, MeasurementFailure
from hwnas.network import Network, Part
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import SHORT, DeviceContract

pytestmark = pytest.mark.slow

MakeDevice = Callable[..., AndroidDevice]
OnSending = Callable[..., None]

HELD_OPEN = """
import sys
from hwnas.devices.android.device import AndroidDevice
from hwnas.profiles.catalogue import load_profile
from hwnas.testing.contract import DeviceContract
with AndroidDevice(load_profile(sys.argv[1])) as device:
    handle = device.prepare(DeviceContract().make_network())
    print("runs", flush=True)
    device.sample(handle, runs=1, seconds=600)
"""


def network(name: str = "small") -> Network:
    return Network(name, DeviceContract().make_network().parts)


def weighty(seed: int, megabytes: int) -> Network:
    """A network whose weights take so much."""
    from onnx import TensorProto, helper, numpy_helper

    rows = megabytes * 1024
    weights = np.random.default_rng(seed).standard_normal((rows, 256), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["input", "weight"], ["output"], transB=1)],
        "weighty",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, rows])],
        [numpy_helper.from_array(weights, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    return Network(f"weighty {seed}", [Part("weighty", onnx=lambda: content)])


def kill_runner(phone: FakePhone, number: int = signal.SIGKILL) -> None:
    for pid in phone.processes():
        os.kill(pid, number)


def test_a_link_that_is_lost_in_mid_run(
    phone: FakePhone, make_device: MakeDevice, on_sending: OnSending
) -> None:
    on_sending("run", phone.kill_adbd)
    with make_device() as device:
        first, second = device.prepare(network()), device.prepare(network("other"))
        samples_ns = [round(1e6 * ms) for ms in device.sample(first, runs=1, seconds=0.05)]
        assert sum(samples_ns) >= 50_000_000  # exact: a sum of floats may be below by its rounding
        assert device.sample(second, runs=1, seconds=0)
        assert len(phone.processes()) == 1
    phone.wait_for_no_process()
    assert {path.name for path in (phone.storage / "hwnas/work").glob("*.json")} == set()


def test_a_phone_that_is_unplugged_for_good_keeps_what_was_measured(
    phone: FakePhone, make_device: MakeDevice, on_sending: OnSending, tmp_path: Path
) -> None:
    networks = [network("first"), weighty(1, 1)]
    with MeasurementStore(tmp_path / "measurements.db") as store:
        with Session(make_device(reconnect_s=1.0), SHORT, store) as session:
            ((_, measured),) = session.measure(networks[:1])
            on_sending("run", phone.unplug)
            with pytest.raises(DeviceLostError, match="went away") as lost:
                list(session.measure(networks[1:]))
        assert "what was measured is kept" in lost.value.fix
        assert store.all() == [measured]
        phone.plug()
        with Session(make_device(), SHORT, store) as session:
            results = dict(session.measure(networks))
    assert results[networks[0].hash] == measured
    assert isinstance(results[networks[1].hash], Measurement)
    phone.wait_for_no_process()


def test_a_runner_that_is_killed_is_started_again(
    phone: FakePhone, make_device: MakeDevice, on_sending: OnSending
) -> None:
    on_sending("run", lambda: kill_runner(phone))
    with make_device() as device:
        handle = device.prepare(network())
        assert device.sample(handle, runs=1, seconds=0.05)


@pytest.mark.parametrize("broken", ["runner", "link"])
def test_outputs_come_after_all_where_something_breaks_meanwhile(
    phone: FakePhone, make_device: MakeDevice, on_sending: OnSending, broken: str
) -> None:
    numbers = np.random.default_rng(0).standard_normal((RUNS_AT_ONCE + 3, 1, 3, 16, 16)).astype(np.float32)
    images = [[image] for image in numbers]

    def break_it() -> None:
        if broken == "runner":
            kill_runner(phone)
        else:
            phone.kill_adbd()

    with make_device() as device:
        handle = device.prepare(network())
        expected = device.outputs(handle, images)
        on_sending("infer", break_it)
        found = device.outputs(handle, images)
        assert np.array_equal(found, expected) and len(found) == len(images)
        assert device.sample(handle, runs=1, seconds=0)


def test_a_runner_of_an_earlier_version_is_told(
    phone: FakePhone, make_device: MakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Runner._job

    def unknown(runner: Runner, text: str, limit_s: float) -> Any:
        return job(runner, text.replace("infer", "guess"), limit_s)

    monkeypatch.setattr(Runner, "_job", unknown)
    with make_device() as device:
        handle = device.prepare(network())
        with pytest.raises(DeviceError, match="is of an earlier hwnas") as refusal:
            device.outputs(handle, [[np.zeros((1, 3, 16, 16), np.float32)]])
        assert "devices setup" in refusal.value.fix
        assert device.sample(handle, runs=1, seconds=0)


def test_an_image_of_another_size_is_refused(phone: FakePhone, make_device: MakeDevice) -> None:
    with make_device() as device:
        handle = device.prepare(network())
        with pytest.raises(PreparationError, match="no numbers for all of input 0"):
            device.outputs(handle, [[np.zeros((1, 3, 8, 8), np.float32)]])
        assert device.sample(handle, runs=1, seconds=0)


def test_a_network_that_crashes_the_driver_is_refused_and_others_go_on(
    phone: FakePhone, make_device: MakeDevice, on_sending: OnSending
) -> None:
    with make_device() as device:
        good = device.prepare(network())
        on_sending("load", lambda: kill_runner(phone, signal.SIGSEGV), times=2)
        with pytest.raises(PreparationError, match=r"bad ends the runner .* 2 times: .*SIGSEGV"):
            device.prepare(network("bad"))
        assert device.sample(good, runs=2, seconds=0)


def test_a_run_that_hangs_is_ended_on_the_phone(phone: FakePhone, make_device: MakeDevice) -> None:
    with make_device(limit_s=1.0) as device:
        handle = device.prepare(network())
        with pytest.raises(PreparationError, match="took longer than 1 s"):
            device.sample(handle, runs=10**9, seconds=0)
        assert device.sample(handle, runs=1, seconds=0)


def test_a_full_disk_is_told_and_the_cache_makes_room(phone: FakePhone, make_device: MakeDevice) -> None:
    with make_device(folder=str(phone.folder / "small/hwnas")) as device:
        first = device.prepare(weighty(1, 6))
        with pytest.raises(DeviceError, match=r"storage of phone .* is full"):
            device.prepare(weighty(2, 6))
        assert device.sample(first, runs=1, seconds=0)
        device.release(first)
        assert device.sample(device.prepare(weighty(2, 6)), runs=1, seconds=0)


def test_the_cache_is_bounded(phone: FakePhone, make_device: MakeDevice) -> None:
    for seed in range(3):
        with make_device(cache_mb=3) as device:
            device.release(device.prepare(weighty(seed, 2)))
            kept = sum(path.stat().st_size for path in (phone.storage / "hwnas/work").glob("*"))
            assert kept < 3 * 1024 * 1024


def test_a_killed_host_leaves_no_process_and_no_power_mode(
    phone: FakePhone, built: dict[str, str], make_device: MakeDevice, tmp_path: Path
) -> None:
    profile = tmp_path / "mine.toml"
    options = {"target": SERIAL, "folder": str(phone.storage / "hwnas"), **built}
    profile.write_text(
        'name = "mine"\ndevice = "android"\ndescription = "mine"\n'
        'power_mode = "fixed-performance"\n[options]\n'
        + "".join(f'{key} = "{value}"\n' for key, value in options.items())
    )
    host = subprocess.Popen([sys.executable, "-c", HELD_OPEN, str(profile)], stdout=subprocess.PIPE)
    assert host.stdout is not None
    assert host.stdout.readline() == b"runs\n"
    assert phone.fixed_performance == ["true"]
    host.kill()
    host.wait()
    phone.wait_for_no_process()
    with make_device() as device:
        assert device.sample(device.prepare(network()), runs=1, seconds=0)
    assert phone.fixed_performance[-1] == "false"


def test_a_runner_that_was_left_behind_is_ended(phone: FakePhone, make_device: MakeDevice) -> None:
    with make_device() as device:
        device.prepare(network())
        (left_behind,) = phone.processes()
        os.kill(left_behind, signal.SIGSTOP)  # so that it does not see the end of its stdin
        device._runner.stop()
        (phone.storage / "hwnas/work/leftover.json.part").touch()
    (phone.storage / "hwnas/work/owner").write_text(f"{_owner()} {left_behind}\n")
    with make_device() as device:
        assert left_behind not in phone.processes()
        assert not list((phone.storage / "hwnas/work").glob("leftover*"))
        assert device.sample(device.prepare(network()), runs=1, seconds=0)


def _owner() -> str:
    from hwnas.devices.android import runner_client

    return runner_client._owner()


def test_another_computer_on_the_phone_is_not_disturbed(
    phone: FakePhone, make_device: MakeDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with make_device() as mine:
        handle = mine.prepare(network())
        monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "other"))  # other locks, as on another computer
        with pytest.raises(DeviceError, match=rf"in use by hwnas .* \({socket.gethostname()}"), make_device():
            pass
        assert mine.sample(handle, runs=1, seconds=0)


def test_fixed_performance_mode_is_restored_whatever_happens(
    phone: FakePhone, make_device: MakeDevice
) -> None:
    with pytest.raises(KeyboardInterrupt), make_device(power_mode="fixed-performance") as device:
        assert device.fingerprint().power_mode == "fixed-performance"
        assert phone.fixed_performance == ["true"]
        raise KeyboardInterrupt
    phone.wait_for_no_process()
    assert phone.fixed_performance[-1] == "false"


def test_throttling_is_waited_for_and_measured_again(
    phone: FakePhone, make_device: MakeDevice, tmp_path: Path
) -> None:
    looks: list[float] = []

    def cool(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            phone.set_heat(status=0, battery_tenths=300)

    phone.set_heat(status=2, battery_tenths=300)
    with (
        MeasurementStore(tmp_path / "measurements.db") as store,
        Session(make_device(sleep=cool), SHORT, store, sleep=lambda seconds: None) as session,
    ):
        ((_, result),) = session.measure([network()])
    assert isinstance(result, Measurement)
    assert looks == [5.0, 5.0, 5.0]
    before, after = result.conditions
    assert (before.throttled, before.limits) == (True, ("thermal status 2 (moderate)",))
    assert after.throttled is False
    assert after.temperatures_c["battery"] == 30.0


def test_a_phone_that_stays_hot_is_a_failure_with_its_reason(
    phone: FakePhone, make_device: MakeDevice, tmp_path: Path
) -> None:
    phone.set_heat(status=0, battery_tenths=471)
    with (
        MeasurementStore(tmp_path / "measurements.db") as store,
        Session(
            make_device(sleep=lambda seconds: None, cooldown_s=10.0), SHORT, store, sleep=lambda seconds: None
        ) as session,
    ):
        ((_, result),) = session.measure([network()])
    assert isinstance(result, MeasurementFailure)
    assert result.transient
    assert "battery at 47.1 °C" in result.reason


@pytest.mark.parametrize(
    "odd", ["a b", "it's", 'say "no"', "$(touch hacked)", "`touch hacked`", "; touch hacked"]
)
def test_no_name_runs_anything_on_the_phone(phone: FakePhone, make_device: MakeDevice, odd: str) -> None:
    with make_device(folder=str(phone.storage / odd / "hwnas")) as device:
        assert device.sample(device.prepare(network(odd)), runs=1, seconds=0)
    assert (phone.storage / odd / "hwnas/work").is_dir()
    with pytest.raises(DeviceError, match="absent"), make_device(target=odd):
        pass
    assert not list(phone.folder.rglob("hacked"))
