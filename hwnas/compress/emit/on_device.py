"""What a network answers on a device: its graph, run by the device's own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.composed import put_into
from hwnas.compress.data import Data
from hwnas.compress.tasks.task import Evidence, Task, Tree, joined
from hwnas.devices.base import BaseDevice, Device, require_outputs
from hwnas.devices.queue import QueueDevice
from hwnas.errors import NetworkFormError, PreparationError
from hwnas.network import Network
from hwnas.networks.tensors import tensors_of
from hwnas.profiles.queue_outputs import QueueOutputs
from hwnas.wiring import Wiring

if TYPE_CHECKING:
    from hwnas.devices.host.runtime import Arrays

IMAGES = 64
"""That torch is given at once."""

JOB_BYTES = 2**28
"""Of images, that a job of a queue is given."""


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """A network that an open device runs.

    Attributes:
        name: of the device.
        run: gives the outputs of each of several runs for their inputs.
        wiring: of the whole network, whose tree its outputs are put into.
        batch_size: images a run.
        images_at_once: that it is best given at once.
    """

    name: str
    run: Callable[[Sequence[Arrays]], list[list[np.ndarray]]]
    wiring: Wiring
    batch_size: int
    images_at_once: int = IMAGES

    @staticmethod
    def prepare(device: BaseDevice, network: Network, wiring: Wiring) -> OnDevice:
        """Let a device load a network; a queue does so with its first job.

        Raises:
            DeviceError: it tells no outputs.
            PreparationError, NetworkFormError: it cannot run the network.
        """
        require_outputs(device)
        name = device.profile.name
        if isinstance(device, QueueDevice):
            image_bytes = 4 * math.prod(network.input_shape[1:])
            return OnDevice(
                name=name,
                run=QueueOutputs(device, network),
                wiring=wiring,
                batch_size=network.batch_size,
                images_at_once=max(IMAGES, JOB_BYTES // image_bytes),
            )
        assert isinstance(device, Device)
        handle = device.prepare(network)
        batch_size = int(handle.metrics.get("batch_size", network.batch_size))
        return OnDevice(name=name, run=partial(device.outputs, handle), wiring=wiring, batch_size=batch_size)

    def answers(self, batches: Sequence[Tensor], expected: Sequence[Tree]) -> list[Tree]:
        """Run batches of images (N, C, H, W), so many images a run as the graph takes.

        Args:
            expected: what torch gives for each, whose tensors tell which outputs have an axis of images.

        Raises:
            PreparationError: the network failed, or gives tensors of other shapes.
        """
        runs = [[images] for x in batches for images in self._filled(x)]
        found = iter(self.run(runs))
        return [
            self._tree(x, [next(found) for _ in torch.split(x, self.batch_size)], like)
            for x, like in zip(batches, expected, strict=True)
        ]

    def _filled(self, x: Tensor) -> list[np.ndarray]:
        """The images of each run; the last one is filled up."""
        parts = list(torch.split(x, self.batch_size))
        missing = self.batch_size - len(parts[-1])
        parts[-1] = torch.cat([parts[-1], parts[-1][-1:].expand(missing, -1, -1, -1)])
        return [part.contiguous().numpy() for part in parts]

    def _tree(self, x: Tensor, found: Sequence[Sequence[np.ndarray]], expected: Tree) -> Tree:
        runs = [[torch.from_numpy(array.copy()) for array in arrays] for arrays in found]
        wanted = tensors_of(expected)
        columns = list(zip(*runs, strict=True))
        leaves = [column[0] for column in columns]
        if len(columns) == len(wanted):
            leaves = [self._joined(column, like) for column, like in zip(columns, wanted, strict=True)]
        if [leaf.shape for leaf in leaves] != [like.shape for like in wanted]:
            raise PreparationError(
                f"{self.name} gives tensors of {_shapes(leaves)} for {len(x)} images, "
                f"torch of {_shapes(wanted)}",
                "take another device, and please report this with the checkpoint",
            )
        return put_into(self.wiring.tree, dict(zip(self.wiring.outputs.values(), leaves, strict=True)))

    def _joined(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        """The images of all runs without what filled the last one; a tensor without images is as in each."""
        if parts[0].shape == like.shape:
            return parts[0]
        whole = torch.cat(list(parts)) if parts[0].ndim else torch.stack(list(parts))
        return whole[: len(like)] if len(whole) == len(parts) * self.batch_size and like.ndim else whole


def scores_on(device: Device, network: Network, module: nn.Module, data: Data, task: Task) -> Evidence | None:
    """The task's evidence of each image of the test part, by a device that tells outputs.

    None without targets, for images of several sizes, of which a graph has one, and where the device refuses
    the network.

    Args:
        module: the network in torch, in eval mode.
    """
    if not data.has_targets or len(data.test.sizes) > 1:
        return None
    scores = []
    try:
        with device, torch.no_grad():
            running = OnDevice.prepare(device, network, network.wiring)
            for x, targets in replace(data, place="cpu").batches(data.test, IMAGES):
                (answer,) = running.answers([x], [module(x)])
                scores.append(task.score(answer, targets))
    except (PreparationError, NetworkFormError):
        return None
    return joined(scores)


def _shapes(tensors: list[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
