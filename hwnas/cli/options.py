"""A command whose options are the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from annotated_types import Interval

from hwnas.compress.options import Help


def takes(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a dataclass, whose fields have a `hwnas.compress.options.Help`.

    The command's first parameter, `options`, is filled with one. Ranges are those of the fields' types; a
    tuple is an option that may be repeated. `--help` lists the options by step, those of no step first.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [each for each in inspect.signature(command).parameters.values() if each.name != "options"]
        hints = get_type_hints(command, include_extras=True)
        types = get_type_hints(kind, include_extras=True)
        taken = {each.name: (each, types[each.name]) for each in fields(kind)}
        parameters = [each.replace(annotation=hints[each.name]) for each in own]
        parameters += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=_annotation(field, type_),
            )
            for name, (field, type_) in taken.items()
        ]

        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in taken}
            for name, (_, type_) in taken.items():
                if get_origin(get_args(type_)[0]) is tuple:
                    default = taken[name][0].default
                    values[name] = tuple(values[name]) if values[name] else default
            command(kind(**values), **given)

        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def arguments_of(options: Any) -> list[str]:
    """Return the arguments that give a command these options; defaults are left out."""
    arguments: list[str] = []
    for field in fields(options):
        value, flag = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        if value == field.default:
            continue
        if isinstance(value, bool):
            arguments.append(flag)
        else:
            arguments += [f"{flag}={each}" for each in (value if isinstance(value, tuple) else [value])]
    return arguments


def _default(field: Field[Any]) -> Any:
    if field.default is MISSING:
        return inspect.Parameter.empty
    return None if isinstance(field.default, tuple) else field.default


def _annotation(field: Field[Any], annotated: Any) -> Any:
    """The type for typer, with what it says of the option."""
    type_, *found = get_args(annotated)
    said = next(each for each in found if isinstance(each, Help))
    details: dict[str, Any] = {"help": said.text}
    if said.step:
        details["rich_help_panel"] = said.step
    if said.shown:
        details["show_default"] = said.shown
    plain, interval = _plain(type_)
    if interval is None:
        interval = next((each for each in found if isinstance(each, Interval)), None)
    if interval is not None:
        details["callback"] = _within(interval)
    element = get_args(type_)[0] if get_origin(type_) is tuple else None
    if get_origin(element) is Literal:  # typer knows no lists of them
        choices = get_args(element)
        details |= {"metavar": f"[{'|'.join(choices)}]", "callback": _one_of(choices)}
        plain = list[str] | None
    return Annotated[plain, typer.Option(f"--{field.name.replace('_', '-')}", **details)]


def _plain(type_: Any) -> tuple[Any, Interval | None]:
    """A type without its range, and the range; a tuple becomes a list."""
    if get_origin(type_) is tuple:
        plain, interval = _plain(get_args(type_)[0])
        return list[plain] | None, interval  # type: ignore[valid-type]
    if get_origin(type_) is Annotated:
        plain, *found = get_args(type_)
        return plain, next((each for each in found if isinstance(each, Interval)), None)
    for each in get_args(type_):
        if get_origin(each) is Annotated:
            plain, interval = _plain(each)
            return plain | None, interval
    return type_, None


def _within(interval: Interval) -> Callable[[Any], Any]:
    """Check a range here: typer would show its ends, which nobody needs, in place of the type."""

    def check(given: Any) -> Any:
        for each in given if isinstance(given, list) else [given]:
            if each is not None and not interval.ge <= each <= interval.le:  # NaN is in no range
                raise typer.BadParameter(f"{each} is not in the range {interval.ge}<=x<={interval.le}.")
        return given

    return check


def _one_of(choices: Sequence[str]) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        for each in given or []:
            if each not in choices:
                raise typer.BadParameter(f"{each!r} is not one of {', '.join(choices)}")
        return given

    return check
