"""The whole way, step by step: each one finds what is already there and does the rest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwnas.compress.emit.cross_device import Comparison
from hwnas.compress.emit.emit import Emitted, emit_checkpoints
from hwnas.compress.emit.picking import require_targets
from hwnas.compress.emit.summary import Summary
from hwnas.compress.executor import Executor
from hwnas.compress.library.candidates import architecture_count
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.open_run import Inputs, open_run, stage_count
from hwnas.compress.library.target import Target
from hwnas.compress.multi_device import Failures, compare_devices, note_failure, search_side_by_side
from hwnas.compress.quality.model import prepare_quality, refit, require_judged
from hwnas.compress.report import write_report
from hwnas.compress.report.cross_device import write_comparison
from hwnas.compress.search.record import FRONT_SCHEMA, FrontRecord
from hwnas.compress.search.search import search_device
from hwnas.compress.settings import SearchSettings
from hwnas.errors import HwnasError, InputError
from hwnas.files import encode
from hwnas.measurement import Interval
from hwnas.page import INSTALL, is_available
from hwnas.progress import Progress

SCHEMA = "hwnas.compressed/2"


@dataclass(frozen=True, kw_only=True)
class DeviceResult:
    """What a run found for one device.

    Attributes:
        checkpoints: their folders, and what they say.
        report: None where it could not be written.
    """

    front: FrontRecord
    checkpoints: tuple[tuple[Path, Summary], ...]
    report: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `hwnas compress --json` prints it of a device."""
        return {
            "front": {"schema": FRONT_SCHEMA, **encode(self.front)},
            "checkpoints": [{"path": str(path), **encode(summary)} for path, summary in self.checkpoints],
            "report": None if self.report is None else str(self.report),
        }


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run found.

    Attributes:
        run: its directory.
        accuracy: of the reference; None without labels.
        candidates, architectures: of the block library.
        devices: by name, those that have a front.
        failures: what could not be done, by device; one that only does not reach a pick is among both.
        comparison, report: of several devices; None for one.
    """

    run: Path
    model: str
    accuracy: Interval | None
    candidates: int
    architectures: int
    devices: dict[str, DeviceResult] = field(default_factory=dict)
    failures: Failures = field(default_factory=dict)
    comparison: Comparison | None = None
    report: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema's name and version; see docs/json.md."""
        return {
            "schema": SCHEMA,
            "run": str(self.run),
            "reference": {
                "model": self.model,
                "onnx": str(self.run / "reference" / "model.onnx"),
                "accuracy": None if self.accuracy is None else encode(self.accuracy),
            },
            "space": {"candidates": self.candidates, "architectures": self.architectures},
            "devices": {name: device.to_json() for name, device in self.devices.items()},
            "failed": {name: error.cause for name, error in self.failures.items()},
            "comparison": None if self.comparison is None else encode(self.comparison),
            "report": None if self.report is None else str(self.report),
        }

    def require_all(self) -> None:
        """Raise what could not be done, if anything."""
        if not self.failures:
            return
        if len(self.devices | self.failures) == 1:
            raise next(iter(self.failures.values()))
        causes = "; ".join(f"{name}: {error.cause}" for name, error in self.failures.items())
        fixes = dict.fromkeys(error.fix for error in self.failures.values())
        raise HwnasError(
            f"not everything could be done: {causes}",
            f"{'; '.join(fixes)}. The same command then does only what is missing",
        )


def require_suited(inputs: Inputs, searches: Sequence[SearchSettings]) -> None:
    """Refuse searches that want of task and data what they have not. Raises InputError."""
    for search in searches:
        require_judged(search, inputs.initial.task, has_targets=inputs.data.has_targets)
        require_targets(search, inputs.data)


def compress(
    inputs: Inputs,
    wanted: Sequence[tuple[SearchSettings, Target]],
    out: Path,
    command: str,
    progress: Progress,
    executor: Executor | None = None,
) -> Result:
    """Compress a model for devices, going on from whatever the run directory already holds.

    First the searches of devices that leave this machine's CPU alone, side by side, one at a time on each
    chip. Then, one device after the other with nothing beside it, what is left to search and the checkpoints:
    finetuning takes all cores, and measuring this machine wants them idle. Last, every picked network of
    several devices is measured on every one.

    Args:
        wanted: a search and its checked target for each device.
        out: the run directory.
        command: that the user gave, for the model cards.
        executor: distils; this process where None.

    Raises:
        HwnasError: the library could not be made, or a device refuses every candidate of a block, or what
            the only device met; what was finished stays in the run directory. Of several devices one that
            fails leaves the others, and is among the result's failures.
    """
    names = [target.profile.name for _, target in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--device {', '.join(twice)} is given twice", "name each device once")
    require_suited(inputs, [search for search, _ in wanted])
    results: dict[str, DeviceResult] = {}
    comparison = report = None
    with open_run(inputs, wanted, out, progress, executor) as run:
        devices = [DeviceRun(run=run, search=search, target=target) for search, target in wanted]
        failures = search_side_by_side(devices) if len(devices) > 1 else {}
        for device in (device for device in devices if device.name not in failures):
            stages = Stages(before=2 + 2 * devices.index(device), total=stage_count(len(devices)))
            try:
                results[device.name], unreached = compress_for(device, command, stages)
            except HwnasError as error:
                if len(devices) == 1:
                    raise
                note_failure(failures, device.name, error, progress)
            else:
                if unreached is not None:
                    note_failure(failures, device.name, unreached, progress)
        if len(devices) > 1:
            progress.stage(stage_count(len(devices)), stage_count(len(devices)), "each pick on each device")
            found = {
                name: (result.front, [summary for _, summary in result.checkpoints])
                for name, result in results.items()
            }
            done = [device for device in devices if device.name in results]
            comparison = compare_devices(run, done, found, failures)
            comparison.save(out)
            report = write_comparison(out) if is_available() else None
        candidates = [entry.candidate for entry in run.library.entries()]
        return Result(
            run=out,
            model=run.settings.model,
            accuracy=run.accuracy,
            candidates=len(candidates),
            architectures=architecture_count(candidates),
            devices=results,
            failures=failures,
            comparison=comparison,
            report=report,
        )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where a device stands among the stages of a compression: how many come before, and all of them."""

    before: int
    total: int


def compress_for(device: DeviceRun, command: str, stages: Stages) -> tuple[DeviceResult, InputError | None]:
    """Search for one device of an open run and emit its checkpoints. As `compress`.

    Returns:
        What was found; and why a pick has no checkpoint, where no network of the front reaches it.
    """
    run = device.run
    run.progress.stage(stages.before + 1, stages.total, f"{device.name}: search")
    found = search_device(device, prepare_quality(device))
    run.progress.stage(stages.before + 2, stages.total, f"{device.name}: checkpoints")
    try:
        emitted: Emitted = emit_checkpoints(device, found, command)
    except HwnasError:
        if report := _write_report(device):
            run.progress.say(f"report: {report}")
        raise
    refit(run)
    report = _write_report(device)
    return DeviceResult(front=found, checkpoints=emitted.checkpoints, report=report), emitted.unreached


def _write_report(device: DeviceRun) -> Path | None:
    """Write the device's report; a run does not fail for want of the package that it needs."""
    path, say = device.run.directory.path, device.run.progress.say
    if not is_available():
        say(f"no report without plotly: {INSTALL}, then: hwnas report {shlex.quote(str(path))}")
        return None
    return write_report(path, device.folder)
