"""From a model's name and its data to a trained reference, cut into parts and stored in the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.composed import Composed
from hwnas.compress.data import Data, load_data
from hwnas.compress.data.channels import with_channels
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.reference.reloaded import confirm_stored
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.checks import check_output, for_task
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.task import Task
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import measured
from hwnas.compress.training.placement import channels_last
from hwnas.errors import InputError, RunDirectoryError, first_line
from hwnas.files import read_bytes, sha256, write_bytes
from hwnas.network import random_input
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.blocks.families import CandidateSpec
from hwnas.networks.build import assemble, build_reference, find_reference, load_pretrained, published_classes
from hwnas.networks.checks import answer_of, is_answer, require_rebuildable
from hwnas.networks.count import count, count_parts
from hwnas.networks.cut_points import input_fix
from hwnas.networks.exported import own_network
from hwnas.networks.find import image_channels, image_size
from hwnas.networks.intact import OF_REFERENCE, REFERENCE_RECORD, reference_hashes, require_intact
from hwnas.networks.partition import Partition
from hwnas.networks.serialize import load_module, save_module
from hwnas.networks.tensors import main_output
from hwnas.networks.weights import IMAGENET_CLASSES, load_weights
from hwnas.progress import Progress
from hwnas.temporary import folder_beside

TRAIN_LEARNING_RATE = 4e-3  # AdamW, batches of 64; chosen on the `val` part of digits


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The trained network to be compressed, in eval mode, cut into parts.

    Attributes:
        sized: the parts with images of the size that is measured; None where that is the data's.
        whole_classifier: its weights for all classes that it knows, by their names in the model, where it is
            narrowed to those of the data; empty otherwise.
        answers: to the batches on which networks are finetuned.
    """

    spec: ReferenceSpec
    parts: Partition
    data: Data
    task: Task = CLASSIFICATION
    sized: Partition | None = None
    whole_classifier: Mapping[str, Tensor] = field(default_factory=dict)
    answers: loop.Answers = field(default_factory=loop.Answers)

    @property
    def measured(self) -> Partition:
        """The parts with images of the size that is measured."""
        return self.sized or self.parts

    def module(self) -> Composed:
        """The whole reference, its parts by name, sharing their weights."""
        return assemble(self.parts, self.parts.modules)

    def architecture(self, specs: Sequence[CandidateSpec | None]) -> ArchitectureSpec:
        """What `architecture.json` says of this reference with some parts replaced."""
        return ArchitectureSpec(
            reference=self.spec,
            regions=self.parts.regions,
            input_shape=self.measured.image_shape,
            parts=tuple(specs),
            mean=self.data.mean,
            std=self.data.std,
            class_names=self.data.class_names,
        )


@dataclass(frozen=True, kw_only=True)
class Initial:
    """A model before anything was trained here.

    Attributes:
        to_train: it has no weights for the data yet.
        mean, std: by which images in 0 … 1 are normalised for its weights, one per channel.
        whole_classifier: as a `Reference`'s.
    """

    spec: ReferenceSpec
    module: nn.Module
    to_train: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: Task
    whole_classifier: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 over the names and values of all tensors."""
        state = self.module.state_dict()
        parts = [sha256(key.encode() + state[key].numpy().tobytes()) for key in sorted(state)]
        return sha256("".join(parts).encode())


def open_data(settings: LibrarySettings, progress: Progress) -> Data:
    """The data that the settings name; without their labels where those are no targets of the task.

    Raises:
        InputError: data or task are missing or unknown.
    """
    task = load_task(settings.task)
    channels = image_channels(settings.model)
    data = load_data(
        settings.data,
        settings.image_size,
        lambda: image_size(settings.model),
        progress,
        channels=channels,
        enlarges=task.enlarges,
        fit=task.fit,
    )
    data = with_channels(data, channels)
    return replace(for_task(task, data, progress), place=settings.train_on)


def initial_reference(
    settings: LibrarySettings, data: Data, *, allow_code: bool, progress: Progress | None = None
) -> Initial:
    """Find the model and the weights that the settings name.

    Args:
        allow_code: let a checkpoint import the `module:function` that it names.
        progress: hears which weights of a file are taken, and how they are made to fit.

    Raises:
        InputError: what is missing, or does not fit the data.
    """
    task = load_task(settings.task)
    classes = task.outputs(data)
    spec = find_reference(settings.model, classes, data.image_shape[1])
    torch.manual_seed(settings.seed)
    weights = settings.weights
    published = published_classes(spec)
    rows = data.imagenet if spec.source == "timm" else ()
    narrowed = rows if published == IMAGENET_CLASSES else ()
    fits = published is not None and (bool(narrowed) or published == (classes or published))
    if weights == "auto":
        weights = ("pretrained" if fits else "none") if spec.source == "timm" else "given"
    whole: Mapping[str, Tensor] = {}
    if weights == "pretrained":
        (module, whole), to_train = load_pretrained(spec, narrowed), not fits
    elif weights == "given" and spec.source == "checkpoint":
        module, to_train = load_module(settings.model, allow_code=allow_code), False
    else:
        module = build_reference(spec, allow_code=allow_code or spec.source == "function")
        to_train = weights == "none"
    if weights not in ("pretrained", "given", "none"):
        whole = load_weights(module, Path(weights), rows, progress)
    _check_output(task, module, data, settings.model)
    if to_train and task.loss is None:
        raise InputError(
            f"{settings.model} has no weights, and {task.name} has no loss to train it with",
            "give its weights: --weights FILE; or a task with a loss (docs/tasks.md)",
        )
    if to_train and not data.has_targets:
        raise InputError(
            f"{settings.model} has no weights, and {data.name} has no labels to train it with",
            "give its weights: --weights FILE",
        )
    mean, std = _normalization(spec, module, weights, data)
    return Initial(
        spec=spec, module=module, to_train=to_train, mean=mean, std=std, task=task, whole_classifier=whole
    )


def require_same_again(initial: Initial, data: Data, model: str, *, allow_code: bool) -> None:
    """Build the reference a second time, as whoever loads it does, and give it the weights of the first.

    Args:
        model: as the user names it, for messages.

    Raises:
        InputError: it is another network then.
    """
    with torch.random.fork_rng(devices=[]):
        again = build_reference(initial.spec, allow_code=allow_code or initial.spec.source == "function")
    require_rebuildable(initial.module, again, random_input((2, *data.image_shape)), model)


def require_same_blocks(parts: Partition, run: RunDirectory) -> None:
    """Make sure that a run's reference was taken apart where `parts` are, if it was at all.

    Raises:
        RunDirectoryError: it has other blocks, to which the candidates of its library belong.
    """
    if not (run.reference / REFERENCE_RECORD).is_file():
        return
    known = ReferenceRecord.read(run.reference).regions
    if known and known != parts.regions:
        raise RunDirectoryError(
            f"the reference of {run.path} was taken apart into other blocks, by another version of hwnas",
            "start anew with --out PATH, or go on with the version that began it",
        )


def prepare_reference(
    initial: Initial, reference: Reference, run: RunDirectory, settings: LibrarySettings, progress: Progress
) -> Reference:
    """Train the reference where it needs it and store it; once for a run.

    Its record is written once it was loaded anew in a fresh process and gave what the record says.

    Args:
        reference: of the initial module, whose parts hold its weights afterwards, channels last.

    Raises:
        RunDirectoryError: the stored reference is damaged, or its code has changed.
        HwnasError: what was stored is another network than the trained one.
    """
    parts, data, at_size = reference.parts, reference.data, reference.measured
    module = reference.module()
    state_file = run.reference / "training.safetensors"
    if (run.reference / REFERENCE_RECORD).is_file():
        _restore(reference, module, run, settings.model)
        state_file.unlink(missing_ok=True)  # of a process that was killed before it removed it
        return reference
    if initial.to_train:
        progress.say(f"{settings.model} has no weights for {data.name}: it is trained first")
        macs, _ = count(module, data.image_shape)
        images = loop.images_per_epoch(data, settings.batch_size)

        def after_epoch(done: int, loss: float) -> None:
            run.cost_log.record("reference training", images=images, of=len(data.train), macs=macs)
            progress.advance("train reference", done, settings.train_epochs, f"loss {loss:.3f}")

        loop.fit(
            module,
            data,
            loop.target_loss(reference.task),
            epochs=settings.train_epochs,
            batch_size=settings.batch_size,
            learning_rate=TRAIN_LEARNING_RATE,
            seed=settings.seed,
            state_file=state_file,
            progress=after_epoch,
        )
    channels_last(module)
    scores = loop.scores(module, data, reference.task)
    costs = count_parts(at_size)
    with folder_beside(run.reference) as folder:
        save_module(module, folder / "model.safetensors")
        reference.architecture([None] * len(parts.modules)).save(folder / "architecture.json")
        write_bytes(folder / "model.onnx", own_network(at_size, settings.model).onnx())
        ReferenceRecord(
            **reference_hashes(folder),
            answer=answer_of(module, at_size.image_shape),
            trained_epochs=settings.train_epochs if initial.to_train else 0,
            metric=reference.task.metric,
            accuracy=measured(scores, reference.task.measure),
            parts=tuple(parts.names),
            macs=tuple(macs for macs, _ in costs.parts),
            params=tuple(params for _, params in costs.parts),
            shared=tuple(parts.shared),
            joints=costs.joints,
            regions=parts.regions,
            partition_max_abs_difference=parts.max_abs_difference,
        ).write(folder)
        confirm_stored(folder, module, data, shape=at_size.image_shape)
        for name in (*OF_REFERENCE, REFERENCE_RECORD):  # the record last: it says that all is there
            (folder / name).replace(run.reference / name)
    state_file.unlink(missing_ok=True)
    return reference


def _restore(reference: Reference, module: nn.Module, run: RunDirectory, model: str) -> None:
    """Give a module the stored weights, and write again what is lost and follows from them.

    Raises:
        RunDirectoryError: the stored reference is damaged, or its code has changed.
    """
    weights, graph = run.reference / "model.safetensors", run.reference / "model.onnx"
    known = ReferenceRecord.read(run.reference)
    if sha256(read_bytes(weights)) != known.weights_sha256:
        raise RunDirectoryError(
            f"{weights} is not the file that this run wrote", "restore it, or start anew with --out PATH"
        )
    load_weights(module, weights)
    channels_last(module)
    if known.answer is not None and not is_answer(module, reference.measured.image_shape, known.answer):
        raise RunDirectoryError(
            f"{model} is not the network of {run.path}: with the same weights it answers otherwise",
            "restore its code as it was, or start anew with --out PATH",
        )
    if not graph.is_file() or sha256(read_bytes(graph)) != known.onnx_sha256:
        write_bytes(graph, own_network(reference.measured, model).onnx())
    architecture = run.reference / "architecture.json"
    if not architecture.is_file() or known.architecture_sha256 != sha256(read_bytes(architecture)):
        reference.architecture([None] * len(reference.parts.modules)).save(architecture)


def _normalization(
    spec: ReferenceSpec, module: nn.Module, weights: str, data: Data
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the weights were trained with.

    They are those in the `architecture.json` beside a weights file, a checkpoint's own, or those that timm
    says in a model's `pretrained_cfg`; the data's for a network that is trained here or does not say.
    """
    if weights == "none":
        return data.mean, data.std
    beside = Path(weights).with_name("architecture.json")
    if weights not in ("pretrained", "given") and beside.is_file():
        require_intact(beside)
        architecture = ArchitectureSpec.read(beside)
        return architecture.mean, architecture.std
    if spec.architecture is not None:
        return spec.architecture.mean, spec.architecture.std
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, dict) or not {"mean", "std"} <= config.keys():
        return data.mean, data.std
    return tuple(config["mean"]), tuple(config["std"])


def _check_output(task: Task, module: nn.Module, data: Data, model: str) -> None:
    x = data.normalize(data.plain_inputs(data.train, slice(2)))
    output, reason = _try(module, x.clone())
    if reason is not None and _try(module, x.contiguous().clone())[1] is None:
        raise InputError(
            f"{model} cannot take maps with the channels last in memory, by which hwnas trains: {reason}",
            "let its forward() call flatten(1) or reshape() in the place of view()",
        )
    if reason is not None:
        raise InputError(
            f"{model} cannot take images of shape {data.image_shape}: {reason}",
            input_fix(module, data.image_shape),
        )
    check_output(task, output, data, model)
    _check_sizes(task, module, data, model)


def _check_sizes(task: Task, module: nn.Module, data: Data, model: str) -> None:
    """Make sure that a network takes test images of each size, and can be judged. Raises InputError."""
    seen = {tuple(data.image_shape[1:])}
    for x, targets in () if len(data.test.sizes) == 1 else replace(data, place="cpu").batches(data.test, 1):
        size = tuple(x.shape[2:])
        if size in seen:
            continue
        seen.add(size)
        output, reason = _try(module, x)
        if reason is None and targets is not None:
            _, reason = _try(_judging(task, targets), output)
        if reason is not None:
            raise InputError(
                f"{model} does not do with test images of {size[1]} × {size[0]} pixels: {reason}",
                "give test images of the size of the others, as one tensor (N, C, H, W)",
            )


def _judging(task: Task, targets: Any) -> Callable[[Any], Any]:
    return lambda output: task.score(output, targets)


@torch.no_grad()
def _try(module: Callable[[Any], Any], x: Any) -> tuple[Any, str | None]:
    """What a module gives, and why it gives nothing."""
    try:
        return main_output(module(x)), None
    except Exception as error:
        return None, first_line(error)
