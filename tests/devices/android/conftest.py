"""One phone for all tests of a process: a real adb daemon with the real runner on it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import fake_phone
import pytest
from fake_phone import SERIAL, FakePhone

from hwnas.devices.android.adb import Process
from hwnas.devices.android.device import AndroidDevice
from hwnas.measurement import DeviceProfile

MakeProfile = Callable[..., DeviceProfile]
MakeDevice = Callable[..., AndroidDevice]
OnSending = Callable[..., None]


@pytest.fixture(scope="session")
def running_phone() -> Iterator[FakePhone]:
    reason = fake_phone.missing()
    if reason is not None:
        pytest.skip(reason)
    with fake_phone.fake_phone() as phone:
        yield phone


@pytest.fixture
def phone(running_phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """The phone as it comes from the shop, and adb's clients pointed at it."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(running_phone.port))
    running_phone.reset()
    return running_phone


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The runner and the libraries for this machine, as options of a profile."""
    folder = tmp_path_factory.mktemp("android")
    runtime = fake_phone.runtime_folder(folder / "runtime")
    return {"runner": str(fake_phone.build_runner(folder)), "runtime_dir": str(runtime)}


@pytest.fixture
def on_sending(monkeypatch: pytest.MonkeyPatch, phone: FakePhone) -> OnSending:
    """Do something each time that a job of a kind was sent to the runner, at most so many times.

    The runner is stopped meanwhile, so that it cannot have finished the job before.
    """

    def install(kind: str, action: Callable[[], object], times: int = 1) -> None:
        send, left = Process.send, itertools.count(times, -1)

        def sent(process: Process, text: str) -> None:
            if not text.startswith(kind) or next(left) <= 0:
                send(process, text)
                return
            runners = phone.processes()
            for pid in runners:
                os.kill(pid, signal.SIGSTOP)
            send(process, text)
            action()
            for pid in runners:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        monkeypatch.setattr(Process, "send", sent)

    return install


@pytest.fixture
def make_profile(phone: FakePhone, built: dict[str, str]) -> MakeProfile:
    def make(precision: Any = "fp32", power_mode: str = "default", **options: Any) -> DeviceProfile:
        given = {"target": SERIAL, "folder": str(phone.storage / "hwnas"), "threads": 1, **built, **options}
        return DeviceProfile(
            name="fake-phone",
            device="android",
            description="an adb daemon",
            precision=precision,
            power_mode=power_mode,
            options=given,
        )

    return make


@pytest.fixture
def make_device(make_profile: MakeProfile) -> MakeDevice:
    def make(sleep: Callable[[float], None] = time.sleep, **settings: Any) -> AndroidDevice:
        return AndroidDevice(make_profile(**settings), sleep)

    return make
