"""How good a stored network is on a device: the test images, run by the device's own runtime."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.compress.data import Data
from hwnas.compress.data.dataset import at_shape
from hwnas.compress.emit.on_device import IMAGES, OnDevice
from hwnas.compress.emit.stored_network import (
    StoredNetwork,
    data_for,
    is_of_card,
    network_of_stored,
    read_stored,
)
from hwnas.compress.tasks.task import Metric, Task, Tree, joined
from hwnas.compress.training.intervals import mean_score, measured, measured_difference
from hwnas.devices.base import require_outputs
from hwnas.measurement import DeviceProfile, Fingerprint, Interval
from hwnas.networks.tensors import tensors_of
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.forbidden import require_accepted
from hwnas.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a stored network is worth on a device, on the test part of some data.

    Attributes:
        checkpoint: its folder.
        metric: by which `quality`, `in_torch`, `card` and `difference` are told.
        quality: of the device's runtime; None without labels.
        in_torch: of the stored module in torch, fp32 on this CPU, on the same images.
        difference: `quality` minus `in_torch`, paired by image.
        card: what the checkpoint says of itself; None where it had no labels.
        card_data: of which data it says so.
        is_of_card_data: those are the same images, at the same size.
        agreement: of the device's and torch's answers, by `agreement_metric`; for classes the share of images
            with the same answer.
        largest_difference: between the two in any value of an output; None where a value is
            finite in one of the two only.
        largest_output: the largest value in torch, without its sign.
        images: how many there were.
        device_s: seconds that the device took for all of them, copies included.

    >>> import hwnas
    >>> found = hwnas.evaluate(
    ...     "runs/a/checkpoints/steady-knee", device="cpu-1", data="digits", allow_code=True
    ... )
    >>> isinstance(found, hwnas.Evaluation), found.is_of_card_data
    (True, True)
    """

    checkpoint: str
    device: str
    data: str
    fingerprint: Fingerprint
    task: str
    metric: Metric
    quality: Interval | None
    in_torch: Interval | None
    difference: Interval | None
    card: Interval | None
    card_data: str
    is_of_card_data: bool
    agreement_metric: Metric
    agreement: Interval
    largest_difference: float | None
    largest_output: float
    images: int
    device_s: float


def evaluate(
    folder: Path, profile: DeviceProfile, data: str, progress: Progress, *, allow_code: bool = False
) -> Evaluation:
    """Run the test images through the device's own runtime, and compare with torch and with the card.

    The graph is the one that is measured there: `model.onnx` in the device's precision, int8 calibrated with
    training images of these data.

    Args:
        folder: a checkpoint, or the `reference` of a run.
        data: as `hwnas compress --data` takes it.
        allow_code: import and call the `module:function` that the checkpoint names.

    Raises:
        InputError: no such network, a damaged one, or data that are not for it.
        DeviceError: the device cannot be used, or gives no outputs.
        PreparationError, NetworkFormError: it cannot run the network.
    """
    device = open_device(profile)
    require_outputs(device)
    stored = read_stored(folder, allow_code=allow_code)
    found = data_for(stored, data, progress)
    network = network_of_stored(stored, found)
    require_accepted(profile, [network])
    with device:
        counted = _counted(OnDevice.prepare(device, network, stored.module.wiring), stored, found, progress)
        fingerprint = device.fingerprint()
    measure = stored.task.measure
    there, here = (joined(scores) if scores else None for scores in (counted.on_device, counted.in_torch))
    return Evaluation(
        checkpoint=str(folder),
        device=profile.name,
        data=found.name,
        fingerprint=fingerprint,
        task=stored.task.name,
        metric=stored.task.metric,
        quality=measured(there, measure),
        in_torch=measured(here, measure),
        difference=measured_difference(there, here, measure),
        card=stored.card,
        card_data=stored.data,
        is_of_card_data=is_of_card(stored, found),
        agreement_metric=stored.task.agreement_metric,
        agreement=mean_score(torch.cat(counted.agreement)),
        largest_difference=counted.largest_difference if math.isfinite(counted.largest_difference) else None,
        largest_output=counted.largest_output,
        images=len(found.test),
        device_s=counted.device_s,
    )


@dataclass
class _Counted:
    """What was seen so far, batch by batch."""

    on_device: list[Any] = field(default_factory=list)
    in_torch: list[Any] = field(default_factory=list)
    agreement: list[Tensor] = field(default_factory=list)
    largest_difference: float = 0.0
    largest_output: float = 0.0
    device_s: float = 0.0

    def add(self, task: Task, answer: Tree, expected: Tree, targets: Any) -> None:
        """Compare the answers of both to a batch."""
        if targets is not None:
            self.on_device.append(task.score(answer, targets))
            self.in_torch.append(task.score(expected, targets))
        self.agreement.append(task.agreement(answer, expected))
        for given, wanted in zip(tensors_of(answer), tensors_of(expected), strict=True):
            self.largest_difference = max(self.largest_difference, _apart(given, wanted))
            self.largest_output = max(self.largest_output, _largest(wanted))


@torch.no_grad()
def _counted(running: OnDevice, stored: StoredNetwork, data: Data, progress: Progress) -> _Counted:
    """Let the device and torch answer the same images."""
    counted, task, done = _Counted(), stored.task, 0
    batches = _batches(data, stored.spec.input_shape)
    while group := list(islice(batches, running.images_at_once // IMAGES)):
        expected = [stored.module(x) for x, _ in group]
        start_s = time.monotonic()
        answers = running.answers([x for x, _ in group], expected)
        counted.device_s += time.monotonic() - start_s
        for (x, targets), answer, wanted in zip(group, answers, expected, strict=True):
            counted.add(task, answer, wanted, targets)
            done += len(x)
        progress.advance(f"evaluate on {running.name}", done, len(data.test))
    return counted


def _batches(data: Data, shape: tuple[int, int, int]) -> Iterator[tuple[Tensor, Any]]:
    """The test images, of the size that the graph takes, and their targets."""
    done = 0
    for x, targets in data.batches(data.test, IMAGES):
        part = slice(done, done + len(x))
        done += len(x)
        if tuple(x.shape[1:]) == shape:
            yield x, targets
        else:
            yield data.normalize(at_shape(data.plain_inputs(data.test, part), shape)), targets


def _apart(given: Tensor, wanted: Tensor) -> float:
    """The largest difference; infinite where two values are not both finite and not the same."""
    first, second = given.double(), wanted.double()
    same = (first == second) | (first.isnan() & second.isnan())
    apart = torch.where(same, 0.0, (first - second).abs()).nan_to_num(math.inf, math.inf)
    return float(apart.max()) if apart.numel() else 0.0


def _largest(wanted: Tensor) -> float:
    finite = wanted.double()[wanted.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0
