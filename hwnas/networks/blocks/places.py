"""A block that stands in several places, as the layers of a detector's head over the levels of a pyramid."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import Tensor, nn


class InPlaces(nn.Module):
    """A module in several places at once: they share all weights, but each has its own normalisation.

    Args:
        module: as it stands in the first place.
        count: of the places.
    """

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        shared: dict[int, Any] = {}
        for child in module.modules():
            if not isinstance(child, nn.modules.batchnorm._NormBase):
                for tensor in (*child.parameters(recurse=False), *child.buffers(recurse=False)):
                    shared[id(tensor)] = tensor
        copies = [deepcopy(module, dict(shared)) for _ in range(count - 1)]
        self.places = nn.ModuleList([module, *copies])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what each place gives; see `nn.Module.forward`."""
        return tuple(place(x) for place, x in zip(self.places, inputs, strict=True))


def in_places(module: nn.Module, count: int) -> nn.Module:
    """Return a module as it stands in so many places; in one, itself."""
    return module if count == 1 else InPlaces(module, count)
