"""What is best on one device, run on the others: every pick is measured, whole, on every device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.compress.library.stitch import Choices
from hwnas.compress.settings import Name, SearchSettings
from hwnas.compress.tasks.task import Metric
from hwnas.errors import InputError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import STRICT, Interval
from hwnas.ranges import Count, Figure, Milliseconds, Ratio

SCHEMA = "hwnas.across/1"
FILE = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A network of a device's front; its cost is the first measured one, as a ratio to the anchor's."""

    __pydantic_config__ = STRICT
    choices: Choices
    loss: Figure
    cost_ratio: Ratio


@dataclass(frozen=True, kw_only=True)
class DeviceFront:
    """The front of one device.

    Attributes:
        cost: what is compared: `latency`, `throughput` (time an image) or `energy`.
        anchor: what costs are ratios to; the reference where the device accepts it, which is all zeros.
    """

    __pydantic_config__ = STRICT
    device: str
    chip: str
    cost: Literal["latency", "throughput", "energy"]
    points: tuple[FrontPoint, ...]
    anchor: Choices = ()


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """A network on one device.

    Attributes:
        excess: cost / the lowest cost known there at no higher loss, − 1: what is lost by not having searched
            for this device.
        reason: why it has no figures.
    """

    __pydantic_config__ = STRICT
    cost_ratio: Ratio | None = None
    latency_ms: Milliseconds | None = None
    excess: Figure | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class PickedArchitecture:
    """A network that was picked for one device at least.

    Attributes:
        best_for: device → the rules by which it was picked there.
        accuracy: after finetuning, by the task's metric, which no device changes; None without labels.
        on: every device, by name.
    """

    __pydantic_config__ = STRICT
    choices: Choices
    parts: tuple[str, ...]
    loss: Figure
    macs: Count
    params: Count
    accuracy: Interval | None
    best_for: dict[str, tuple[str, ...]]
    on: dict[str, OnDevice]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All devices of one library.

    Attributes:
        metric: judges the finetuned networks.
        failed: what could not be done, by device.
        quality: what the losses are.
    """

    __pydantic_config__ = STRICT
    model: str
    metric: Metric
    fronts: tuple[DeviceFront, ...]
    picked: tuple[PickedArchitecture, ...]
    failed: dict[str, str]
    quality: Name = SearchSettings.quality

    def save(self, run: Path) -> None:
        """Write `comparison.json` into a run directory."""
        write_signed(run / FILE, {"schema": SCHEMA, **encode(self)})

    @staticmethod
    def read(run: Path) -> Comparison:
        """Read `comparison.json` of a run directory. Raises InputError naming what is wrong in it."""
        path = run / FILE
        found = decode(Comparison, read_signed(path, SCHEMA), path)
        names = {front.device for front in found.fronts}
        for number, pick in enumerate(found.picked):
            if not names <= set(pick.on):
                missing = ", ".join(sorted(names - set(pick.on)))
                raise InputError(
                    f"{path}: picked.{number}.on: lacks {missing}",
                    "give the run's `hwnas compress` command again: it writes the file anew",
                )
        return found
