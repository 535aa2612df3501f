"""Values of options that typer has no type for."""

from __future__ import annotations

import math
import re

import typer

from hwnas.errors import InputError
from hwnas.ranges import LARGEST_SIZE


def a_number(value: float | None) -> float | None:
    """What an option may be: not NaN, which no range holds back. Raises BadParameter."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value


def parse_fraction(text: str, option: str) -> float:
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


def parse_shape(text: str) -> tuple[int, ...]:
    """`3x224x224` or `3,224,224` as a tuple of positive sizes. Raises InputError for anything else."""
    sizes = re.split(r"[x×,]", text.strip())
    if not all(size.strip().isdecimal() and 0 < int(size) <= LARGEST_SIZE for size in sizes):
        raise InputError(
            f"--input-shape is {text!r}, it must be sizes such as 3x224x224, of at most {LARGEST_SIZE:,}",
            "give channels, rows and columns: --input-shape 3x224x224",
        )
    return tuple(int(size) for size in sizes)
