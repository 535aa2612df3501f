"""Devices are opened before anything is trained for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from command_line import Hwnas, refused

from hwnas.compress.run.device_check import check_devices
from hwnas.devices.lock import DeviceLock
from hwnas.profiles.catalogue import load_profile
from hwnas.progress import Progress

PLAN = """
out = "all"
devices = ["there.toml"]

[options]
data = "digits"
preset = "quick"
train_epochs = 1

[[references]]
model = "tinynet:make"

[[references]]
model = "tinynet:make"
name = "again"
devices = ["there.toml", "far.toml", "further.toml"]
"""


@pytest.fixture
def place(workplace: Path) -> Path:
    """Three devices, of which two are not there."""
    for name, needs in (("there", ""), ("far", "phone"), ("further", "board")):
        (workplace / f"{name}.toml").write_text(
            f'name = "{name}"\ndevice = "fickle"\ndescription = "x"\n[options]\nneeds = "{needs}"\n'
        )
    return workplace


class Listening(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def arguments(*devices: str) -> list[str]:
    single = [part for part in tiny.compress_arguments("run") if not part.startswith("--device=")]
    return [*single, *(f"--device={name}.toml" for name in devices)]


@pytest.mark.slow
def test_a_device_that_is_not_there_is_told_before_anything_is_trained(hwnas: Hwnas, place: Path) -> None:
    refused(
        hwnas(*arguments("far")), "device far cannot be used: there is no phone. Nothing was trained", "plug"
    )
    assert not (place / "run").exists()
    assert hwnas(*arguments("far"), "--dry-run").code == 0
    later = hwnas(*arguments("far"), "--no-device-check")
    assert later.code == 2
    assert "there is no phone" in later.err
    assert (place / "run/reference").is_dir()
    (place / "phone").touch()
    done = hwnas(*arguments("far"))
    assert done.code == 0, done.err
    assert "device far: steady" in done.err


def test_all_that_are_missing_are_named_and_the_others_are_closed_again(hwnas: Hwnas, place: Path) -> None:
    done = hwnas(*arguments("there", "far", "further"))
    refused(
        done, "device far cannot be used: there is no phone; device further cannot be used", "plug the board"
    )
    assert not (place / "run").exists()
    assert [line.split()[:2] for line in (place / "notes").read_text().splitlines()] == [
        ["there", "open"],
        ["there", "close"],
    ]


def test_the_devices_of_a_whole_plan_are_opened_first_and_once(hwnas: Hwnas, place: Path) -> None:
    (place / "plan.toml").write_text(PLAN)
    refused(hwnas("batch", "plan.toml"), "device far cannot be used", "plug the phone in; plug the board in")
    assert not (place / "all").exists()
    assert (place / "notes").read_text().count("there open") == 1
    assert hwnas("batch", "plan.toml", "--dry-run").code == 0


def test_a_plan_may_leave_devices_for_later(
    hwnas: Hwnas, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, ...]] = []

    def run(arguments: tuple[str, ...]) -> tuple[None, int]:
        given.append(arguments)
        return None, 0

    monkeypatch.setattr("hwnas.cli.batch.run_compression", run)
    (place / "plan.toml").write_text(PLAN)
    assert hwnas("batch", "plan.toml", "--no-device-check").code == 0
    assert all(each[-1] == "--no-device-check" for each in given)
    assert not (place / "notes").exists()
    (place / "plan.toml").write_text(PLAN + "options = { no_device_check = true }\n")
    assert hwnas("batch", "plan.toml").code == 0
    assert (place / "notes").read_text().count("open") == 1
    assert ["--no-device-check" in each for each in given[2:]] == [False, True]


@pytest.mark.usefixtures("place")
def test_a_device_that_another_process_uses_is_there() -> None:
    profile = load_profile("there.toml")
    progress = Listening()
    lock = DeviceLock("there")
    lock.acquire(0)
    try:
        check_devices([(profile, "")], progress)
    finally:
        lock.release()
    (said,) = progress.said
    assert "there is in use by pid" in said
    assert said.endswith("it is waited for when it is needed")
    check_devices([(profile, "")], progress)
    assert progress.said[1] == "device there: steady"
