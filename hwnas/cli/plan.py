"""A plan of many runs: references × devices × targets, as arguments of `hwnas compress`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from hwnas.cli.device_options import cluster_of
from hwnas.compress.search.pick import check_rule
from hwnas.compress.search.search import profile_of
from hwnas.errors import InputError
from hwnas.files import decode, read_toml, safe_name
from hwnas.measurement import STRICT, DeviceProfile
from hwnas.profiles.catalogue import load_profile
from hwnas.ranges import Figure, Setting

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""No argument of a process can hold the character NUL."""
Value = Text | Setting | Figure | bool
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
    model: Text
    name: Text = ""
    devices: tuple[Text, ...] = ()
    targets: tuple[Text, ...] = ()
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
    devices: tuple[Text, ...] = ()
    targets: tuple[Text, ...] = ("knee",)
    options: Mapping[str, Value | list[Value]] = field(default_factory=dict)
    out: Text = "runs"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One reference: its run directory and the arguments of `hwnas compress`.

    Attributes:
        checked: the devices that are opened before anything is trained, each with its cluster's address.
    """

    model: str
    out: Path
    arguments: tuple[str, ...]
    checked: tuple[tuple[DeviceProfile, str], ...]


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
    if not order.model or order.model.startswith("-"):
        raise InputError(f"{path}: model: is {order.model!r}", "name a model, as for hwnas compress")
    out = folder / safe_name(order.name or Path(order.model.replace(":", "-")).name)
    rules = order.targets or plan.targets
    arguments = [order.model, *(f"--device={name}" for name in devices), f"--out={out}"]
    arguments += [f"--pick={rule}" for rule in rules]
    for key, value in {**plan.options, **order.options}.items():
        arguments += _argument(path, key, value, compress)
    try:
        given = compress.make_context("hwnas compress", list(arguments)).params
    except typer.BadParameter as error:
        raise InputError(f"{path}: {order.model}: {error.format_message()}", f"correct {path}") from None
    objectives: Any = [str(name) for name in given["objective"] or ["latency"]]
    _check(f"{path}: devices", devices, load_profile)
    _check(f"{path}: targets", rules, lambda rule: check_rule(rule, objectives))
    try:
        cluster = cluster_of(str(given["executor"]), given["ray_address"])
    except InputError as error:
        raise InputError(f"{path}: options.ray-address: {error.cause}", error.fix) from None
    options = {key: given[key] for key in ("batch", "any_gpu", "allow_fallback")}
    checked = [] if given["no_device_check"] else [(profile_of(name, **options), cluster) for name in devices]
    return Job(model=order.model, out=out, arguments=tuple(arguments), checked=tuple(checked))


def _check(key: str, values: Sequence[str], check: Callable[[str], object]) -> None:
    for value in values:
        try:
            check(value)
        except InputError as error:
            raise InputError(f"{key}: {error.cause}", error.fix) from None


def _argument(path: Path, key: str, value: Value | list[Value], compress: Any) -> Sequence[str]:
    flag = f"--{key.replace('_', '-')}"
    known = {opt: option for option in compress.params for opt in option.opts}
    option: Any = known.get(flag)
    if option is None or option.name in OWN or option.param_type_name != "option":
        near = ", ".join(sorted(opt.removeprefix("--") for opt, p in known.items() if p.name not in OWN))
        raise InputError(f"{path}: options.{key}: hwnas compress has no such option", f"known are {near}")
    if isinstance(value, list) and not option.multiple:
        raise InputError(f"{path}: options.{key}: is {value!r}", "give one value")
    if isinstance(value, bool) or option.is_flag:
        if value is not True or not option.is_flag:
            raise InputError(f"{path}: options.{key}: is {value!r}", "flags are true, or left out")
        return [flag]
    return [f"{flag}={each}" for each in (value if isinstance(value, list) else [value])]


def command_of(app: typer.Typer) -> Any:
    """`hwnas compress` as typer parses it, with its parameters."""
    return getattr(typer.main.get_command(app), "commands")["compress"]  # noqa: B009 - of a group
