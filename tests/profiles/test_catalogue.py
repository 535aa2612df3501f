from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.devices.host.device import HostDevice
from hwnas.errors import DeviceError, InputError
from hwnas.profiles.catalogue import load_profile, open_device, parse_options, profile_names

MINE = 'name = "mine"\ndevice = "host"\ndescription = "one core"\n[options]\nthreads = 1\n'


def write_own(folder: Path, name: str, text: str) -> Path:
    path = folder / "config/devices" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_opens(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    open_device(profile)


def test_the_host_cpu_is_there() -> None:
    device = open_device(load_profile("cpu"))
    assert isinstance(device, HostDevice)
    assert load_profile("cpu-int8").precision == "int8"


def test_ones_own_profile_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    path = write_own(tmp_path, "mine", MINE)
    assert {"cpu", "cpu-int8", "mine"} <= set(profile_names())
    assert load_profile("mine").options == {"threads": 1}
    assert load_profile(str(path)) == load_profile("mine")


def test_ones_own_profile_hides_a_shipped_one(tmp_path: Path) -> None:
    write_own(tmp_path, "cpu", MINE.replace('"mine"', '"cpu"'))
    assert load_profile("cpu").description == "one core"


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(
        InputError, match="no device profile 'cpu-int9'\n  fix: did you mean cpu-int8"
    ) as refusal:
        load_profile("cpu-int9")
    assert "hwnas devices" in refusal.value.fix
    with pytest.raises(InputError, match="are 2 devices") as refusal:
        load_profile("cpu, sim-npu")
    assert refusal.value.fix.endswith("--device cpu --device sim-npu")
    with pytest.raises(InputError) as refusal:
        load_profile("../../etc/passwd")
    assert refusal.value.cause == "there is no device profile '../../etc/passwd'"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINE.replace("device", "devices"), "device"),
        (MINE.replace('"host"', "3"), "device"),
        ('precision = "fp8"\n' + MINE, "precision"),
        (MINE + "nested = {a = 1}\n", r"options\.nested"),
        (MINE.replace('"mine"', '"yours"'), "name"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_wrong_profile_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = write_own(tmp_path, "mine", text)
    with pytest.raises(InputError, match=named) as refusal:
        load_profile("mine")
    assert str(path) in refusal.value.cause


def test_a_missing_file_and_a_missing_device_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent\.toml"):
        load_profile(str(tmp_path / "absent.toml"))
    write_own(tmp_path, "mine", MINE.replace('"host"', '"toaster"'))
    with pytest.raises(DeviceError, match="no device class 'toaster'"):
        open_device(load_profile("mine"))


def test_options_of_the_command_line_are_numbers_flags_and_texts() -> None:
    texts = ["threads=2", "deadline_s=1.5", "any_gpu=true", "tile=4x4", "target = a=b", "empty="]
    assert parse_options(texts) == {
        "threads": 2,
        "deadline_s": 1.5,
        "any_gpu": True,
        "tile": "4x4",
        "target": "a=b",
        "empty": "",
    }
    for wrong in ("threads", "=2", ""):
        with pytest.raises(InputError, match="KEY=VALUE"):
            parse_options([wrong])
