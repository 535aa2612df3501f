"""A plan of many runs: references × devices × targets, as arguments of `hwnas compress`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hwnas.cli.options import arguments_of
from hwnas.compress.options import CompressOptions
from hwnas.compress.search.pick import check_rule
from hwnas.compress.search.target import profile_of
from hwnas.errors import InputError
from hwnas.files import decode, read_toml, safe_name
from hwnas.measurement import STRICT, DeviceProfile
from hwnas.profiles.catalogue import load_profile, parse_options
from hwnas.ranges import Figure, Setting

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""No argument of a process can hold the character NUL."""
Value = Text | Setting | Figure | bool
OWN = ("pick", "speedup", "latency_ms")
"""Options of `hwnas compress` that a plan sets by keys of its own."""


@dataclass(frozen=True, kw_only=True)
class ReferenceEntry:
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
    references: tuple[ReferenceEntry, ...]
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


def read_plan(path: Path) -> tuple[Path, list[Job]]:
    """Read a plan's folder and its jobs, each checked as if it had been typed.

    Raises:
        InputError: names the file and the offending key.
    """
    plan = decode(Plan, read_toml(path), path)
    if not plan.references:
        raise InputError(f"{path}: references: there is none", "add a [[references]] table with a model")
    folder = Path(plan.out)
    jobs = [_job(path, plan, entry, folder) for entry in plan.references]
    folders = [job.out for job in jobs]
    twice = next((job for job in jobs if folders.count(job.out) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two references would go to {twice.out}", 'give one of them a name = "…"')
    return folder, jobs


def _job(path: Path, plan: Plan, entry: ReferenceEntry, folder: Path) -> Job:
    devices = entry.devices or plan.devices
    if not devices:
        raise InputError(f"{path}: devices: {entry.model} has none", 'add devices = ["cpu", "sim-npu"]')
    if not entry.model or entry.model.startswith("-"):
        raise InputError(f"{path}: model: is {entry.model!r}", "name a model, as for hwnas compress")
    out = folder / safe_name(entry.name or Path(entry.model.replace(":", "-")).name)
    rules = entry.targets or plan.targets
    options = _options(path, {**plan.options, **entry.options})
    _check(f"{path}: devices", devices, load_profile)
    _check(f"{path}: targets", rules, lambda rule: check_rule(rule, options.objective))
    try:
        cluster = options.cluster
    except InputError as error:
        raise InputError(f"{path}: options.ray-address: {error.cause}", error.fix) from None
    profiles = [profile_of(name, options.batch, parse_options(options.device_option)) for name in devices]
    return Job(
        model=entry.model,
        out=out,
        arguments=(
            entry.model,
            *(f"--device={name}" for name in devices),
            f"--out={out}",
            *(f"--pick={rule}" for rule in rules),
            *arguments_of(options),
        ),
        checked=() if options.no_device_check else tuple((profile, cluster) for profile in profiles),
    )


def _options(path: Path, given: Mapping[str, Value | list[Value]]) -> CompressOptions:
    known = {field.name: field for field in fields(CompressOptions) if field.name not in OWN}
    plain: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in known:
            names = ", ".join(sorted(each.replace("_", "-") for each in known))
            raise InputError(
                f"{path}: options.{key}: hwnas compress has no such option", f"known are {names}"
            )
        repeated = isinstance(known[name].default, tuple)
        plain[name] = [value] if repeated and not isinstance(value, list) else value
    return decode(CompressOptions, plain, f"{path}: options")


def _check(key: str, values: Sequence[str], check: Callable[[str], object]) -> None:
    for value in values:
        try:
            check(value)
        except InputError as error:
            raise InputError(f"{key}: {error.cause}", error.fix) from None
