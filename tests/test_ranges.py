"""Every number of every record that is read has a range, found by walking the records from `decode`."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import annotated_types
import pytest
import typer
from pydantic import TypeAdapter, ValidationError

import hwnas
from hwnas.cli.main import app
from hwnas.compress.search.block_costs import BlockCosts
from hwnas.compress.search.record import FrontRecord, SearchRecord

EXTREMES = (10**19, -(10**18), 10**400, -(2**70), 1e308, -1e308, 5e-324)
LARGEST = 10**24


def records() -> set[Any]:
    """What the calls of `decode` in the package read."""
    found: set[Any] = {FrontRecord, SearchRecord, BlockCosts}  # which a helper hands on
    for module in pkgutil.walk_packages(hwnas.__path__, "hwnas."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for node in ast.walk(ast.parse(inspect.getsource(loaded))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "decode":
                name = ast.unparse(node.args[0])
                if isinstance(node.args[0], ast.Subscript) or hasattr(loaded, name):
                    found.add(eval(name, vars(loaded)))  # noqa: S307 - our own source
    return found


def numbers(kind: Any, place: str, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """Every number within a type: its place, and its type with its range if it has one."""
    if typing.get_origin(kind) is Annotated:
        inner = typing.get_args(kind)[0]
        if inner in (int, float):
            yield place, kind
        else:
            yield from numbers(inner, place, seen)
    elif kind in (int, float):
        yield place, kind
    elif dataclasses.is_dataclass(kind):
        if kind not in seen:
            seen.add(kind)
            hints = typing.get_type_hints(kind, include_extras=True)
            for field in dataclasses.fields(kind):
                name = f"{getattr(kind, '__name__', kind)}.{field.name}"
                yield from numbers(hints[field.name], name, seen)
    else:
        for inner in typing.get_args(kind):
            yield from numbers(inner, place, seen)


def bounds(kind: Any) -> tuple[Any, Any]:
    """The smallest and the largest number that a type with a range admits."""
    (interval,) = [each for each in kind.__metadata__ if isinstance(each, annotated_types.Interval)]
    return interval.ge, interval.le


def all_numbers() -> list[tuple[str, Any]]:
    seen: set[Any] = set()
    return [number for kind in sorted(records(), key=str) for number in numbers(kind, str(kind), seen)]


def test_every_number_of_a_record_has_a_range() -> None:
    found = all_numbers()
    assert len(found) > 150
    assert [place for place, kind in found if kind in (int, float)] == []
    for place, kind in found:
        least, most = bounds(kind)
        assert -LARGEST <= least < most <= LARGEST, place


@pytest.mark.parametrize("extreme", EXTREMES)
def test_numbers_that_nobody_means_are_refused(extreme: float) -> None:
    for place, kind in all_numbers():
        least, most = bounds(kind)
        reader = TypeAdapter(kind)
        if least <= extreme <= most and isinstance(extreme, typing.get_args(kind)[0]):
            assert reader.validate_python(extreme, strict=True) == extreme, place
        else:
            with pytest.raises(ValidationError):
                reader.validate_python(extreme, strict=True)


def options(command: Any, path: str = "hwnas") -> Iterator[tuple[str, Any]]:
    """Every parameter of the command line."""
    for parameter in command.params:
        yield f"{path} {parameter.opts[-1]}", parameter
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, f"{path} {name}")


def test_every_number_of_the_command_line_has_a_range() -> None:
    found = dict(options(typer.main.get_command(app)))
    kinds = {name: option.type_descriptor.annotation for name, option in found.items()}
    numeric = [name for name, kind in kinds.items() if kind in (int, float)]
    assert len(numeric) > 25
    open_ended = [name for name in numeric if found[name].min is None or found[name].max is None]
    assert [name for name in open_ended if not _refuses(found[name], 10**30)] == []


def _refuses(option: Any, value: int) -> bool:
    """Whether an option whose ends are not shown has a check of its own."""
    try:
        option.callback(None, None, value)
    except typer.BadParameter:
        return True
    return False
