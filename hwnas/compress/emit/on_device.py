"""What a network answers on a device: its graph, run by the device's own runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hwnas.composed import put_into
from hwnas.compress.data import Data
from hwnas.compress.tasks.task import Evidence, Task, Tree, joined
from hwnas.devices.base import Device, Handle
from hwnas.errors import NetworkFormError, PreparationError
from hwnas.network import Network
from hwnas.networks.tensors import tensors_of
from hwnas.wiring import Wiring

IMAGES = 64
"""That torch is given at once."""


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """A network that an open device holds ready.

    Attributes:
        wiring: of the whole network, whose tree its outputs are put into.
        batch_size: images a run.
    """

    device: Device
    handle: Handle
    wiring: Wiring
    batch_size: int

    @staticmethod
    def prepare(device: Device, network: Network, wiring: Wiring) -> OnDevice:
        """Let a device load a network. Raises PreparationError, NetworkFormError: it cannot run it."""
        handle = device.prepare(network)
        batch_size = int(handle.metrics.get("batch_size", network.batch_size))
        return OnDevice(device=device, handle=handle, wiring=wiring, batch_size=batch_size)

    def answer(self, x: Tensor, expected: Tree) -> Tree:
        """Run images (N, C, H, W), so many at once as the graph takes; a last run is filled up.

        Args:
            expected: what torch gives for them, whose tensors tell which outputs have an axis of images.

        Raises:
            PreparationError: the network failed, or gives tensors of other shapes.
        """
        parts = torch.split(x, self.batch_size)
        missing = self.batch_size - len(parts[-1])
        filled = torch.cat([parts[-1], parts[-1][-1:].expand(missing, -1, -1, -1)])
        images = [[part.contiguous().numpy()] for part in (*parts[:-1], filled)]
        runs = []
        for part, arrays in zip(parts, self.device.outputs(self.handle, images), strict=True):
            found = [torch.from_numpy(array.copy()) for array in arrays]
            runs.append([leaf[: len(part)] if leaf.shape[:1] == filled.shape[:1] else leaf for leaf in found])
        wanted = tensors_of(expected)
        columns = list(zip(*runs, strict=True))
        leaves = [column[0] for column in columns]
        if len(columns) == len(wanted):
            leaves = [_joined(column, like) for column, like in zip(columns, wanted, strict=True)]
        if [leaf.shape for leaf in leaves] != [like.shape for like in wanted]:
            raise PreparationError(
                f"{self.device.profile.name} gives tensors of {_shapes(leaves)} for {len(x)} images, "
                f"torch of {_shapes(wanted)}",
                "take another device, and please report this with the checkpoint",
            )
        return put_into(self.wiring.tree, dict(zip(self.wiring.outputs.values(), leaves, strict=True)))


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
                scores.append(task.score(running.answer(x, module(x)), targets))
    except (PreparationError, NetworkFormError):
        return None
    return joined(scores)


def _joined(parts: tuple[Tensor, ...], like: Tensor) -> Tensor:
    """The images of all runs; a tensor that has none is the same in each."""
    if parts[0].shape == like.shape:
        return parts[0]
    return torch.cat(parts) if parts[0].ndim else torch.stack(parts)


def _shapes(tensors: list[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
