"""Whole networks from the parts of the reference and the library; each part is exported once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import numpy as np
from torch import nn

from hwnas.compress.architecture import build_part
from hwnas.compress.blocks import count
from hwnas.compress.library import Entry, Library
from hwnas.compress.partition import Partition
from hwnas.network import Network, Part, export_onnx

Choices = tuple[int, ...]


class Stitcher:
    """Makes the network of any architecture. Parts are shared, so each is read and exported once.

    Args:
        parts: the reference's.
        library: of the candidates; only those that are done can be chosen.
        calibration: images (N, C, H, W), normalised, for devices that run int8.
    """

    def __init__(self, parts: Partition, library: Library, calibration: np.ndarray | None = None) -> None:
        self.parts = parts
        self.library = library
        self.calibration = calibration
        self._own = [
            _part(name, module, shape)
            for name, module, shape in zip(parts.names, parts.modules, parts.shapes[:-1], strict=True)
        ]
        self._own_cost = [
            count(module, shape) for module, shape in zip(parts.modules, parts.shapes[:-1], strict=True)
        ]
        self.entries = {
            (entry.candidate.part, entry.candidate.choice): entry
            for entry in library.entries()
            if entry.state == "done"
        }
        self._replacements = {key: self._replacement(entry) for key, entry in self.entries.items()}

    @property
    def choices(self) -> list[list[int]]:
        """What can be chosen for each part; 0, the reference's own, comes first."""
        return [
            [0, *sorted(choice for part, choice in self.entries if part == n)]
            for n in range(len(self.parts.modules))
        ]

    @property
    def reference(self) -> Network:
        """The reference itself."""
        return self.network((0,) * len(self.parts.modules))

    def network(self, choices: Choices) -> Network:
        """The network of an architecture."""
        parts = [
            self._replacements[n, choice] if choice else self._own[n] for n, choice in enumerate(choices)
        ]
        name = "-".join(str(choice) for choice in choices)
        return Network(name, parts, self.calibration)

    def module(self, choices: Choices) -> nn.Sequential:
        """A new torch module of an architecture, with the library's weights, in eval mode."""
        return self.network(choices).module()

    def loss(self, choices: Choices, metric: str) -> float:
        """Σ of the chosen parts' held-out losses (DONNAv2); the reference's own parts have none."""
        chosen = [self.entries[n, choice].metrics for n, choice in enumerate(choices) if choice]
        return float(sum(getattr(metrics, metric) for metrics in chosen))

    def cost(self, choices: Choices) -> tuple[int, int]:
        """MACs and parameters of an architecture."""
        chosen = [self.entries[n, choice].candidate if choice else None for n, choice in enumerate(choices)]
        macs = [c.macs if c else own for c, (own, _) in zip(chosen, self._own_cost, strict=True)]
        params = [c.params if c else own for c, (_, own) in zip(chosen, self._own_cost, strict=True)]
        return sum(macs), sum(params)

    def _replacement(self, entry: Entry) -> Part:
        candidate = entry.candidate

        def module() -> nn.Module:
            return self.library.load(entry, build_part(self.parts, candidate.part, candidate.spec))

        return Part(candidate.part_name, onnx=partial(self.library.onnx, entry), module=module)


def network_of(
    module: nn.Sequential, parts: Partition, name: str, calibration: np.ndarray | None = None
) -> Network:
    """The network of a module that was assembled from parts and then trained."""
    pieces = [
        _part(part, child, shape)
        for (part, child), shape in zip(module.named_children(), parts.shapes[:-1], strict=True)
    ]
    return Network(name, pieces, calibration)


def _part(name: str, module: nn.Module, shape: Sequence[int]) -> Part:
    """A part of a trained module, exported when its graph is first asked for. shape: (C, H, W) or (T, C)."""
    return Part(name, onnx=partial(export_onnx, module, (1, *shape)), module=lambda: deepcopy(module).eval())
