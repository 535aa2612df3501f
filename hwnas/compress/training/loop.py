"""Whole networks: training a reference, finetuning a stitched network, recalibrating, evaluating."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from hwnas.compress.data import Data, Images
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.task import Evidence, Task, Tree, joined
from hwnas.compress.training.placement import placed
from hwnas.errors import HwnasError, RunDirectoryError, first_line
from hwnas.files import sha256, write_bytes
from hwnas.networks.tensors import tensors_of

WARMUP_SHARE = 0.2
RECALIBRATION_IMAGES = 512

KEPT_BYTES = 2**29
"""Of a teacher's answers."""


class DivergedError(HwnasError):
    """The loss of a training became NaN or infinite."""


class Batch(NamedTuple):
    """What a step of training sees: its number, images (B, C, H, W), and targets (B, …) or None."""

    number: int
    x: Tensor
    targets: Any


LossFunction = Callable[[Tree, Batch], Tensor]
"""A network's output for the images of a batch → the loss."""


def learning_rate_factor(step: int, total: int) -> float:
    """Linear warm-up over the first fifth, then a half cosine down to zero."""
    warmup = max(1.0, WARMUP_SHARE * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))


def fit(
    model: nn.Module,
    data: Data,
    loss: LossFunction,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    state_file: Path | None,
    progress: Callable[[int, float], None],
    keeps_statistics: bool = False,
) -> None:
    """Train a network with AdamW on augmented images, in place; it is left in eval mode.

    Args:
        keeps_statistics: batch normalisation goes on with its running statistics, not with the batch's.

    After each epoch everything that going on needs is in `state_file`; a call that finds one goes on from
    there, with the same result. The caller removes it once it has stored the network. None keeps nothing.

    Raises:
        DivergedError: the loss became NaN or infinite. HwnasError: memory does not suffice.
        RunDirectoryError: `state_file` is damaged.
    """
    model.train()
    if keeps_statistics:
        for norm in _norms(model):
            norm.eval()
    with placed(data.place, model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05, fused=True)
        optimizer.param_groups[0]["initial_lr"] = learning_rate
        first_epoch = 0 if state_file is None else _restore(state_file, model, optimizer)
        steps = data.steps_per_epoch(batch_size)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(step, epochs * steps),
            last_epoch=first_epoch * steps - 1,
        )
        for epoch in range(first_epoch, epochs):
            torch.manual_seed(seed * 100_003 + epoch)
            batches = data.train_batches(batch_size, seed, epoch, augment=True)
            for number, (x, targets) in enumerate(batches, epoch * steps):
                value = loss(model(x), Batch(number, x, targets))
                current = float(value.detach())
                if not math.isfinite(current):
                    raise DivergedError(
                        f"the loss became {current} in epoch {epoch + 1}",
                        "give trained weights with --weights FILE, or another --seed; the state before is "
                        "kept",
                    )
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
            if state_file is not None:
                _save(state_file, model, optimizer, epoch + 1)
            progress(epoch + 1, current)
    model.eval()


def images_per_epoch(data: Data, batch_size: int) -> int:
    """Images that an epoch of training sees; a last partial batch is dropped."""
    return data.steps_per_epoch(batch_size) * min(batch_size, len(data.train))


def target_loss(task: Task) -> LossFunction:
    """The task's loss against the targets; training a reference needs them."""

    def loss(output: Tree, batch: Batch) -> Tensor:
        assert batch.targets is not None
        assert task.loss is not None
        return task.loss(output, batch.targets)

    return loss


class Answers:
    """What a teacher gives for the batches of a training, which every network of a run sees alike.

    Small ones, such as logits, are kept: the teacher is then asked once for all networks.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Tree] = {}
        self._bytes = 0

    @torch.no_grad()
    def of(self, teacher: nn.Module, batch: Batch) -> Tree:
        """The teacher's output for a batch, as it is the first time."""
        if batch.number in self._kept:
            return tree_map_only(Tensor, lambda leaf: leaf.to(batch.x.device), self._kept[batch.number])
        answer = teacher(batch.x)
        size = sum(leaf.nbytes for leaf in tensors_of(answer))
        if self._bytes + size <= KEPT_BYTES:
            self._bytes += size
            self._kept[batch.number] = tree_map_only(Tensor, lambda leaf: leaf.cpu(), answer)
        return answer


def distillation_loss(
    teacher: nn.Module,
    task: Task = CLASSIFICATION,
    classes: Sequence[int] = (),
    answers: Answers | None = None,
) -> LossFunction:
    """End-to-end distillation (EKD): the task's loss against the teacher's output, and against the targets.

    The teacher has to be where the network is trained.

    Labels of classes are taken without smoothing here: the teacher's probabilities are smooth already.

    Args:
        classes: of those that both tell apart, which the labels count; empty where there are no others.
        answers: of this teacher in trainings of the same batches.
    """

    def loss(output: Tree, batch: Batch) -> Tensor:
        if answers is None:
            with torch.no_grad():
                wanted = teacher(batch.x)
        else:
            wanted = answers.of(teacher, batch)
        value = task.distill(output, wanted)
        if batch.targets is None or task.loss is None:
            return value
        hard = functional.cross_entropy if task is CLASSIFICATION else task.loss
        return value + hard(output[:, list(classes)] if classes else output, batch.targets)

    return loss


def recalibrate(model: nn.Module, data: Data, batch_size: int) -> None:
    """Take the statistics of batch normalisation anew from a few hundred training images.

    A stitched block sees other inputs than those that it was distilled with.
    """
    with placed(data.place, model):
        batches = []
        for x, _ in data.train_batches(batch_size, 0, 0, augment=False):
            batches.append(x)
            if len(batches) * batch_size >= RECALIBRATION_IMAGES:
                break
        torch.optim.swa_utils.update_bn(batches, model)
    model.eval()


def settle(model: nn.Module, teacher: nn.Module, data: Data, task: Task, batch_size: int) -> bool:
    """Recalibrate a network, and keep that where its output on `val` comes nearer to the teacher's.

    It does not where the reference has seen other images than these, such as a thousand classes and not ten:
    then these images do not say what normalises its features.

    Returns:
        Whether the statistics are those of these images.
    """
    norms = _norms(model)
    if not norms:
        return False
    before = [{key: value.clone() for key, value in norm.named_buffers()} for norm in norms]
    error = distance_on_val(model, teacher, data, task)
    recalibrate(model, data, batch_size)
    after = distance_on_val(model, teacher, data, task)
    if math.isfinite(after) and not after >= error:  # what was no number is mended
        return True
    with torch.no_grad():
        for norm, buffers in zip(norms, before, strict=True):
            for key, value in norm.named_buffers():
                value.copy_(buffers[key])
    return False


@torch.no_grad()
def distance_on_val(
    model: nn.Module, teacher: nn.Module, data: Data, task: Task, batch_size: int = 256
) -> float:
    """The task's loss of distillation on `val`."""
    total = 0.0
    with placed(data.place, model.eval(), teacher.eval()):
        for x, _ in data.batches(data.val, batch_size):
            total += float(task.distill(model(x), teacher(x))) * len(x)
    return total / len(data.val)


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def scores(
    model: nn.Module,
    data: Data,
    task: Task = CLASSIFICATION,
    images: Images | None = None,
    batch_size: int = 256,
) -> Evidence | None:
    """The task's evidence of each image, of the test part where none are named; None without targets."""
    images = images or data.test
    if not data.has_targets:
        return None
    with placed(data.place, model.eval()):
        found = [
            task.score(model(x), targets)
            for x, targets in data.batches(images, batch_size)
            if targets is not None
        ]
        return joined(found)


@torch.no_grad()
def agreement(
    model: nn.Module,
    reference: nn.Module,
    data: Data,
    task: Task = CLASSIFICATION,
    images: Images | None = None,
    batch_size: int = 256,
) -> Tensor:
    """How far a network gives what the reference gives, for each image as in `scores`, (N,)."""
    with placed(data.place, model.eval(), reference.eval()):
        batches = data.batches(images or data.test, batch_size)
        return torch.cat([task.agreement(model(x), reference(x)) for x, _ in batches]).cpu()


def tune_allocator() -> None:
    """Keep large tensors' memory mapped between steps; page faults cost up to a sixth of a step at 160 px.

    `mallopt` is process-wide, harmless elsewhere, and absent outside of glibc.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            m_trim_threshold, m_mmap_max = -1, -4
            mallopt(m_mmap_max, 0)
            mallopt(m_trim_threshold, 2**31 - 1)


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    from safetensors.torch import save

    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors["epochs_done"] = torch.tensor(epochs_done)
    copies = {k: value.cpu().clone(memory_format=torch.contiguous_format) for k, value in tensors.items()}
    write_bytes(path, save(copies, metadata={"sha256": _digest(copies)}))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors."""
    parts = [
        f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)} ".encode()
        + tensors[key].detach().contiguous().numpy().tobytes()
        for key in sorted(tensors)
    ]
    return sha256("".join(map(sha256, parts)).encode())


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bring back what `_save` wrote, if it did; the epochs that are done."""
    if not path.exists():
        return 0
    from safetensors import safe_open
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get("sha256")
        if digest != _digest(tensors):
            raise ValueError("its tensors are not those that were written")
    except Exception as error:
        raise RunDirectoryError(
            f"{path} is damaged: {first_line(error)}", f"remove {path}: its training starts anew"
        ) from error
    epochs_done = int(tensors.pop("epochs_done"))
    state: dict[int, dict[str, Tensor]] = {}
    weights = {}
    parameters = list(model.parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            # The fused optimizer walks parameter and state side by side in memory: their layouts must agree.
            parameter = parameters[int(index)]
            alike = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
            state.setdefault(int(index), {})[name] = alike
        else:
            weights[key.removeprefix("model.")] = value
    if any(own.shape != weights[key].shape for key, own in model.state_dict().items() if key in weights):
        raise RunDirectoryError(
            f"{path} is of another network: its weights have other shapes",
            f"remove {path}: its training starts anew",
        )
    model.load_state_dict(weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return epochs_done
