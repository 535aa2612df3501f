"""What a name was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that a name resembles, the most alike first, those that are equally alike by name."""
    names = list(dict.fromkeys(known))
    alike = get_close_matches(name, names, n=max(1, len(names)))
    return sorted(alike, key=lambda each: (-SequenceMatcher(None, each, name).ratio(), each))[:most]


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """`did you mean A or B? `, with a blank for what follows; empty where no name is alike."""
    found = nearest(name, known, most)
    return f"did you mean {' or '.join(found)}? " if found else ""
