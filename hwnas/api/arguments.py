"""What the public functions take for sizes and shares: refused by name where it means nothing."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hwnas.errors import InputError
from hwnas.ranges import LARGEST_SIZE


def known_options(kind: type[Any], given: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return what is given by the names of a dataclass's fields; a single value of many in a tuple.

    Raises:
        InputError: there is none of a name.
    """
    known = {each.name: each for each in fields(kind)}
    for name in given:
        if name not in known:
            raise InputError(f"{command} has no option {name!r}", f"known are {', '.join(known)}")
    return {
        name: several(value) if isinstance(known[name].default, tuple) else value
        for name, value in given.items()
    }


def several(value: Any) -> tuple[Any, ...]:
    """Return values as a tuple, or the only one of them in one."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


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
