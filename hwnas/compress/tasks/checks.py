"""Whether data, a network's output and a task fit one another."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.utils._pytree import tree_leaves

from hwnas.compress.data import Data
from hwnas.compress.tasks.task import Task, Tree
from hwnas.errors import InputError
from hwnas.progress import Progress


def _without_classes(task: Task, data: Data) -> Data:
    """The data without their labels where those are classes and the task takes none."""
    if task.takes_classes or not data.class_names:
        return data
    train, val, test = (replace(part, labels=None) for part in (data.train, data.val, data.test))
    return replace(data, train=train, val=val, test=test, class_names=(), imagenet=())


def for_task(task: Task, data: Data, progress: Progress) -> Data:
    """The data as a task takes them: without labels that are no targets of it, which is said.

    Images without targets are then the targets of what the task makes of them.
    """
    fitting = _without_classes(task, data)
    if fitting is not data:
        served = "the images are" if task.given else "it serves without labels"
        progress.say(f"{data.name} has classes, which are no targets of {task.name}: {served}")
    if task.plain_pixels and data.is_measured:
        channels = len(data.mean)
        fitting = replace(fitting, mean=(0.0,) * channels, std=(1.0,) * channels)
    return replace(fitting, given=task.given if fitting.train.labels is None else None)


def check_output(task: Task, output: Tree, data: Data, model: str) -> None:
    """Make sure that a network gives what a task and its data ask for. output: for two images.

    Raises:
        InputError: it does not.
    """
    if task.ranks and (not isinstance(output, Tensor) or output.ndim not in task.ranks):
        what = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"{model} does not give {task.output}, it gives {what}",
            f"wrap it in a function that returns {task.output}, or name its task: --task",
        )
    wanted = task.outputs(data)
    if wanted is not None and output.shape[1] != wanted:
        if task.takes_classes:
            raise InputError(
                f"{model} tells {output.shape[1]} classes apart, {data.name} has {wanted}",
                "give weights that were trained on these classes, or --weights none to train it",
            )
        raise InputError(
            f"{model} gives {output.shape[1]} values an image, {data.name} has {wanted} targets",
            "let the network give as many values as the data have targets",
        )
    if data.has_targets and task.takes_classes and not data.class_names:
        raise InputError(
            f"{data.name} has labels, but no names of classes",
            "let it say class_names, or name the task that its targets are for: --task",
        )
    task.check(output, data, model)
    if not data.has_targets:
        return
    _, targets = next(replace(data, place="cpu").batches(data.train, 2))
    try:
        score = task.score(output, targets)
        loss = task.distill(output, output) if task.loss is None else task.loss(output, targets)
        fits = loss.ndim == 0 and all(len(leaf) == 2 for leaf in tree_leaves(score))
        for measure in (task.measure, *task.further_metrics):
            fits &= measure.total(score).shape in ((), (0,), (2,))
    except InputError:
        raise
    except Exception:  # whatever a task's functions raise for targets of another kind
        fits = False
    if not fits:
        raise InputError(
            f"the targets of {data.name}, {_described(targets)} an image, do not fit "
            f"{task.output} of {model}",
            "correct the targets, or name the task that they are for: --task",
        )


def _described(targets: object) -> str:
    """The kind and size of an image's targets."""
    if isinstance(targets, Tensor):
        return f"{targets.dtype} {tuple(targets.shape[1:])}"
    if isinstance(targets, dict):
        return ", ".join(f"{name}: {_described(each)}" for name, each in targets.items())
    return f"a {type(targets).__name__}"
