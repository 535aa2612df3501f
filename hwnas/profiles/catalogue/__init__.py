"""Device profiles by name: the user's own, then those shipped beside this file."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources.abc import Traversable
from pathlib import Path

from hwnas.devices.base import BaseDevice
from hwnas.devices.registry import device_class
from hwnas.errors import InputError
from hwnas.files import decode, hwnas_config, read_toml
from hwnas.measurement import DeviceProfile, Option
from hwnas.spelling import did_you_mean


def profile_names() -> list[str]:
    """The names of all device profiles, the user's own included."""
    return sorted(_profiles())


def load_profile(name_or_path: str) -> DeviceProfile:
    """Read a device profile.

    Args:
        name_or_path: the path of a `.toml` file, or a name in the user's `devices` folder or the catalogue;
            behind a colon which one of several is meant (`cuda:1`, `aihub:Samsung Galaxy S24`), which becomes
            the option `target`.

    Raises:
        InputError: no such profile, or a file that is not one; the offending key is named.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return decode(DeviceProfile, read_toml(path), path)
    base, colon, target = name_or_path.partition(":")
    if colon and base in _profiles():
        return replace(with_options(load_profile(base), target=target.strip()), name=name_or_path)
    file = _profiles().get(name_or_path)
    if file is None:
        parts = [part.strip() for part in name_or_path.split(",")]
        if len(parts) > 1 and all(part in _profiles() for part in parts):
            raise InputError(
                f"{name_or_path} are {len(parts)} devices, where one is named",
                f"name each by itself, for several of `hwnas compress`: --device {' --device '.join(parts)}",
            )
        raise InputError(
            f"there is no device profile {name_or_path!r}",
            f"{did_you_mean(name_or_path, profile_names(), 3)}hwnas devices lists all of them; "
            "a path to a .toml file works as well",
        )
    with importlib.resources.as_file(file) as path:
        profile = decode(DeviceProfile, read_toml(path), path)
    if profile.name != name_or_path:
        raise InputError(
            f"{path}: name: is {profile.name!r}", f'set name = "{name_or_path}", as the file says'
        )
    return profile


def with_options(profile: DeviceProfile, /, **options: Option | None) -> DeviceProfile:
    """A profile with some of its options replaced; None leaves one as it is."""
    given = {key: value for key, value in options.items() if value is not None}
    return replace(profile, options={**profile.options, **given})


def parse_options(texts: Sequence[str]) -> dict[str, Option]:
    """Read options of a device as the command line has them: `KEY=VALUE`, as `true`, a number, or a text.

    The device itself tells which it knows.

    Raises:
        InputError: one is no such pair.
    """
    options: dict[str, Option] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(
                f"--device-option is {text!r}, it must be KEY=VALUE",
                "for example --device-option any_gpu=true",
            )
        options[key.strip()] = _value(value.strip())
    return options


def option_texts(options: Mapping[str, Option]) -> tuple[str, ...]:
    """Return options of a device as `KEY=VALUE`, as `parse_options` reads them."""
    return tuple(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items()
    )


def _value(text: str) -> Option:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return text


def open_device(profile: DeviceProfile, cluster: str = "") -> BaseDevice:
    """The device that a profile describes, ready to be entered.

    Args:
        cluster: address of the Ray cluster that has it; empty for a device of this machine.

    Raises:
        DeviceError: its class is not installed, or refuses the profile's options; the cluster has no such
            device.
    """
    if cluster:
        from hwnas.devices.remote import open_remote

        return open_remote(profile, cluster)
    return device_class(profile.device)(profile)


def _profiles() -> dict[str, Traversable]:
    """Every profile's file by name; the user's own hide shipped ones of the same name."""
    own = hwnas_config() / "devices"
    folders: list[Traversable] = [importlib.resources.files(__name__)]
    if own.is_dir():
        folders.append(own)
    files = (file for folder in folders for file in folder.iterdir() if file.name.endswith(".toml"))
    return {file.name.removesuffix(".toml"): file for file in files}
