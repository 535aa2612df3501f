from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.devices.lock import DeviceLock
from hwnas.errors import DeviceError
from hwnas.files import hwnas_home
from hwnas.locks import POLL_S

HOLDER = """
from hwnas.devices.lock import DeviceLock
DeviceLock("phone").acquire(timeout_s=0)
print("held", flush=True)
input()
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock `phone`."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_busy_lock_names_the_process_that_holds_it(holder: subprocess.Popen[str]) -> None:
    with pytest.raises(DeviceError, match=f"phone is in use by pid {holder.pid} ") as busy:
        DeviceLock("phone").acquire(timeout_s=0)
    assert "kill" in busy.value.fix


def test_a_killed_process_leaves_no_lock(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    DeviceLock("phone").acquire(timeout_s=0)


def test_waits_until_the_holder_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = DeviceLock("phone"), DeviceLock("phone")
    first.acquire(timeout_s=0)
    waited = []

    def release_first(seconds: float) -> None:
        waited.append(seconds)
        first.release()

    monkeypatch.setattr(time, "sleep", release_first)
    second.acquire(timeout_s=60)
    assert waited == [POLL_S]
    second.release()


def test_different_names_do_not_meet() -> None:
    locks = [DeviceLock(name) for name in ("a/b", "a_b", "a b")]
    for lock in locks:
        lock.acquire(timeout_s=0)
    for lock in locks:
        lock.release()
        lock.release()


@given(st.text())
def test_no_name_escapes_the_folder(name: str) -> None:
    path = DeviceLock(name).path
    assert path.resolve().parent == (hwnas_home() / "locks").resolve()
    assert len(path.name) < 100


def test_a_home_that_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="cannot lock device phone") as refusal:
        DeviceLock("phone").acquire()
    assert "HWNAS_HOME" in refusal.value.fix
