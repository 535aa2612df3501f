"""A plan of many runs: references × devices × targets, as arguments of `hwnas compress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from hwnas.errors import InputError
from hwnas.files import decode, read_toml, safe_name
from hwnas.measurement import STRICT

Value = str | int | float | bool
OWN = ("device", "pick", "speedup", "latency_ms", "out", "as_json", "dry_run")
"""Options of `hwnas compress` that a plan sets by keys of its own."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One `[[references]]` table.

    Attributes:
        name: of its run directory; empty takes the model's.
        devices, targets: instead of the plan's.
        options: of `hwnas compress`, over those of the plan.
    """

    __pydantic_config__ = STRICT
    model: str
    name: str = ""
    devices: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    options: Mapping[str, Value | list[Value]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan file.

    Attributes:
        devices: profiles that every reference is compressed for.
        targets: `knee`, `speedup=X`, `latency-ms=X`.
        options: of `hwnas compress`, for every reference.
        out: the folder of the run directories and of the common report.
    """

    __pydantic_config__ = STRICT
    references: tuple[Order, ...]
    devices: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("knee",)
    options: Mapping[str, Value | list[Value]] = field(default_factory=dict)
    out: str = "runs"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One reference: its run directory and the arguments of `hwnas compress`."""

    model: str
    out: Path
    arguments: tuple[str, ...]


def read_plan(path: Path, compress: Any) -> tuple[Path, list[Job]]:
    """The folder of a plan and its jobs, each checked as if it had been typed.

    Args:
        compress: the command whose options the plan gives.

    Raises:
        InputError: names the file and the offending key.
    """
    plan = decode(Plan, read_toml(path), path)
    if not plan.references:
        raise InputError(f"{path}: references: there is none", "add a [[references]] table with a model")
    folder = Path(plan.out)
    jobs = [_job(path, plan, order, folder, compress) for order in plan.references]
    folders = [job.out for job in jobs]
    twice = next((job for job in jobs if folders.count(job.out) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two references would go to {twice.out}", 'give one of them a name = "…"')
    return folder, jobs


def _job(path: Path, plan: Plan, order: Order, folder: Path, compress: Any) -> Job:
    devices = order.devices or plan.devices
    if not devices:
        raise InputError(f"{path}: devices: {order.model} has none", 'add devices = ["cpu", "sim-npu"]')
    out = folder / safe_name(order.name or Path(order.model.replace(":", "-")).name)
    options = {**plan.options, **order.options}
    arguments = [order.model, *(f"--device={name}" for name in devices), f"--out={out}"]
    arguments += [f"--pick={rule}" for rule in order.targets or plan.targets]
    for key, value in options.items():
        arguments += _argument(path, key, value, compress)
    try:
        compress.make_context("hwnas compress", list(arguments))
    except typer.BadParameter as error:
        raise InputError(f"{path}: {order.model}: {error.format_message()}", f"correct {path}") from None
    return Job(model=order.model, out=out, arguments=tuple(arguments))


def _argument(path: Path, key: str, value: Value | list[Value], compress: Any) -> Sequence[str]:
    flag = f"--{key.replace('_', '-')}"
    known = {opt: option for option in compress.params for opt in option.opts}
    option: Any = known.get(flag)
    if option is None or option.name in OWN or option.param_type_name != "option":
        near = ", ".join(sorted(opt.removeprefix("--") for opt, p in known.items() if p.name not in OWN))
        raise InputError(f"{path}: options.{key}: hwnas compress has no such option", f"known are {near}")
    if isinstance(value, bool) or option.is_flag:
        if value is not True or not option.is_flag:
            raise InputError(f"{path}: options.{key}: is {value!r}", "flags are true, or left out")
        return [flag]
    return [f"{flag}={each}" for each in (value if isinstance(value, list) else [value])]


def command_of(app: typer.Typer) -> Any:
    """`hwnas compress` as typer parses it, with its parameters."""
    return getattr(typer.main.get_command(app), "commands")["compress"]  # noqa: B009 - of a group
