"""Finetuning networks that were stitched from the library; each is trained once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from hwnas.compress.data import Data
from hwnas.compress.executor import Executor, LocalExecutor, OnProgress
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.run import Run
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.library.worker import TrainingContext
from hwnas.compress.quality.finetuned import Finetuned, FinetunedNetworks, finetuned_name
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.task import KEPT, Measure, Task
from hwnas.compress.training import loop
from hwnas.compress.training.all_classes import has_classifier, with_all_classes
from hwnas.compress.training.intervals import mean_score, measured
from hwnas.compress.training.placement import placed
from hwnas.measurement import Interval
from hwnas.networks.blocks.families import CandidateSpec
from hwnas.networks.build import assemble, build_part

FINETUNE_LEARNING_RATE = 5e-4  # AdamW, batches of 64; docs/networks.md


@dataclass(frozen=True, kw_only=True)
class Stitched:
    """A network to be finetuned.

    Attributes:
        specs: of each part; None for the reference's own.
        state: the weights of the whole network.
    """

    choices: Choices
    epochs: int
    specs: tuple[CandidateSpec | None, ...]
    state: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A finetuned network: its weights, and how good it is on the part `val`, as in `Finetuned`."""

    state: dict[str, Tensor]
    accuracy: Interval | None
    agreement: Interval


def finetune_network(context: TrainingContext, network: Stitched, on_progress: OnProgress) -> Tuned:
    """Finetune a network against the reference's output, its logits of all classes that it knows among them.

    Args:
        on_progress: told each finished epoch and its loss.

    Raises:
        HwnasError: the loss became NaN or infinite.
    """
    reference, settings = context.reference, context.settings
    parts, data, teacher, task = reference.parts, reference.data, reference.module(), reference.task
    # Copied together: weights that several parts share stay shared.
    module = assemble(parts, deepcopy([build_part(parts, n, spec) for n, spec in enumerate(network.specs)]))
    module.load_state_dict(network.state)
    is_settled = loop.settle(module, teacher, data, task, settings.batch_size)
    scratch = context.scratch
    whole = reference.whole_classifier
    if task is not CLASSIFICATION or not has_classifier(module, whole):
        whole = {}
    classes = data.imagenet if whole else ()
    knowing = deepcopy(teacher) if whole else teacher  # its parts are the reference's
    with placed(data.place, knowing), with_all_classes([module, knowing], whole, classes):
        loop.fit(
            module,
            data,
            loop.distillation_loss(knowing, task, classes, reference.answers),
            epochs=network.epochs,
            batch_size=settings.batch_size,
            learning_rate=FINETUNE_LEARNING_RATE,
            seed=settings.seed,
            state_file=scratch and _state_file(scratch, network.choices, network.epochs),
            progress=on_progress,
            keeps_statistics=not is_settled,
        )
    loop.settle(module, teacher, data, task, settings.batch_size)
    return Tuned(
        state={key: value.contiguous() for key, value in module.state_dict().items()},
        accuracy=quality_on_val(module, teacher, data, task),
        agreement=mean_score(loop.agreement(module, teacher, data, task, data.val)),
    )


def quality_on_val(module: nn.Module, teacher: nn.Module, data: Data, task: Task) -> Interval | None:
    """How good a network is, by `Task.judged`, on the part `val`; None without targets."""
    evidence, kept = loop.scores(module, data, task, data.val), task.kept
    if evidence is None or kept is None:
        return measured(evidence, task.measure)
    both = evidence, loop.scores(teacher, data, task, data.val)
    return measured(both, Measure(metric=KEPT, total=lambda pair: kept(*pair)))


def finetuned_networks(run: Run) -> FinetunedNetworks:
    """Return what was finetuned so far, for any device and any purpose."""
    return FinetunedNetworks(run.directory.architectures)


def finetune(
    device: DeviceRun, choices: Choices, epochs: int, progress: Callable[[int, float], None]
) -> tuple[nn.Module, Finetuned]:
    """Return a network's finetuned module, in eval mode, and its record; trained here where it is not there.

    Args:
        progress: called after each epoch with its number and the loss.

    Raises:
        HwnasError: the loss became NaN or infinite.
    """
    networks = finetuned_networks(device.run)
    known = networks.find(choices, epochs)
    if known is None:
        if path := networks.damaged(epochs).get(choices):
            device.run.progress.say(f"{path} or its weights are damaged; finetuned again")
        (known,) = finetune_all(
            device, [choices], epochs, "finetuning", lambda _, *what: progress(*what), LocalExecutor()
        )
    module = device.stitcher.module(choices)
    networks.load(known, module)
    # Also the state of a process that was killed before it removed it.
    _state_file(networks.folder, choices, epochs).unlink(missing_ok=True)
    return module, known


def finetune_all(
    device: DeviceRun,
    choices: Sequence[Choices],
    epochs: int,
    step: Literal["finetuning", "predictor networks"],
    progress: Callable[[Choices, int, float], None],
    executor: Executor,
) -> list[Finetuned]:
    """Finetune networks and keep each as soon as it is done.

    Args:
        step: of the cost log; networks of the predictor serve all devices.
        progress: called after each epoch with the network, the epoch's number and the loss.

    Raises:
        HwnasError: the loss became NaN or infinite.
    """
    run, networks, stitcher = device.run, finetuned_networks(device.run), device.stitcher
    context = TrainingContext(reference=run.reference, settings=run.settings, scratch=networks.folder)
    data = run.reference.data
    images = loop.images_per_epoch(data, run.settings.batch_size)

    def after_epoch(network: Stitched, done: int, loss: float) -> None:
        macs, _ = stitcher.cost(network.choices)
        name = device.name if step == "finetuning" else None
        run.directory.cost_log.record(step, name, images=images, of=len(data.train), macs=macs)
        progress(network.choices, done, loss)

    found = []
    tasks = (_stitched(stitcher, each, epochs) for each in choices)
    for network, tuned in executor.run(finetune_network, context, tasks, after_epoch):
        found.append(networks.store(tuned.state, network.choices, epochs, tuned.accuracy, tuned.agreement))
        _state_file(networks.folder, network.choices, epochs).unlink(missing_ok=True)
    return found


def _stitched(stitcher: Stitcher, choices: Choices, epochs: int) -> Stitched:
    return Stitched(
        choices=choices,
        epochs=epochs,
        specs=tuple(stitcher.spec(part, choice) for part, choice in enumerate(choices)),
        state=stitcher.module(choices).state_dict(),
    )


def _state_file(folder: Path, choices: Choices, epochs: int) -> Path:
    return folder / f".{finetuned_name(choices, epochs)}.safetensors"
