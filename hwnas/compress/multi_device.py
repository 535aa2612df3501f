"""One library, many devices: searched side by side where they do not disturb each other."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from hwnas.compress.emit.cross_device import Comparison, DeviceFront, FrontPoint, OnDevice, Picked
from hwnas.compress.emit.summary import Summary
from hwnas.compress.executor import Executor
from hwnas.compress.library.stitch import Choices
from hwnas.compress.pipeline import Job, Wanted, Workshop, compress_for, open_workshop, quality_for
from hwnas.compress.report.cross_device import write_comparison
from hwnas.compress.search.costs import measured_costs
from hwnas.compress.search.search import Target, measurements_file
from hwnas.compress.search_process import search_apart
from hwnas.compress.settings import MEASURED, SearchSettings
from hwnas.errors import HwnasError, InputError
from hwnas.files import decode, encode
from hwnas.measurement import Measurement
from hwnas.page import is_available
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.progress import Progress

Failures = dict[str, HwnasError]
"""What could not be done, by the device's name."""

SCHEMA = "hwnas.devices/1"


def compress_all(
    job: Job,
    wanted: Sequence[Wanted],
    out: Path,
    command: str,
    progress: Progress,
    executor: Executor | None = None,
    *,
    allow_code: bool,
) -> tuple[dict[str, Any], Failures]:
    """Compress a model for several devices, going on from whatever the run directory already holds.

    First the searches of devices that leave this machine's CPU alone, side by side, one at a time on each
    chip. Then, one device after the other with nothing beside it, what is left to search and the checkpoints:
    finetuning takes all cores, and measuring this machine wants them idle. Last, every picked network is
    measured on every device.

    Returns:
        Plain data: what `compress` gives for each device, the comparison of the devices, and its report's
        path; and what could not be done. Other devices are not touched by that, and a device that only does
        not reach a pick is among both.

    Raises:
        HwnasError: the library could not be made, or a device refuses every candidate of a block.
    """
    names = [target.profile.name for _, target in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--device {', '.join(twice)} is given twice", "name each device once")
    results: dict[str, Any] = {}
    with open_workshop(job, wanted, out, progress, executor) as workshop:
        failures = _search_side_by_side(workshop, wanted, progress, allow_code=allow_code)
        for search, target in wanted:
            name = target.profile.name
            if name in failures:
                continue
            progress.say(f"{name}:")
            try:
                results[name], unreached = compress_for(workshop, search, target, command, progress)
                if unreached is not None:
                    raise unreached
            except HwnasError as error:
                _fail(failures, name, error, progress)
        done = [pair for pair in wanted if pair[1].profile.name in results]
        comparison = compare_devices(workshop, done, results, failures, progress)
        comparison.save(out)
        report = write_comparison(out) if is_available() else None
    return {
        "schema": SCHEMA,
        "run": str(out),
        "devices": results,
        "failed": {name: error.cause for name, error in failures.items()},
        "comparison": encode(comparison),
        "report": None if report is None else str(report),
    }, failures


def failure_of(failures: Mapping[str, HwnasError]) -> HwnasError:
    """What a batch says at its end that could not do everything."""
    causes = "; ".join(f"{name}: {error.cause}" for name, error in failures.items())
    fixes = dict.fromkeys(error.fix for error in failures.values())
    return HwnasError(
        f"not everything could be done: {causes}",
        f"{'; '.join(fixes)}. The same command then does only what is missing",
    )


def _search_side_by_side(
    workshop: Workshop, wanted: Sequence[Wanted], progress: Progress, *, allow_code: bool
) -> Failures:
    """The searches that nothing on this machine disturbs, those of one chip one after the other."""
    failures: Failures = {}
    chips: dict[str, list[Wanted]] = {}
    for search, target in wanted:
        try:
            chip = _chip(target) if search.uses_device else None
        except HwnasError as error:
            _fail(failures, target.profile.name, error, progress)
            continue
        if chip is not None:
            chips.setdefault(chip, []).append((search, target))
    if len(chips) < 2:
        return failures

    for search, target in (pair for chip in chips.values() for pair in chip):
        if search.quality == "predictor":  # its networks are finetuned once, here, and not by each of them
            quality_for(workshop, search, target, progress)
    running: list[subprocess.Popen[bytes]] = []
    ended = Event()

    def search_chip(of_chip: Sequence[Wanted]) -> None:
        for search, target in of_chip:
            if ended.is_set():
                return
            error = search_apart(workshop, search, target, progress, running.append, allow_code=allow_code)
            if error is not None and not ended.is_set():
                _fail(failures, target.profile.name, error, progress)

    progress.say(
        "side by side: "
        + ", ".join(" then ".join(target.profile.name for _, target in chip) for chip in chips.values())
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


def _chip(target: Target) -> str | None:
    """The hardware that a search occupies; None for this machine's own CPU.

    The device goes when this returns, and with it what it held of a cluster to be able to tell.
    """
    device = open_device(target.profile, target.cluster)
    return None if device.needs_quiet_host else device.lock_name or target.profile.name


def _fail(failures: Failures, name: str, error: HwnasError, progress: Progress) -> None:
    failures[name] = copy(error)  # without its traceback, whose frames may hold a GPU's memory
    progress.say(f"{name}: {error.cause}; the others go on")


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
