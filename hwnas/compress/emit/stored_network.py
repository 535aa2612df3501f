"""A stored network as it is judged again: what its records say of it, its task, its data, its graph."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hwnas.composed import Composed
from hwnas.compress.data import Data, load_data
from hwnas.compress.data.channels import with_channels
from hwnas.compress.data.dataset import at_shape
from hwnas.compress.emit.summary import CheckpointRecord
from hwnas.compress.library.target import calibration_images
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.run.directory import RECORD, RunRecord
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.checks import check_output, for_task
from hwnas.compress.tasks.task import Task
from hwnas.errors import InputError
from hwnas.files import read_bytes
from hwnas.measurement import Interval
from hwnas.network import Network, Part
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.intact import CHECKPOINT_RECORD
from hwnas.networks.serialize import load_module
from hwnas.progress import Progress


@dataclass(frozen=True, kw_only=True)
class StoredNetwork:
    """A stored network, and what its records say of it.

    Attributes:
        run: the record of its run; None where the folder was taken out of that.
        card: its metric on the test part of `data`.
        shape: (C, H, W) of the images that the card speaks of.
    """

    folder: Path
    spec: ArchitectureSpec
    module: Composed
    task: Task
    run: RunRecord | None
    card: Interval | None
    data: str
    shape: tuple[int, ...]


def read_stored(folder: Path, *, allow_code: bool) -> StoredNetwork:
    """Read a checkpoint's folder, or the `reference` of a run. Raises InputError: it is none, or damaged."""
    module = load_module(folder, allow_code=allow_code)
    assert isinstance(module, Composed)
    spec = ArchitectureSpec.read(folder / "architecture.json")
    whole = folder.resolve()
    run = _run_of(whole)
    if (folder / CHECKPOINT_RECORD).is_file():
        summary = CheckpointRecord.read(folder).summary
        card, data, task = summary.accuracy, summary.data, summary.task
        shape = tuple(summary.trained_shape or spec.input_shape)
    else:
        card, data, task = ReferenceRecord.read(folder).accuracy, run.settings.data if run else "", ""
        shape = spec.input_shape
    return StoredNetwork(
        folder=folder,
        spec=spec,
        module=module,
        task=_task(run.settings.task if run else task, folder),
        run=run,
        card=card,
        data=data,
        shape=shape,
    )


def _run_of(folder: Path) -> RunRecord | None:
    """The record of the run in which a checkpoint or a reference lies."""
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    return RunRecord.read(run) if (run / RECORD).is_file() else None


def _task(text: str, folder: Path) -> Task:
    try:
        return load_task(text)
    except InputError as error:
        raise InputError(
            f"{folder} does not say what its network is for: {error.cause}",
            "give it where it was made, inside of its run directory: the run.toml there names the task",
        ) from None


def data_for(stored: StoredNetwork, name: str, progress: Progress) -> Data:
    """The data as the network takes them; without labels where those say nothing of its outputs.

    Raises:
        InputError: they are not for it.
    """
    spec, task = stored.spec, stored.task
    channels, side, _ = stored.shape
    size = stored.run.settings.image_size if stored.run else 0
    data = load_data(
        name, size, lambda: side, progress, channels=channels, enlarges=task.enlarges, fit=task.fit
    )
    data = for_task(task, with_channels(data, channels), progress)
    data = replace(data, mean=spec.mean, std=spec.std)
    if len(spec.mean) != data.image_shape[0]:
        raise InputError(
            f"{stored.folder} takes images of {channels} channels, {data.name} has {data.image_shape[0]}",
            "give data with as many",
        )
    if data.class_names and not spec.class_names:
        progress.say(f"{stored.folder} does not name its classes: {data.name} serves without labels")
        data = _without_labels(data)
    elif data.class_names and data.class_names != spec.class_names:
        raise InputError(
            f"{stored.folder} tells {_names(spec.class_names)} apart, {data.name} has "
            f"{_names(data.class_names)}",
            f"give data with its classes, in this order{f': --data {stored.data}' if stored.data else ''}",
        )
    sizes = _sizes(data, task)
    if not task.takes_classes and sizes != {tuple(spec.input_shape[1:])}:
        listed = ", ".join(f"{width} × {height}" for height, width in sorted(sizes)[:3])
        raise InputError(
            f"the graph of {stored.folder} takes images of {spec.input_shape[2]} × {spec.input_shape[1]} "
            f"pixels, {data.name} has {listed}, and targets of {task.name} cannot be scaled",
            "give test images of that size, or compress without --measure-size",
        )
    with torch.no_grad():
        inputs = data.normalize(at_shape(data.plain_inputs(data.train, slice(2)), spec.input_shape))
        check_output(task, stored.module(inputs), data, str(stored.folder))
    return data


def _sizes(data: Data, task: Task) -> set[tuple[int, int]]:
    """Rows and columns of what the network is given of the test images."""
    scale = task.enlarges if data.given is not None else 1
    return {(height // scale, width // scale) for height, width in data.test.sizes}


def _without_labels(data: Data) -> Data:
    train, val, test = (replace(part, labels=None) for part in (data.train, data.val, data.test))
    return replace(data, train=train, val=val, test=test, class_names=(), imagenet=())


def _names(classes: tuple[str, ...]) -> str:
    listed = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
    return f"{len(classes)} classes ({listed})"


def is_of_card(stored: StoredNetwork, data: Data) -> bool:
    """Whether the card speaks of the very same images."""
    if _sizes(data, stored.task) != {tuple(stored.spec.input_shape[1:])}:
        return False
    if stored.run is not None:
        return data.hash == stored.run.hashes.get("data")
    return data.name == stored.data


def network_of_stored(stored: StoredNetwork, data: Data) -> Network:
    """The stored graph, as a device is given it."""
    content, module = read_bytes(stored.folder / "model.onnx"), stored.module
    name = stored.folder.resolve().name
    part = Part(name, onnx=lambda: content, module=lambda: deepcopy(module))
    return Network(name, [part], calibration_images(data, stored.spec.input_shape))
