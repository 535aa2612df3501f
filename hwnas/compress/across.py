"""What is best on one device, run on the others: every pick is measured, whole, on every device."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hwnas.compress.checkpoint import Summary
from hwnas.compress.data.task import Metric
from hwnas.compress.library.stitch import Choices
from hwnas.compress.pipeline import Workshop
from hwnas.compress.search.costs import measured_costs
from hwnas.compress.search.search import Target, measurements_file
from hwnas.compress.settings import MEASURED, Quality, SearchSettings
from hwnas.errors import HwnasError, InputError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import STRICT, Interval, Measurement
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.progress import Progress
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
class Picked:
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
    picked: tuple[Picked, ...]
    failed: dict[str, str]
    quality: Quality = "loss"

    def save(self, run: Path) -> None:
        """Write `comparison.json` into a run directory."""
        write_signed(run / FILE, {"schema": SCHEMA, **encode(self)})

    @staticmethod
    def read(run: Path) -> Comparison:
        """Read `comparison.json` of a run directory. Raises InputError naming what is wrong in it."""
        path = run / FILE
        found = decode(Comparison, read_signed(path, SCHEMA, always=False), path)
        names = {front.device for front in found.fronts}
        for number, pick in enumerate(found.picked):
            if not names <= set(pick.on):
                missing = ", ".join(sorted(names - set(pick.on)))
                raise InputError(
                    f"{path}: picked.{number}.on: lacks {missing}",
                    "give the run's `hwnas compress` command again: it writes the file anew",
                )
        return found


def compare_devices(
    workshop: Workshop,
    done: Sequence[tuple[SearchSettings, Target]],
    results: Mapping[str, Any],
    failures: MutableMapping[str, HwnasError],
    progress: Progress,
) -> Comparison:
    """Measure each device's picks on every other one. What was measured before is remembered.

    A device on which that fails has the reason in its cells. Devices are told apart by what is measured on
    them, so one whose objectives are only counted is left out.

    Args:
        done: devices that have a front.
        results: of them, as `compress_for` gives them.
        failures: what could not be done, by device; those of measuring are put into it.
    """
    measuring = [(search, target) for search, target in done if search.measures]
    picked = _picked(results)
    fronts = []
    for search, target in measuring:
        name = target.profile.name
        front = _front(search, results[name]["front"])
        try:
            found = _measured(workshop, search, target, list(picked), progress)
        except HwnasError as error:
            failures[name] = error
            progress.say(f"the other devices' networks could not be measured on {name}: {error.cause}")
            found = {choices: OnDevice(reason=error.cause) for choices in picked}
        for choices, pick in picked.items():
            pick.on[name] = _with_excess(found[choices], pick, front)
        fronts.append(front)
    return Comparison(
        model=workshop.job.settings.model,
        metric=workshop.job.initial.task.metric,
        fronts=tuple(fronts),
        picked=tuple(picked.values()),
        failed={name: error.cause for name, error in failures.items()},
        quality=done[0][0].quality if done else "loss",
    )


def _front(search: SearchSettings, front: Mapping[str, Any]) -> DeviceFront:
    cost: Any = search.objectives[_column(search)]
    points = (
        FrontPoint(choices=tuple(row["choices"]), loss=row["loss"], cost_ratio=row["cost_ratios"][cost])
        for row in front["front"]
    )
    return DeviceFront(
        device=front["device"],
        chip=front["fingerprint"]["chip"],
        cost=cost,
        points=tuple(points),
        anchor=tuple(front["anchor"]),
    )


def _column(search: SearchSettings) -> int:
    """Which of the objectives is compared."""
    return next(i for i, name in enumerate(search.objectives) if name in MEASURED)


def _picked(results: Mapping[str, Any]) -> dict[Choices, Picked]:
    picked: dict[Choices, Picked] = {}
    for device, result in results.items():
        rows = {tuple(row["choices"]): row for row in result["front"]["front"]}
        for checkpoint in result["checkpoints"]:
            plain = {key: value for key, value in checkpoint.items() if key != "path"}
            summary = decode(Summary, plain, checkpoint["path"])
            row = rows[summary.choices]
            pick = picked.setdefault(
                summary.choices,
                Picked(
                    choices=summary.choices,
                    parts=tuple(row["parts"]),
                    loss=row["loss"],
                    macs=summary.macs,
                    params=summary.params,
                    accuracy=summary.accuracy,
                    best_for={},
                    on={},
                ),
            )
            pick.best_for[device] = (*pick.best_for.get(device, ()), summary.pick)
    return picked


def _measured(
    workshop: Workshop, search: SearchSettings, target: Target, wanted: Sequence[Choices], progress: Progress
) -> dict[Choices, OnDevice]:
    """The networks on one device, by its own protocol and beside its own anchor."""
    stitcher, found = workshop.stitcher(target), {}
    refused: dict[Choices, OnDevice] = {}
    for choices in wanted:
        held = {name for key in enumerate(choices) for name in stitcher.refused.get(key, ())}
        if held:
            refused[choices] = OnDevice(reason=f"it forbids {', '.join(sorted(held))}")
    accepted = [choices for choices in wanted if choices not in refused]
    progress.say(f"{len(accepted)} picked networks on {target.profile.name}")
    folder = workshop.run.device(target.profile.name)
    measured: dict[Choices, Measurement] = {}
    with (
        MeasurementStore(measurements_file(folder, stitcher)) as store,
        Session(
            open_device(target.profile, target.cluster),
            target.protocol,
            store,
            anchor=stitcher.network(stitcher.anchor),
            watch=watch_queue(progress),
        ) as session,
    ):
        costs = measured_costs(session, stitcher, search.objectives, measured)(accepted)
        for text in session.judgement:
            progress.say(text)
    for choices, cost in zip(accepted, costs, strict=True):
        if isinstance(cost, str):
            found[choices] = OnDevice(reason=cost)
        else:
            latency_ms = measured[choices].latency_ms
            found[choices] = OnDevice(cost_ratio=cost[_column(search)], latency_ms=latency_ms)
    return found | refused


def _with_excess(found: OnDevice, pick: Picked, front: DeviceFront) -> OnDevice:
    if found.cost_ratio is None:
        return found
    known = [point.cost_ratio for point in front.points if point.loss <= pick.loss]
    return replace(found, excess=found.cost_ratio / min([found.cost_ratio, *known]) - 1)
