"""What the public functions take for sizes and shares: refused by name where it means nothing."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from hwnas.errors import InputError
from hwnas.ranges import LARGEST_SIZE

DeviceOptions = str | Sequence[str] | Mapping[str, str | int | float | bool]
"""`KEY=VALUE`, several of them, or a mapping."""


def known_options(kind: type[Any], given: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return what is given by the names of a dataclass's fields; a single value of many in a tuple.

    Raises:
        InputError: there is none of a name.
    """
    known = {each.name: each for each in fields(kind)}
    for name in given:
        if name not in known:
            raise InputError(f"{command} has no option {name!r}", f"known are {', '.join(known)}")
    return {name: _plain(known[name], value) for name, value in given.items()}


def _plain(option: Field[Any], value: Any) -> Any:
    forms: dict[str, Callable[[Any], Any]] = {
        "cut": checked_cut,
        "device_option": device_options,
        "input_shape": checked_shape,
    }
    if option.name in forms:
        return forms[option.name](value)
    return several(value) if isinstance(option.default, tuple) else value


def several(value: Any) -> tuple[Any, ...]:
    """Return values as a tuple, or the only one of them in one."""
    is_many = isinstance(value, Sequence | Set | Iterator) and not isinstance(value, str | bytes)
    return tuple(value) if is_many else (value,)


def some(what: str, values: Any, fix: str) -> tuple[Any, ...]:
    """Return values as a tuple. Raises InputError: there are none."""
    found = several(values)
    if not found:
        raise InputError(f"no {what} is given", fix)
    return found


def checked_text(name: str, value: Any) -> str:
    """Return a text, or a path as one. Raises InputError: it is neither."""
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)):
        return os.fspath(value)
    raise InputError(f"{name} is {value!r}, it must be a text", f'give {name}="…"')


def checked_flag(name: str, value: Any) -> bool:
    """Return whether something is wanted. Raises InputError: it is no truth value."""
    if isinstance(value, bool):
        return value
    raise InputError(f"{name} is {value!r}, it must be True or False", f"give {name}=True, or leave it out")


def checked_path(name: str, value: Any) -> Path:
    """Return a path. Raises InputError: it is none."""
    return Path(checked_text(name, value))


def checked_device(device: Any) -> str:
    """Return the name of a device, or the path of a profile. Raises InputError: it is neither."""
    if isinstance(device, str | os.PathLike):
        return checked_text("device", device)
    raise InputError(f"device is {device!r}, it must be the name of a device", "hwnas devices lists them")


def checked_devices(devices: Any) -> tuple[str, ...]:
    """Return names of devices as a tuple. Raises InputError: there are none, or one is no name."""
    fix = "name one: devices=['cpu']; hwnas devices lists them"
    return tuple(map(checked_device, some("device", devices, fix)))


def checked_texts(name: str, values: Any) -> tuple[str, ...]:
    """Return texts as a tuple, or the only one of them in one. Raises InputError: one is none."""
    return tuple(checked_text(name, each) for each in several(values))


def checked_cut(cut: Any) -> str:
    """Return names of modules as `NAME,NAME`. Raises InputError: one is no text."""
    return ",".join(checked_texts("cut", cut))


def device_options(given: Any) -> tuple[str, ...]:
    """Return options of a device as `KEY=VALUE`, whether they are given so or as a mapping.

    Raises:
        InputError: they are something else.
    """
    from hwnas.profiles.catalogue import option_texts

    if not isinstance(given, Mapping):
        return checked_texts("device_option", given)
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float):
            raise InputError(
                f"device_option has {key!r}: {value!r}, it must be a text, a number, or true or false",
                'give device_option={"mode": "single-layer"}',
            )
    return option_texts(given)


def checked_size(name: str, size: Any) -> int:
    """Return a size. Raises InputError: it is no integer of 0 or more."""
    if type(size) is int and 0 <= size <= LARGEST_SIZE:
        return size
    raise InputError(
        f"{name} is {size!r}, it must be an integer of 0 to {LARGEST_SIZE:,}",
        f"give {name}=224, or leave it out",
    )


def checked_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the sizes of an input as a tuple. Raises InputError: they are no positive integers."""
    if shape is None:
        return None
    try:
        sizes = () if isinstance(shape, str | bytes) else tuple(map(operator.index, shape))
    except TypeError:
        sizes = ()
    if not sizes or not all(0 < size <= LARGEST_SIZE for size in sizes):
        raise InputError(
            f"input_shape is {shape!r}, it must be sizes of 1 to {LARGEST_SIZE:,}",
            "give channels, rows and columns: input_shape=(3, 224, 224)",
        )
    return sizes


def checked_batch(batch: int | None) -> int | None:
    """Return a number of images. Raises InputError: it is no positive integer."""
    if batch is None or (type(batch) is int and 0 < batch <= LARGEST_SIZE):
        return batch
    raise InputError(
        f"batch is {batch!r}, it must be a number of images from 1 to {LARGEST_SIZE:,}",
        "give batch=8, or None",
    )


def checked_share(name: str, share: float) -> float:
    """Return a share of a whole. Raises InputError: it is not above 0 and below 1."""
    if isinstance(share, int | float) and 0 < share < 1:
        return share
    raise InputError(f"{name} is {share!r}, it must be above 0 and below 1", f"give {name}=0.05 for 5 %")


def checked_seconds(name: str, seconds: float | None) -> float | None:
    """Return a time. Raises InputError: it is not zero or more."""
    if seconds is None or (isinstance(seconds, int | float) and seconds >= 0):
        return seconds
    raise InputError(f"{name} is {seconds!r}, it must be a time in seconds", f"give {name}=30")


def is_module(value: object) -> bool:
    """Tell whether a value is a torch module, without torch where it is not there."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].nn.Module)
