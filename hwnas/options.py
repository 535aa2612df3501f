"""What options of commands say of themselves, and how texts become their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwnas.errors import InputError
from hwnas.ranges import LARGEST_SIZE


@dataclass(frozen=True)
class Help:
    """What an option says of itself.

    Attributes:
        text: for people.
        step: under which `--help` lists it; empty for what most people need.
        shown: the default for people, where that is found out later, or is no text.
        metavar: the form of the value, where its type does not tell.
        read: makes a value of a text and the option's name, where the type has no text of its own.
    """

    text: str
    step: str = ""
    shown: str = ""
    metavar: str = ""
    read: Callable[[str, str], Any] | None = None


def read_fraction(text: str, option: str) -> float:
    """`5%` or `0.05`, above 0 and below 1. Raises InputError for anything else."""
    number, percent = (text.strip()[:-1], True) if text.strip().endswith("%") else (text.strip(), False)
    try:
        fraction = float(number) / (100 if percent else 1)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction < 1:
        raise InputError(
            f"{option} is {text!r}, it must be a percentage above 0 and below 100", f"give it as {option} 5%"
        )
    return fraction


def read_shape(text: str, option: str) -> tuple[int, ...] | None:
    """`3x224x224` or `3,224,224` as a tuple of positive sizes; None for an empty text.

    Raises:
        InputError: it is anything else.
    """
    if not text:
        return None
    sizes = re.split(r"[x×,]", text.strip())
    if not all(size.strip().isdecimal() and 0 < int(size) <= LARGEST_SIZE for size in sizes):
        raise InputError(
            f"{option} is {text!r}, it must be sizes such as 3x224x224, of at most {LARGEST_SIZE:,}",
            f"give channels, rows and columns: {option} 3x224x224",
        )
    return tuple(int(size) for size in sizes)
