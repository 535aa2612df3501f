"""What is to be compressed is found; a run directory is opened, and its library made complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hwnas.compress.data import Data
from hwnas.compress.executor import Executor, LocalExecutor
from hwnas.compress.library.build import build_library
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.operators import (
    Refused,
    check_device,
    check_exports,
    require_choices,
    require_exports,
)
from hwnas.compress.library.out_of_memory import BLOCK_TRAINERS
from hwnas.compress.library.run import Run
from hwnas.compress.library.space import Space, load_space
from hwnas.compress.library.store import Library, added_candidates
from hwnas.compress.library.target import Target, calibration_images, require_runs
from hwnas.compress.reference.prepare import (
    Initial,
    Reference,
    initial_reference,
    open_data,
    prepare_reference,
    require_same_again,
    require_same_blocks,
)
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.reference.reloaded import rehearse
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.compress.tasks.task import Task, quantity
from hwnas.compress.training import loop
from hwnas.compress.training.placement import require_network, require_place
from hwnas.errors import InputError
from hwnas.files import encode, sha256_of_plain
from hwnas.network import random_input
from hwnas.networks.architecture import Candidate
from hwnas.networks.build import assemble
from hwnas.networks.checks import require_trainable
from hwnas.networks.exported import own_network
from hwnas.networks.partition import Partition, partition
from hwnas.networks.sizes import at_size
from hwnas.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is to be compressed and by what, before anything is done or written.

    Attributes:
        allow_code: whether a checkpoint may import the `module:function` that it names.
        parts, measured: with images of the sizes at which networks are trained and measured.
    """

    settings: LibrarySettings
    allow_code: bool
    data: Data
    space: Space
    initial: Initial
    parts: Partition
    measured: Partition
    candidates: tuple[Candidate, ...]

    @property
    def reference(self) -> Reference:
        """The reference as it was found."""
        return Reference(
            spec=self.initial.spec,
            parts=self.parts,
            data=self.data,
            task=self.initial.task,
            sized=None if self.measured is self.parts else self.measured,
            whole_classifier=self.initial.whole_classifier,
        )

    @property
    def choice_count(self) -> int:
        """The choices of all parts together, the reference's own among them."""
        return len(self.candidates) + len(self.parts.modules)

    @property
    def hashes(self) -> dict[str, str]:
        """Hashes of the contents that a library depends on."""
        return {
            "data": self.data.hash,
            "model": self.initial.hash,
            "space": sha256_of_plain(encode(self.space)),
        }


def open_inputs(settings: LibrarySettings, progress: Progress, *, allow_code: bool = False) -> Inputs:
    """Find the data and the reference, cut it, and list its candidates.

    Args:
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: any of them is missing, unknown, or does not fit the others.
    """
    BLOCK_TRAINERS.load(settings.trainer)
    space = load_space(settings.space)
    data = open_data(settings, progress)
    initial = initial_reference(settings, data, allow_code=allow_code, progress=progress)
    data = replace(data, mean=initial.mean, std=initial.std)
    parts = partition(initial.module, data.image_shape, settings.blocks)
    measured = at_size(initial.module, parts, _measured_size(settings, initial.task, data))
    require_same_again(initial, data, settings.model, allow_code=allow_code)
    return Inputs(
        settings=settings,
        allow_code=allow_code,
        data=data,
        space=space,
        initial=initial,
        parts=parts,
        measured=measured,
        candidates=tuple(find_candidates(measured, space, settings.per_block, parts)),
    )


def stage_count(devices: int) -> int:
    """Return how many stages a compression has: two, two for each device, and a comparison of several."""
    return 2 + 2 * devices + (devices > 1)


@contextmanager
def open_run(
    inputs: Inputs,
    wanted: Sequence[tuple[SearchSettings, Target]],
    out: Path,
    progress: Progress,
    executor: Executor | None = None,
) -> Iterator[Run]:
    """Open a run directory and make its library complete: no device is involved.

    Args:
        wanted: devices that must suit their searches, which is asked before anything is trained.
        executor: distils; this process where None.

    Raises:
        HwnasError: any of the failures that a user meets; what was finished stays in the run directory.
    """
    executor = executor or LocalExecutor()
    progress.stage(1, stage_count(len(wanted)), "the reference, and a check of all candidates")
    _require_trainable(inputs, out)
    parts = inputs.parts
    with (
        RunDirectory.open(out, inputs.settings, inputs.hashes) as directory,
        Library(directory.library) as library,
    ):
        require_same_blocks(parts, directory)
        library.add([*inputs.candidates, *added_candidates(out)])
        is_pending = any(entry.state == "pending" for entry in library.entries())
        if is_pending:
            executor.require(inputs.settings.needs)
        check_exports(library, parts, inputs.measured, progress)
        refused = [check_device(library, inputs.measured, target.profile, progress) for _, target in wanted]
        if is_pending:
            _require_runs(inputs, wanted, refused, progress)
        run = run_of(inputs, directory, library, progress, executor)
        _say_reference(run, inputs.initial.to_train)
        progress.stage(2, stage_count(len(wanted)), "candidates are distilled")
        build_library(run)
        for (_, target), of_target in zip(wanted, refused, strict=True):
            require_choices(parts, library.entries(), of_target, target.profile)
        yield run


@contextmanager
def join_run(inputs: Inputs, out: Path, lock: int, progress: Progress) -> Iterator[Run]:
    """Open a run in a process of whoever opened it; `lock` as for `RunDirectory.join`."""
    loop.tune_allocator()
    torch.set_num_threads(inputs.settings.threads)
    directory = RunDirectory.join(out, lock)
    with Library(directory.library) as library:
        yield run_of(inputs, directory, library, progress, LocalExecutor())


def run_of(
    inputs: Inputs, directory: RunDirectory, library: Library, progress: Progress, executor: Executor
) -> Run:
    """Return the run in an open directory, with the reference trained and stored, or restored."""
    reference = prepare_reference(inputs.initial, inputs.reference, directory, inputs.settings, progress)
    return Run(
        settings=inputs.settings,
        allow_code=inputs.allow_code,
        directory=directory,
        reference=reference,
        accuracy=ReferenceRecord.read(directory.reference).accuracy,
        library=library,
        executor=executor,
        progress=progress,
    )


def _measured_size(settings: LibrarySettings, task: Task, data: Data) -> tuple[int, ...]:
    """(H, W) of what a network is given when it is measured. Raises InputError: no multiple of the scale."""
    if not settings.measure_size:
        return data.image_shape[1:]
    scale = task.enlarges
    if any(side % scale for side in settings.measure_size):
        nearest = "x".join(str(side // scale * scale or scale) for side in settings.measure_size)
        raise InputError(
            f"images of {settings.measure_size[1]} × {settings.measure_size[0]} pixels cannot be {scale} "
            "times as large as what the network is given",
            f"give multiples: --measure-size {nearest}",
        )
    return tuple(side // scale for side in settings.measure_size)


def prepare_training(inputs: Inputs) -> None:
    """Set this process up for training. Raises InputError: nothing can be trained where the settings say."""
    require_place(inputs.settings.train_on)
    require_network(
        inputs.settings.train_on, assemble(inputs.parts, inputs.parts.modules), inputs.data.image_shape
    )
    loop.tune_allocator()
    torch.set_num_threads(inputs.settings.threads)


def _require_trainable(inputs: Inputs, out: Path) -> None:
    """Refuse what could not be trained, exported or loaded again, before anything is trained."""
    parts = inputs.parts
    prepare_training(inputs)
    if not (out / "reference" / "reference.json").is_file():
        x = random_input((2, *inputs.data.image_shape))
        require_trainable(parts.ordered(parts.modules), parts.wiring, x)
        require_exports(inputs.measured)
        rehearse(
            parts, inputs.measured, inputs.reference.architecture([None] * len(parts.modules)), inputs.data
        )


def _require_runs(
    inputs: Inputs,
    wanted: Sequence[tuple[SearchSettings, Target]],
    refused: Sequence[Refused],
    progress: Progress,
) -> None:
    """Refuse devices that cannot run the reference, where a search needs it; of many, one may be left."""
    images = calibration_images(inputs.data, inputs.measured.image_shape)
    whole = own_network(inputs.measured, "the reference", images)
    failures: list[InputError] = []
    for (search, target), of_target in zip(wanted, refused, strict=True):
        is_accepted = not any(choice == 0 for _, choice in of_target)
        try:
            if search.uses_device and is_accepted:
                require_runs(target, whole, energy="energy" in search.objectives)
        except InputError as error:
            failures.append(error)
    if failures and len(failures) == len(wanted):
        raise failures[0]
    for failure in failures:
        progress.say(failure.cause)


def _say_reference(run: Run, trained: bool) -> None:
    reference, known = run.reference, run.accuracy
    data, parts, metric = reference.data, reference.parts, reference.task.metric
    if known is not None and data.class_names and known.low <= 1 / len(data.class_names):
        fix = "--train-epochs N trains it longer" if trained else "--weights none trains it on the data first"
        run.progress.say(f"the reference only guesses; {fix}")
    run.progress.say(
        f"reference: {run.settings.model}, {metric.name} {quantity(known, metric)}; "
        f"{len(parts.order)} parts, composed they differ from the whole by "
        f"{parts.max_abs_difference:.1g} at most"
    )
