"""Which values the parts of a network read and give."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Value:
    """A value in a tree of outputs, by its number."""

    number: int


@dataclass(frozen=True)
class Wiring:
    """Which values each part reads and gives; 0 is the image, the others are counted as they are given.

    Attributes:
        reads, gives: of each part, in an order in which each reads what those before it give.
        tree: what forward() returns: a `Value`, or a tuple, list or dictionary with some inside.
    """

    reads: tuple[tuple[int, ...], ...]
    gives: tuple[tuple[int, ...], ...]
    tree: Any

    @cached_property
    def outputs(self) -> dict[str, int]:
        """The values that forward() returns, by the name that each has in an ONNX graph."""
        return dict(_named("output", self.tree))

    @property
    def is_chain(self) -> bool:
        """Whether each part reads what the one before it gives, and the last one gives the only output."""
        return self == chain(len(self.reads))

    def needed(self, wanted: Collection[int]) -> set[int]:
        """The numbers of the parts that are run for some values."""
        parts: set[int] = set()
        values = set(wanted)
        for number in reversed(range(len(self.reads))):
            if not values.isdisjoint(self.gives[number]):
                parts.add(number)
                values.update(self.reads[number])
        return parts


def chain(parts: int) -> Wiring:
    """The wiring of parts that follow one another."""
    numbers = tuple((n,) for n in range(parts + 1))
    return Wiring(reads=numbers[:-1], gives=numbers[1:], tree=Value(parts))


def _named(name: str, tree: Any) -> Iterator[tuple[str, int]]:
    if isinstance(tree, Value):
        yield name, tree.number
    elif isinstance(tree, dict):
        yield from itertools.chain.from_iterable(_named(f"{name}.{key}", each) for key, each in tree.items())
    elif isinstance(tree, tuple | list):
        yield from itertools.chain.from_iterable(_named(f"{name}.{n}", each) for n, each in enumerate(tree))
