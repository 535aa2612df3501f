"""Accelerator descriptions from TOML: the shipped ones by name, a user's own by path."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hwnas.devices.simulator.accelerator import OPERANDS, Accelerator, Memory, Operand
from hwnas.errors import InputError
from hwnas.files import read_toml
from hwnas.ranges import LARGEST_COUNT, LARGEST_FIGURE

# What `sim-npu` stands for.
DEFAULT = "mobile-npu"

_TOP = {
    "name",
    "clock_mhz",
    "batch",
    "mac_pj",
    "activation_bits",
    "weight_bits",
    "partial_sum_bits",
    "unroll",
    "memory",
}
_MEMORY = {
    "name",
    "operands",
    "bytes",
    "read_bits_per_cycle",
    "write_bits_per_cycle",
    "read_pj",
    "write_pj",
    "ports",
    "instances",
}


def accelerator_names() -> tuple[str, ...]:
    """Names of the shipped accelerators."""
    folder = resources.files(__package__).joinpath("accelerators")
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_accelerator(name: str | Path = DEFAULT) -> Accelerator:
    """Load an accelerator.

    Args:
        name: a shipped name (see accelerator_names), "sim-npu" for the default, or the path of a TOML file.

    Raises:
        InputError: no such name or file, broken TOML, or a description that cannot work; names the key.
    """
    text = str(name)
    if text == "sim-npu":
        text = DEFAULT
    if text in accelerator_names():
        source = (
            resources.files(__package__).joinpath("accelerators", f"{text}.toml").read_text(encoding="utf-8")
        )
    else:
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"accelerator {text} is neither shipped nor a file",
                f"use one of {', '.join(accelerator_names())}, or the path of a TOML file",
            )
        parsed = read_toml(path)
        try:
            return parse_accelerator(parsed, text)
        except InputError as error:
            raise InputError(f"{text}: {error.cause}", error.fix) from None
    return parse_accelerator(tomllib.loads(source), text)


def parse_accelerator(parsed: Mapping[str, Any], where: str = "accelerator") -> Accelerator:
    """Build an accelerator from parsed TOML.

    Raises:
        InputError: a key is missing, unknown or unusable.
    """
    label = f"accelerator {parsed.get('name', where)}"
    _known(label, parsed, _TOP)
    unroll = _get(label, parsed, "unroll", dict)
    memories = []
    for number, entry in enumerate(_get(label, parsed, "memory", list)):
        place = f"{label}: memory {entry.get('name', number) if isinstance(entry, Mapping) else number}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{place} is no table", "write each memory as [[memory]]")
        _known(place, entry, _MEMORY)
        memories.append(_memory(place, entry))
    return Accelerator(
        name=str(_get(label, parsed, "name", str)),
        unroll=tuple((str(d), _integer(label, f"unroll.{d}", s)) for d, s in unroll.items()),
        mac_pj=_number(label, parsed, "mac_pj"),
        memories=tuple(memories),
        clock_mhz=_number(label, parsed, "clock_mhz", 1000.0),
        batch=_integer(label, "batch", parsed.get("batch", 1)),
        activation_bits=_integer(label, "activation_bits", parsed.get("activation_bits", 8)),
        weight_bits=_integer(label, "weight_bits", parsed.get("weight_bits", 8)),
        partial_sum_bits=_integer(label, "partial_sum_bits", parsed.get("partial_sum_bits", 16)),
    )


def _memory(place: str, entry: Mapping[str, Any]) -> Memory:
    operands = _get(place, entry, "operands", list)
    unknown = [o for o in operands if o not in OPERANDS]
    if unknown:
        raise InputError(f"{place}: operands has {unknown}", "name the operands it holds out of I, W and O")
    typed: tuple[Operand, ...] = tuple(o for o in OPERANDS if o in operands)
    ports = entry.get("ports", [1, 1, 0])
    if not isinstance(ports, list) or len(ports) != 3:
        raise InputError(f"{place}: ports = {ports}", "give [read, write, read-write] ports, e.g. [1, 1, 0]")
    return Memory(
        name=str(_get(place, entry, "name", str)),
        operands=typed,
        size_bits=round(_number(place, entry, "bytes") * 8),
        read_bits_per_cycle=_integer(place, "read_bits_per_cycle", entry.get("read_bits_per_cycle")),
        write_bits_per_cycle=_integer(place, "write_bits_per_cycle", entry.get("write_bits_per_cycle")),
        read_pj=_number(place, entry, "read_pj"),
        write_pj=_number(place, entry, "write_pj"),
        ports=(
            _integer(place, "ports", ports[0]),
            _integer(place, "ports", ports[1]),
            _integer(place, "ports", ports[2]),
        ),
        instances=_integer(place, "instances", entry.get("instances", 1)),
    )


def _known(where: str, table: Mapping[str, Any], keys: set[str]) -> None:
    extra = sorted(set(table) - keys)
    if extra:
        raise InputError(f"{where}: unknown key {extra[0]}", f"use the keys {', '.join(sorted(keys))}")


def _get(where: str, table: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in table:
        raise InputError(f"{where}: {key} is missing", f"add {key} (the shipped files show its form)")
    if not isinstance(table[key], kind):
        raise InputError(
            f"{where}: {key} = {table[key]!r} is no {kind.__name__}",
            f"give {key} the form of the shipped files",
        )
    return table[key]


def _number(where: str, table: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{where}: {key} = {value!r} is no number", f"give {key} as a number")
    if not abs(value) <= LARGEST_FIGURE:
        raise InputError(
            f"{where}: {key} = {value} is not finite or too large", f"give {key} as a number up to 1e15"
        )
    return float(value)


def _integer(where: str, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{where}: {key} = {value!r} is no integer", f"give {key} as an integer")
    if abs(value) > LARGEST_COUNT:
        raise InputError(f"{where}: {key} = {value} is too large", f"give {key} as an integer up to 1e15")
    return value
