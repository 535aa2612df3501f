"""A whole run for throughput, on the GPU of the tests."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCudaDevice, FakeLayer
from torch import nn

from hwnas.cli import main as command_line
from hwnas.compress.budget import Plan, plan_of, require_consent
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import SearchSettings
from hwnas.devices.queue import QueueDevice
from hwnas.errors import DeviceError, InputError
from hwnas.files import read_json
from hwnas.profiles import catalogue


def stage(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = stage(3, 8), stage(8, 8), stage(8, 16)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.two(self.one(self.stem(x))))
        return logits


def make() -> nn.Module:
    return Tiny()


def settings(**changed: object) -> SearchSettings:
    values = {
        "device": "cuda",
        "objectives": ("throughput",),
        "protocol": "quick",
        "filter": "none",
        "filter_threshold": 0.05,
        "population": 10,
        "generations": 6,
        "finetune_epochs": 1,
        "picks": ("knee",),
    }
    return SearchSettings(**values | changed)  # type: ignore[arg-type]


def planned(**changed: object) -> Plan:
    search = settings(**changed)
    return plan_of(search, target_of(search), choice_count=20)


@pytest.mark.slow
@pytest.mark.usefixtures("no_nvml")
def test_throughput_is_searched_for_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(catalogue, "device_class", lambda _name: FakeCudaDevice)
    monkeypatch.setattr(FakeLayer, "step_ms", 100.0)
    monkeypatch.setenv("COLUMNS", "200")
    command = (
        "hwnas compress test_cuda_run:make --device cuda --objective throughput --batch 16 --data digits "
        "--preset quick --weights none --cut stem,one,two --candidates 2 --train-epochs 1 --epochs 1 "
        "--steps 1 --batch-size 256 --threads 1 --population 3 --generations 2 --finetune-epochs 1 "
        f"--out {tmp_path}/run"
    )
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as end:
        command_line.main()
    torch.set_num_threads(threads)
    captured = capsys.readouterr()
    assert end.value.code == 0, captured.err
    front = read_json(tmp_path / "run/devices/cuda-batch-16/front-throughput.json")
    assert front["objectives"] == ["throughput"]
    # Every network takes 100 ms by the clock of the tests.
    assert front["front"][0]["latency_ms"] == pytest.approx(100)
    assert front["front"][0]["throughput_per_s"] == pytest.approx(160)
    assert "time an image / reference" in captured.out
    assert "160" in captured.out
    assert (tmp_path / "run/checkpoints/cuda-batch-16-throughput-knee/model.onnx").is_file()


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_device_without_batches_refuses_one() -> None:
    with pytest.raises(DeviceError, match="no option 'batch'"):
        target_of(settings(device="aihub", batch=8))


def test_any_gpu_is_for_gpus() -> None:
    assert (
        target_of(settings(device="v100", device_options={"any_gpu": True})).profile.options["any_gpu"]
        is True
    )
    with pytest.raises(DeviceError, match="no option 'any_gpu'"):
        target_of(settings(device="cpu", device_options={"any_gpu": True}))


def test_the_plan_of_a_device_at_hand_asks_nobody() -> None:
    plan = planned()
    assert (plan.networks, plan.checkpoints, plan.jobs, plan.needs_consent) == (60, 2, None, False)
    told = "cuda: at most 60 networks in the search, 2 afterwards; at least 2 min of measuring"
    assert plan.describe().startswith(told)
    assert planned(objectives=("macs",)).networks == 0


def test_picks_of_other_devices_are_planned_for() -> None:
    search = settings(device="aihub", objectives=("latency",), protocol="once", picks=("knee", "speedup=2"))
    plan = plan_of(search, target_of(search), choice_count=20, other_devices=3)
    assert (plan.elsewhere, plan.jobs) == (6, (60 + 6) * 2 + 3 * 6)
    assert plan.describe().startswith(
        "aihub: at most 60 networks in the search, 3 afterwards, 6 of other devices, "
    )
    bounded = replace(search, max_measurements=64)
    assert plan_of(bounded, target_of(bounded), choice_count=20, other_devices=3).elsewhere == 4
    counted = settings(objectives=("macs",))
    assert plan_of(counted, target_of(counted), choice_count=20, other_devices=3).elsewhere == 0


def test_consent_is_asked_for_above_the_limit_of_a_queue() -> None:
    assert QueueDevice.unconfirmed == 50
    plan = planned(device="aihub", objectives=("latency",), protocol="once")
    assert (plan.networks, plan.jobs) == (60, 60 * 2 + 2 * 6)
    asked: list[str] = []
    require_consent(plan, lambda text: not asked.append(text))  # type: ignore[func-returns-value]
    assert asked == ["aihub: at most 60 networks in the search, 2 afterwards, 132 jobs in all. Go on?"]
    with pytest.raises(InputError, match="nobody agreed") as refusal:
        require_consent(plan, lambda _text: False)
    assert "--max-measurements 60" in refusal.value.fix
    for changed in ({"max_measurements": 60}, {"population": 5}):
        quiet = planned(device="aihub", objectives=("latency",), **changed)
        assert not quiet.needs_consent
        require_consent(quiet, lambda _text: False)


def test_block_costs_count_among_the_measurements() -> None:
    cloud = {"device": "aihub", "objectives": ("latency",), "protocol": "once", "filter": "device"}
    plan = planned(**cloud)
    assert (plan.blocks, plan.networks, plan.jobs) == (20, 60, (20 + 60) * 2 + 2 * 6)
    assert plan.describe().startswith("aihub: at most 20 blocks, 60 networks in the search")
    bounded = planned(**cloud, max_measurements=50)
    assert (bounded.blocks, bounded.networks, bounded.needs_consent) == (20, 30, False)
    with pytest.raises(InputError, match="20 measurements are not enough for the 20 blocks") as error:
        planned(**cloud, max_measurements=20)
    assert "--filter macs" in error.value.fix
