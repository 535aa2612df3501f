"""`hwnas doctor`"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from hwnas.cli.output import Json, print_json
from hwnas.cli.tables import Column, print_table, print_text

if TYPE_CHECKING:
    from hwnas.devices.doctor import Reached

SCHEMA = "hwnas.reached/1"
EXAMPLE = "Example: `hwnas doctor --json`"
COLUMNS = (
    Column(name="device", kind="name"),
    Column(name="here", kind="name"),
    Column(name="latencies are", kind="name", rank=1),
    Column(name="chip, or the reason"),
)


def doctor(as_json: Json = False) -> None:
    """Say which devices can be used here, and what to do about the others.

    Each device is opened, and nothing is measured. `hwnas devices doctor NAME` examines one of them further.
    """
    from hwnas import api
    from hwnas.files import encode

    found = list(api.reach_devices())
    if as_json:
        print_json([{"schema": SCHEMA, **encode(each)} for each in found])
    else:
        _show(found)


def _show(found: Sequence[Reached]) -> None:
    here = sum(each.is_here for each in found)
    print_text(f"{here} of {len(found)} devices can be used here.\n")
    ordered = sorted(found, key=lambda each: each.runtime)
    sections = [_rows(list(group)) for _, group in groupby(ordered, key=lambda each: each.runtime)]
    print_table(COLUMNS, sections)
    for fix in dict.fromkeys(each.fix for each in ordered if each.fix):
        names = ", ".join(each.device for each in ordered if each.fix == fix)
        print_text(f"\nfor {names}:\n  {fix}")


def _rows(found: Sequence[Reached]) -> list[list[str]]:
    """A line for each device; what is the same as in the line before is not said again."""
    said = ""
    rows = []
    for each in found:
        text, said = "" if each.text == said else each.text, each.text
        rows.append([each.device, "yes" if each.is_here else "no", each.kind or "–", text])
    return rows
