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

pytestmark = pytest.mark.slow

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

TINYNET = """
import torch
from torch import nn

class Stage(nn.Sequential):
    def __init__(self, width_in, width, stride):
        convolution = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU())

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = Stage(3, 8, 2), Stage(8, 8, 1), Stage(8, 16, 2)
        self.pool, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.two(self.one(self.stem(x))))))

def make():
    return Tiny()
"""

COMPRESS = [
    "compress", "tinynet:make", "--device=phone", "--data=digits", "--preset=quick", "--weights=none",
    "--cut=stem,one,two", "--candidates=3", "--train-epochs=1", "--epochs=1", "--steps=2", "--batch-size=256",
    "--threads=1", "--population=6", "--generations=3", "--finetune-epochs=1", "--protocol=once", "--out=run",
    "--filter=none",
]  # fmt: skip


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
    (tmp_path / "tinynet.py").write_text(TINYNET)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
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


@pytest.mark.slow
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
    assert measured["measurement"]["repeats_ms"] == [[1.5, 1.4, 1.6]]
    assert measured["measurement"]["layers"][0]["unit"] == "NPU"
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


def test_an_unknown_phone_is_told_before_anything_is_trained(hub: LoopbackHub, tmp_path: Path) -> None:
    unknown = ["--device=aihub:Samsung Galaxy S20" if "--device" in part else part for part in COMPRESS]
    failed = run(*unknown)
    assert failed.returncode == 2
    assert "the nearest by chipset are Samsung Galaxy Tab S7 (865+)" in failed.stderr
    assert "Nothing was trained" in failed.stderr
    assert not (tmp_path / "run").exists()
    assert hub.jobs("compile_job") == []


@pytest.mark.slow
def test_a_failed_job_ends_with_the_hubs_message(hub: LoopbackHub) -> None:
    hub.profile_failure = "Out of memory on the device"
    failed = run("profile", "net.onnx", "--device", "phone", "--protocol", "once")
    assert failed.returncode == 2
    assert "Out of memory on the device" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_a_whole_run_bounded_killed_and_picked_up(hub: LoopbackHub, tmp_path: Path) -> None:
    """No network is compiled twice, whatever moment the process is killed at, and the bound holds."""
    command = hwnas(*COMPRESS, "--max-measurements=5", "--json")
    for jobs in (2, 7):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while len(hub.submitted) < jobs and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    finished = run(*command[3:])
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    compiled = [hub.uploads[job.model.model_id] for job in hub.jobs("compile_job")]
    # Five networks of the search, the reference among them; then it and the pick by six repeats each.
    assert len(set(compiled[:5])) == 5
    assert len(compiled) == 5 + 2
    assert len(hub.jobs("inference_job")) == 5 + 2 * 6
    assert (
        len(
            [
                p
                for p in result["devices"]["phone"]["front"]["failed"]
                if "5 measurements are used up" in p["reason"]
            ]
        )
        > 0
    )
    assert (tmp_path / "run/checkpoints/phone-knee/model.onnx").is_file()
    before = len(hub.submitted)
    again = run(*command[3:])
    assert again.returncode == 0
    assert len(hub.submitted) == before
    assert hub.token not in finished.stdout + finished.stderr + again.stdout + again.stderr
    holding = [path.name for path in tmp_path.rglob("*") if path.is_file() and holds(path, hub.token)]
    assert holding == ["client.ini"]


def holds(path: Path, token: str) -> bool:
    return token.encode() in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_whoever_waits_sees_the_queue_on_stderr_only(hub: LoopbackHub, as_json: list[str]) -> None:
    shown = run("profile", "net.onnx", "--device", "phone", "--protocol", "once", *as_json)
    assert shown.returncode == 0, shown.stderr
    assert "jobs: 0/1 (jobs in the queue: 1, waited 0:00:00)" in shown.stderr
    assert "jobs: 1/1" in shown.stderr
    assert "\r" not in shown.stderr
    assert "jobs" not in shown.stdout


def test_a_bad_token_ends_with_how_to_get_one_and_is_not_shown(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.write_config(tmp_path / "client.ini", token="expired-secret")  # noqa: S106
    failed = run("profile", "net.onnx", "--device", "phone")
    assert failed.returncode == 2
    assert "refuses the API token" in failed.stderr
    assert "qai-hub configure --api_token TOKEN" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "expired-secret" not in failed.stdout + failed.stderr


@pytest.mark.slow
def test_a_dry_run_tells_the_number_of_jobs_and_does_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    dry = run(*COMPRESS, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    # 18 compiled and profiled once; the pick and the reference compiled once and profiled six times.
    assert dry.stdout.endswith("phone: at most 18 networks in the search, 2 afterwards, 50 jobs in all\n")
    assert "training in all: " in dry.stdout
    bounded = run(*COMPRESS, "--max-measurements=5", "--dry-run", "--json")
    (planned,) = json.loads(bounded.stdout)["devices"]
    assert planned["jobs"] == 5 * 2 + 2 * 7
    assert hub.requests == []
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_many_measurements_must_be_agreed_to(hub: LoopbackHub, tmp_path: Path) -> None:
    refused = run(*COMPRESS, "--population=26", "--generations=2")
    assert refused.returncode == 2
    assert "at most 52 networks in the search" in refused.stderr
    assert "--max-measurements 52" in refused.stderr
    assert {method for method, *_ in hub.requests} == {"GET"}  # it was only asked whether the phone is there
    assert not (tmp_path / "run").exists()


def test_a_batch_is_refused_where_there_is_none(hub: LoopbackHub) -> None:
    refused = run("profile", "net.onnx", "--device", "phone", "--batch", "8")
    assert refused.returncode == 2
    assert "AI Hub has no option 'batch'" in refused.stderr
