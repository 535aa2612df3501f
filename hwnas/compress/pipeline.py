"""The whole way, step by step: each one finds what is already there and does the rest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hwnas.compress.data import Data
from hwnas.compress.data.task import quantity
from hwnas.compress.emit.emit import Emission, emit_checkpoints
from hwnas.compress.executor import Executor, LocalExecutor
from hwnas.compress.library.build import build_library
from hwnas.compress.library.candidates import architecture_count, find_candidates
from hwnas.compress.library.operators import (
    check_device,
    check_exports,
    find_refused,
    require_choices,
    require_exports,
)
from hwnas.compress.library.space import Space, load_space
from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.store import Library, added_candidates
from hwnas.compress.quality.finetune import Finetuner
from hwnas.compress.quality.model import Quality, prepare_quality, refit
from hwnas.compress.reference.prepare import (
    Initial,
    Reference,
    initial_reference,
    open_data,
    prepare_reference,
    read_record,
    require_same_again,
)
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.reference.reloaded import rehearse
from hwnas.compress.report import write_report
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.search.search import Target, require_energy, search_device
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.compress.training import loop
from hwnas.compress.training.placement import (
    require_network,
    require_place,
)
from hwnas.errors import DeviceError, HwnasError, InputError
from hwnas.files import decode, encode, sha256_of_plain
from hwnas.measurement import Interval
from hwnas.network import Network, random_input
from hwnas.networks.architecture import Candidate
from hwnas.networks.checks import require_trainable
from hwnas.networks.exported import own_parts
from hwnas.networks.partition import Partition, partition
from hwnas.page import INSTALL, is_available
from hwnas.progress import Progress

SCHEMA = "hwnas.compressed/1"

CALIBRATION_IMAGES = 64

Wanted = tuple[SearchSettings, Target]
"""One device's search."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be compressed and by what, before anything is done or written."""

    settings: LibrarySettings
    data: Data
    space: Space
    initial: Initial
    parts: Partition
    candidates: tuple[Candidate, ...]

    @property
    def choice_count(self) -> int:
        """The choices of all parts together, the reference's own among them."""
        return len(self.candidates) + len(self.parts.modules)


def open_job(settings: LibrarySettings, progress: Progress, *, allow_code: bool = False) -> Job:
    """Find the data and the reference, cut it, and list its candidates.

    Args:
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: any of them is missing, unknown, or does not fit the others.
    """
    space = load_space(settings.space)
    data = open_data(settings, progress)
    initial = initial_reference(settings, data, allow_code=allow_code, progress=progress)
    data = replace(data, mean=initial.mean, std=initial.std)
    parts = partition(initial.module, data.image_shape, settings.cuts or None)
    require_same_again(initial, data, settings.model, allow_code=allow_code)
    candidates = tuple(find_candidates(parts, space, settings.per_block))
    return Job(settings=settings, data=data, space=space, initial=initial, parts=parts, candidates=candidates)


def job_hashes(job: Job) -> dict[str, str]:
    """Hashes of the contents that a library depends on."""
    return {"data": job.data.hash, "model": job.initial.hash, "space": sha256_of_plain(encode(job.space))}


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A run directory with a complete library, open for any number of devices.

    Attributes:
        accuracy: of the reference; None without labels.
        executor: of the tasks that need no device.
    """

    job: Job
    run: RunDirectory
    library: Library
    reference: Reference
    accuracy: Interval | None
    executor: Executor

    def stitcher(self, target: Target) -> Stitcher:
        """Networks of this library for one device."""
        forbidden, parts = target.profile.forbidden_operators, self.job.parts
        refused = find_refused(parts, self.library.entries(), forbidden) if forbidden else {}
        return Stitcher(parts, self.library, _calibration(self.job.data), refused, self.job.settings.loss)


def compress(
    job: Job,
    search: SearchSettings,
    target: Target,
    out: Path,
    command: str,
    progress: Progress,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Compress a model for a device, going on from whatever the run directory already holds.

    Args:
        target: of the search, checked.
        out: the run directory.
        command: that the user gave, for the model cards.
        executor: distils; this process where None.

    Returns:
        Plain data: the reference, the library's counts, the front, the checkpoints with their summaries,
        and the report's path.

    Raises:
        HwnasError: any of the failures that a user meets; what was finished stays in the run directory.
    """
    with open_workshop(job, [(search, target)], out, progress, executor) as workshop:
        result, unreached = compress_for(workshop, search, target, command, progress)
    if unreached is not None:
        _say_report(result["report"], progress)
        raise unreached
    return result


@contextmanager
def open_workshop(
    job: Job, wanted: Sequence[Wanted], out: Path, progress: Progress, executor: Executor | None = None
) -> Iterator[Workshop]:
    """Open a run directory and make its library complete: no device is involved.

    Args:
        wanted: devices that must suit their searches, which is asked before anything is trained.
        executor: distils; this process where None.

    Raises:
        HwnasError: as `compress`.
    """
    settings, parts, task = job.settings, job.parts, job.initial.task
    executor = executor or LocalExecutor()
    judged = task.agreement_metric if job.data.val.labels is None else task.metric
    right = judged.share and judged.higher_is_better
    if not right and any(search.quality == "predictor" for search, _ in wanted):
        raise InputError(
            f"the predictor expects a share of right answers, {task.name} is judged by {judged.name}",
            "search by the sum of block losses: --quality loss",
        )
    require_place(settings.train_on)
    require_network(settings.train_on, parts.modules, job.data.image_shape)
    loop.tune_allocator()
    torch.set_num_threads(settings.threads)
    if not (out / "reference" / "reference.json").is_file():
        require_trainable(parts.names, parts.modules, random_input((2, *job.data.image_shape)))
        require_exports(parts)
        unstarted = Reference(spec=job.initial.spec, parts=parts, data=job.data, task=task)
        rehearse(parts, unstarted.architecture([None] * len(parts.modules)), job.data)
    with RunDirectory.open(out, settings, job_hashes(job)) as run, Library(run.library) as library:
        library.add([*job.candidates, *added_candidates(out)])
        if any(entry.state == "pending" for entry in library.entries()):
            executor.require(settings.needs)
        check_exports(library, parts, progress)
        refused = [check_device(library, parts, target.profile, progress) for _, target in wanted]
        for target in (target for search, target in wanted if "energy" in search.objectives):
            whole = Network("the reference", own_parts(parts), _calibration(job.data))
            try:
                require_energy(target.profile, whole, target.cluster)
            except DeviceError:
                if len(wanted) == 1:  # one of many that fails leaves the others
                    raise
        reference = prepare_reference(job.initial, parts, run, settings, job.data, progress)
        record = run.reference / "reference.json"
        known = decode(ReferenceRecord, read_record(record), record).accuracy
        _say_reference(reference, known, settings, job.initial.to_train, progress)
        build_library(library, reference, settings, run.account, progress, executor)
        for (_, target), of_target in zip(wanted, refused, strict=True):
            require_choices(parts, library.entries(), of_target, target.profile)
        yield Workshop(
            job=job, run=run, library=library, reference=reference, accuracy=known, executor=executor
        )


@contextmanager
def join_workshop(job: Job, out: Path, lock: int) -> Iterator[Workshop]:
    """The workshop in a process of whoever opened it; `lock` as for `RunDirectory.join`."""
    loop.tune_allocator()
    torch.set_num_threads(job.settings.threads)
    run = RunDirectory.join(out, lock)
    with Library(run.library) as library:
        reference = prepare_reference(job.initial, job.parts, run, job.settings, job.data, Progress())
        yield Workshop(
            job=job, run=run, library=library, reference=reference, accuracy=None, executor=LocalExecutor()
        )


def quality_for(
    workshop: Workshop, search: SearchSettings, target: Target, progress: Progress
) -> tuple[Finetuner, Quality]:
    """What stands for the accuracy in a search, with the networks finetuned that it needs."""
    run, settings = workshop.run, workshop.job.settings
    finetuner = Finetuner(run, workshop.reference, workshop.stitcher(target), settings, progress)
    folder = run.device(target.profile.name)
    return finetuner, prepare_quality(finetuner, search, folder, settings.loss, progress, workshop.executor)


def compress_for(
    workshop: Workshop, search: SearchSettings, target: Target, command: str, progress: Progress
) -> tuple[dict[str, Any], InputError | None]:
    """Search for one device and emit its checkpoints. As `compress`, with the library at hand.

    Returns:
        What `compress` returns; and why a pick has no checkpoint, where no network of the front reaches it.
    """
    run, settings = workshop.run, workshop.job.settings
    finetuner, quality = quality_for(workshop, search, target, progress)
    stitcher = finetuner.stitcher
    outcome = search_device(run, stitcher, quality, settings, search, target, progress)
    emission = Emission(finetuner=finetuner, search=search, target=target, command=command)
    try:
        checkpoints, unreached = emit_checkpoints(emission, outcome)
    except HwnasError:
        _say_report(_report(run, target.profile.name, progress), progress)
        raise
    refit(finetuner, progress)
    report = _report(run, target.profile.name, progress)
    known = workshop.accuracy
    candidates = [entry.candidate for entry in workshop.library.entries()]
    return {
        "schema": SCHEMA,
        "run": str(run.path),
        "reference": {
            "model": settings.model,
            "onnx": str(run.reference / "model.onnx"),
            "accuracy": None if known is None else encode(known),
        },
        "space": {"candidates": len(candidates), "architectures": architecture_count(candidates)},
        "front": outcome.to_json(),
        "checkpoints": [{"path": str(path), **encode(summary)} for path, summary in checkpoints],
        "report": report,
    }, unreached


def _say_reference(
    reference: Reference,
    known: Interval | None,
    settings: LibrarySettings,
    trained: bool,
    progress: Progress,
) -> None:
    """Say how accurate the reference is; `known` is None without labels."""
    data, parts, metric = reference.data, reference.parts, reference.task.metric
    if known is not None and data.class_names and known.low <= 1 / len(data.class_names):
        fix = "--train-epochs N trains it longer" if trained else "--weights none trains it on the data first"
        progress.say(f"the reference only guesses; {fix}")
    progress.say(
        f"reference: {settings.model}, {metric.name} {quantity(known, metric)}; {len(parts.modules)} parts, "
        f"composed they differ from the whole by {parts.max_abs_difference:.1g} at most"
    )


def _say_report(report: str | None, progress: Progress) -> None:
    if report is not None:
        progress.say(f"report: {report}")


def _report(run: RunDirectory, device: str, progress: Progress) -> str | None:
    """Write the device's report; a run does not fail for want of the package that it needs."""
    if not is_available():
        progress.say(f"no report without plotly: {INSTALL}, then: hwnas report {shlex.quote(str(run.path))}")
        return None
    return str(write_report(run.path, run.device(device)))


def _calibration(data: Data) -> Any:
    return data.normalize(data.train.pixels[:CALIBRATION_IMAGES]).contiguous().numpy()
