"""A command whose options are the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from annotated_types import Interval

from hwnas.options import Help


def takes(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a dataclass, whose fields have a `hwnas.options.Help`.

    The command's parameter `options` is filled with one, and where it stands `--help` lists them, by step.
    Ranges are those of the fields' types; a tuple that is not read from one text is an option that may be
    repeated.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        types = get_type_hints(kind, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for each in inspect.signature(command).parameters.values():
            if each.name == "options":
                parameters += [_parameter(field, types[field.name]) for field in fields(kind)]
            else:
                parameters.append(each.replace(annotation=hints[each.name], kind=each.KEYWORD_ONLY))

        def run(**given: Any) -> None:
            values = {field.name: _value(field, types, given.pop(field.name)) for field in fields(kind)}
            command(options=kind(**values), **given)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def arguments_of(options: Any) -> list[str]:
    """Return the arguments that give a command these options; defaults are left out."""
    arguments: list[str] = []
    for field in fields(options):
        value, flag = getattr(options, field.name), _flag(field)
        if value == field.default:
            continue
        if isinstance(value, bool):
            arguments.append(flag)
        else:
            arguments += [f"{flag}={each}" for each in (value if isinstance(value, tuple) else [value])]
    return arguments


def _help(annotated: Any) -> Help:
    return next(each for each in get_args(annotated) if isinstance(each, Help))


def _flag(field: Field[Any]) -> str:
    return f"--{field.name.replace('_', '-')}"


def _value(field: Field[Any], types: Mapping[str, Any], given: Any) -> Any:
    """What a field gets for what typer gives."""
    annotated = types[field.name]
    read = _help(annotated).read
    if read is not None:
        return field.default if given is None else read(given, _flag(field))
    if get_origin(get_args(annotated)[0]) is tuple:
        return tuple(given) if given else field.default
    return given


def _parameter(field: Field[Any], annotated: Any) -> inspect.Parameter:
    """What typer makes an option of."""
    type_, *found = get_args(annotated)
    said, default = _help(annotated), field.default
    details: dict[str, Any] = {"help": said.text}
    if said.step:
        details["rich_help_panel"] = said.step
    if said.metavar:
        details["metavar"] = said.metavar
    if default is MISSING:
        default = inspect.Parameter.empty
    elif said.read is not None:
        type_ = str | None
        default = None if default is None else said.shown
    elif isinstance(default, tuple):
        default = None
    if said.shown and default != said.shown:
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
    option = typer.Option(_flag(field), **details)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[plain, option])


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
