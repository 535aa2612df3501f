"""The command line against the hub of the tests, in processes of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aihub_server import LoopbackHub

from hwnas.testing.contract import DeviceContract

PROFILE = """
name = "phone"
device = "aihub"
description = "a phone at the hub of the tests"
precision = "fp16"

[options]
target = "Samsung Galaxy S24"
target_runtime = "qnn_context_binary"
compute_unit = "npu"
poll_s = 0.05
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, an account there, a profile of a phone there, and a network in `net.onnx`."""
    hub = LoopbackHub()
    hub.start()
    hub.write_config(tmp_path / "client.ini")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
    (tmp_path / "config/devices").mkdir(parents=True)
    (tmp_path / "config/devices/phone.toml").write_text(PROFILE)
    (tmp_path / "net.onnx").write_bytes(DeviceContract().make_network().onnx())
    monkeypatch.chdir(tmp_path)
    yield hub
    hub.stop()


def hwnas(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hwnas", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(hwnas(*arguments), capture_output=True, text=True, timeout=120)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("reached", ["compile_job", "inference_job"])
def test_a_killed_run_picks_up_its_running_job(hub: LoopbackHub, reached: str) -> None:
    command = hwnas("profile", "net.onnx", "--device", "phone", "--protocol", "once", "--json")
    hub.held = {reached}
    pipe = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        wait_for(lambda: len(hub.jobs(reached)) == 1 and hub.requests[-3:] == 3 * [("GET", "jobs")])
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    hub.held = set()
    again = run(*command[3:])
    assert again.returncode == 0, again.stderr
    (measured,) = json.loads(again.stdout)
    assert measured["summary"]["latency_ms"] == 1.5
    assert (len(hub.jobs("compile_job")), len(hub.jobs("inference_job"))) == (1, 1)


def test_without_a_token_there_is_one_message_and_no_traceback(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "client.ini").unlink()
    failed = run("profile", "net.onnx", "--device", "aihub:Samsung Galaxy S24")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert "needs an API token" in failed.stderr
    assert "qai-hub configure --api_token TOKEN" in failed.stderr


def test_an_unknown_phone_is_refused_with_the_nearest(hub: LoopbackHub) -> None:
    failed = run("profile", "net.onnx", "--device", "aihub:Samsung Galaxy S20")
    assert failed.returncode == 2
    assert "the nearest by chipset are Samsung Galaxy Tab S7 (865+)" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_failed_job_ends_with_the_hubs_message(hub: LoopbackHub) -> None:
    hub.profile_failure = "Out of memory on the device"
    failed = run("profile", "net.onnx", "--device", "phone", "--protocol", "once")
    assert failed.returncode == 2
    assert "Out of memory on the device" in failed.stderr
    assert "Traceback" not in failed.stderr
