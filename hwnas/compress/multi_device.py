"""One library, many devices: searched side by side where they do not disturb each other, then compared."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from threading import Event
from typing import Any

from hwnas.compress.emit.cross_device import Comparison, DeviceFront, FrontPoint, OnDevice, PickedArchitecture
from hwnas.compress.emit.summary import Summary
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.run import Run
from hwnas.compress.library.stitch import Choices
from hwnas.compress.quality.kinds import quality_kind
from hwnas.compress.quality.model import prepare_quality
from hwnas.compress.search.costs import MeasuredCosts
from hwnas.compress.search.process import search_apart
from hwnas.compress.search.record import FrontRecord, FrontRow
from hwnas.compress.settings import MEASURED, SearchSettings
from hwnas.errors import HwnasError
from hwnas.profiles.catalogue import open_device
from hwnas.progress import Progress

Failures = dict[str, HwnasError]
"""What could not be done, by the device's name."""

Found = Mapping[str, tuple[FrontRecord, Sequence[Summary]]]
"""The front and the checkpoints of each device, by its name."""


def note_failure(failures: Failures, name: str, error: HwnasError, progress: Progress) -> None:
    """Keep why something could not be done for a device, and say so."""
    failures[name] = copy(error)  # without its traceback, whose frames may hold a GPU's memory
    progress.say(f"{name}: {error.cause}; what else there is to do goes on")


def search_side_by_side(devices: Sequence[DeviceRun]) -> Failures:
    """Search for the devices that nothing on this machine disturbs, those of one chip one after the other.

    Returns:
        What failed. Nothing is done where there are fewer than two chips.
    """
    failures: Failures = {}
    chips: dict[str, list[DeviceRun]] = {}
    for device in devices:
        try:
            chip = _chip(device) if device.search.uses_device else None
        except HwnasError as error:
            note_failure(failures, device.name, error, device.run.progress)
            continue
        if chip is not None:
            chips.setdefault(chip, []).append(device)
    if len(chips) < 2:
        return failures

    for device in (each for chip in chips.values() for each in chip):
        if quality_kind(device.search.quality).prepares:  # once, here, not in each of the processes
            prepare_quality(device)
    running: list[subprocess.Popen[bytes]] = []
    ended = Event()

    def search_chip(of_chip: Sequence[DeviceRun]) -> None:
        for device in of_chip:
            if ended.is_set():
                return
            error = search_apart(device, running.append)
            if error is not None and not ended.is_set():
                note_failure(failures, device.name, error, device.run.progress)

    devices[0].run.progress.say(
        "side by side: " + ", ".join(" then ".join(device.name for device in chip) for chip in chips.values())
    )
    with ThreadPoolExecutor(len(chips)) as pool:
        try:
            list(pool.map(search_chip, chips.values()))
        except BaseException:
            ended.set()
            for process in running:
                process.terminate()
            raise
    return failures


def _chip(device: DeviceRun) -> str | None:
    """The hardware that a search occupies; None for this machine's own CPU.

    The device goes when this returns, and with it what it held of a cluster to be able to tell.
    """
    opened = open_device(device.target.profile, device.target.cluster)
    return None if opened.needs_quiet_host else opened.lock_name or device.name


def compare_devices(
    run: Run, done: Sequence[DeviceRun], found: Found, failures: MutableMapping[str, HwnasError]
) -> Comparison:
    """Measure each device's picks on every other one. What was measured before is remembered.

    A device on which that fails has the reason in its cells. Devices are told apart by what is measured on
    them, so one whose objectives are only counted is left out.

    Args:
        done: devices that have a front.
        found: of them.
        failures: what could not be done, by device; those of measuring are put into it.
    """
    picks = _picks(found)
    rows = {row.choices: row for front, _ in found.values() for row in front.front}
    fronts, cells = [], dict[str, dict[Choices, OnDevice]]()
    for device in done:
        if not device.search.measures:
            continue
        front = _front(device.search, found[device.name][0])
        try:
            measured = _measured(device, list(picks))
        except HwnasError as error:
            failures[device.name] = error
            run.progress.say(
                f"the other devices' networks could not be measured on {device.name}: {error.cause}"
            )
            measured = {choices: OnDevice(reason=error.cause) for choices in picks}
        cells[device.name] = {
            choices: _with_excess(measured[choices], rows[choices].loss, front) for choices in picks
        }
        fronts.append(front)
    return Comparison(
        model=run.settings.model,
        metric=run.reference.task.metric,
        fronts=tuple(fronts),
        picked=tuple(
            _picked(rows[choices], best_for, {name: of_device[choices] for name, of_device in cells.items()})
            for choices, best_for in picks.items()
        ),
        failed={name: error.cause for name, error in failures.items()},
        quality=done[0].search.quality if done else SearchSettings.quality,
    )


def _front(search: SearchSettings, front: FrontRecord) -> DeviceFront:
    cost: Any = search.objectives[_column(search)]
    assert front.fingerprint is not None, "what is measured has a fingerprint"
    return DeviceFront(
        device=front.device,
        chip=front.fingerprint.chip,
        cost=cost,
        points=tuple(
            FrontPoint(choices=row.choices, loss=row.loss, cost_ratio=row.cost_ratios[cost])
            for row in front.front
        ),
        anchor=front.anchor,
    )


def _column(search: SearchSettings) -> int:
    """Which of the objectives is compared."""
    return next(i for i, name in enumerate(search.objectives) if name in MEASURED)


def _picks(found: Found) -> dict[Choices, dict[str, list[Summary]]]:
    """The checkpoints by network and device."""
    picks: dict[Choices, dict[str, list[Summary]]] = {}
    for device, (_, checkpoints) in found.items():
        for summary in checkpoints:
            picks.setdefault(summary.choices, {}).setdefault(device, []).append(summary)
    return picks


def _picked(
    row: FrontRow, best_for: Mapping[str, Sequence[Summary]], on: dict[str, OnDevice]
) -> PickedArchitecture:
    summary = next(summary for summaries in best_for.values() for summary in summaries)
    return PickedArchitecture(
        choices=row.choices,
        parts=row.parts,
        loss=row.loss,
        macs=summary.macs,
        params=summary.params,
        accuracy=summary.accuracy,
        best_for={name: tuple(each.pick for each in summaries) for name, summaries in best_for.items()},
        on=on,
    )


def _measured(device: DeviceRun, wanted: Sequence[Choices]) -> dict[Choices, OnDevice]:
    """The networks on one device, by its own protocol and beside its own anchor."""
    stitcher, found = device.stitcher, dict[Choices, OnDevice]()
    for choices in wanted:
        held = {name for key in enumerate(choices) for name in stitcher.refused.get(key, ())}
        if held:
            found[choices] = OnDevice(reason=f"it forbids {', '.join(sorted(held))}")
    accepted = [choices for choices in wanted if choices not in found]
    device.run.progress.say(f"{len(accepted)} picked networks on {device.name}")
    with device.session(device.target.protocol) as session:
        costs = MeasuredCosts(session, stitcher, device.search.objectives)
        for choices, cost in zip(accepted, costs(accepted), strict=True):
            if isinstance(cost, str):
                found[choices] = OnDevice(reason=cost)
            else:
                latency_ms = costs.measurements[choices].latency_ms
                found[choices] = OnDevice(cost_ratio=cost[_column(device.search)], latency_ms=latency_ms)
    return found


def _with_excess(found: OnDevice, loss: float, front: DeviceFront) -> OnDevice:
    if found.cost_ratio is None:
        return found
    known = [point.cost_ratio for point in front.points if point.loss <= loss]
    return replace(found, excess=found.cost_ratio / min([found.cost_ratio, *known]) - 1)
