"""Whole networks from the parts of the reference and the library; each part is exported once."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from hwnas.composed import run_parts
from hwnas.compress.library.operators import Refused
from hwnas.compress.library.store import Entry, Library
from hwnas.network import Network, Part, export_onnx
from hwnas.networks.blocks.families import CandidateSpec
from hwnas.networks.build import assemble, build_part
from hwnas.networks.count import count_parts
from hwnas.networks.exported import own_parts
from hwnas.networks.partition import Partition, counted_again
from hwnas.ranges import Position

Choices = tuple[Position, ...]


def joined_choices(choices: Choices) -> str:
    """Name an architecture: `0-3-1-2-0`."""
    return "-".join(map(str, choices))


class Stitcher:
    """Makes the network of any architecture. Parts are shared, so each is read and exported once.

    Args:
        parts: the reference's.
        library: of the candidates; only those that are done can be chosen.
        calibration: images (N, C, H, W), normalised, for devices that run int8.
        refused: choices that the device refuses, by part and choice, with their forbidden operators.
        metric: the block loss by which the anchor is chosen.
        measured: the reference's parts with images of the size that is measured; None where it is that of
            the training.

    Attributes:
        anchor: the architecture that the device accepts with the lowest loss: the reference itself, where it
            accepts all of its parts.
    """

    def __init__(
        self,
        parts: Partition,
        library: Library,
        calibration: np.ndarray | None = None,
        refused: Refused | None = None,
        metric: str = "nsr",
        *,
        measured: Partition | None = None,
    ) -> None:
        self.parts = parts
        self.measured = measured or parts
        self.library = library
        self.calibration = calibration
        self.refused = refused or {}
        self._own = own_parts(self.measured)
        self._own_cost = count_parts(self.measured)
        self._shared = parts.shared
        self.entries = {
            (entry.candidate.part, entry.candidate.choice): entry
            for entry in library.entries()
            if entry.state == "done"
        }
        self._replacements = {key: self._replacement(entry) for key, entry in self.entries.items()}
        self.anchor: Choices = tuple(
            min(choices, key=lambda choice, n=n: self.part_loss(n, choice, metric))  # type: ignore[misc]
            for n, choices in enumerate(self._accepted())
        )

    @property
    def choices(self) -> list[list[int]]:
        """What can be chosen for each part; the anchor's choice, most often 0, comes first."""
        return [
            sorted(choices, key=lambda choice, first=first: (choice != first, choice))  # type: ignore[misc]
            for choices, first in zip(self._accepted(), self.anchor, strict=True)
        ]

    @property
    def anchor_name(self) -> str:
        """The anchor for people: `the reference`, or `architecture 1-0-2-0`."""
        return f"architecture {joined_choices(self.anchor)}" if any(self.anchor) else "the reference"

    @property
    def reference(self) -> Network:
        """The reference itself."""
        return self.network((0,) * len(self.parts.modules))

    def network(self, choices: Choices) -> Network:
        """The network of an architecture."""
        replaced = {
            self.parts.names[n]: self._replacements[n, choice] for n, choice in enumerate(choices) if choice
        }
        return Network(
            joined_choices(choices),
            list((self._own | replaced).values()),
            self.calibration,
            self.parts.wiring,
        )

    def module(self, choices: Choices) -> nn.Module:
        """A new torch module of an architecture, with the library's weights, in eval mode.

        Weights that several of the reference's own parts share are shared in it too.
        """
        own, joints = deepcopy((self.parts.modules, self.parts.joints))
        modules = [
            self._replacements[n, choice].module() if choice else own[n] for n, choice in enumerate(choices)
        ]
        return assemble(self.parts, modules, joints)

    def loss(self, choices: Choices, metric: str) -> float:
        """Σ of the chosen parts' held-out losses (DONNAv2)."""
        return sum(self.part_loss(n, choice, metric) for n, choice in enumerate(choices))

    def cost(self, choices: Choices) -> tuple[int, int]:
        """MACs and parameters of an architecture; what several parts share counts once."""
        costs = [self._own_cost.joints, *(self.part_cost(n, choice) for n, choice in enumerate(choices))]
        params = sum(params for _, params in costs) - counted_again(self._shared, choices)
        return sum(macs for macs, _ in costs), params

    def spec(self, part: int, choice: int) -> CandidateSpec | None:
        """What a choice of a part is; None for the reference's own."""
        return self.entries[part, choice].candidate.spec if choice else None

    def part_name(self, part: int, choice: int) -> str:
        """What a choice of a part is, for people."""
        return self.entries[part, choice].candidate.spec.name if choice else "reference"

    def part_loss(self, part: int, choice: int, metric: str) -> float:
        """A choice's held-out loss; the reference's own parts have none."""
        return float(getattr(self.entries[part, choice].metrics, metric)) if choice else 0.0

    def part_cost(self, part: int, choice: int) -> tuple[int, int]:
        """MACs and parameters of one choice of one part."""
        if not choice:
            return self._own_cost.parts[part]
        candidate = self.entries[part, choice].candidate
        return candidate.macs, candidate.params

    def part_depth(self, part: int, choice: int) -> int | None:
        """How many layers a candidate repeats; None for the reference's own, and where it does not say."""
        return getattr(self.spec(part, choice), "depth", None)

    def part_network(self, part: int, choice: int) -> Network:
        """One choice of one part as a network of its own, for measuring it alone."""
        name = self.parts.names[part]
        piece = self._replacements[part, choice] if choice else self._own[name]
        return Network(f"{piece.name}-{choice}", [piece], self._calibration_of(name))

    def joint_networks(self) -> list[Network]:
        """Each part without a number as a network of its own."""
        joints = [name for name in self.parts.order if name not in self.parts.names]
        return [Network(name, [self._own[name]], self._calibration_of(name)) for name in joints]

    def _calibration_of(self, name: str) -> np.ndarray | None:
        return None if self._features is None else self._features[self.parts.reads(name)[0]]

    @cached_property
    def _features(self) -> dict[int, np.ndarray] | None:
        """All values of the reference for the calibration images."""
        if self.calibration is None:
            return None
        modules = [module.eval() for module in self.parts.ordered(self.parts.modules).values()]
        with torch.inference_mode():
            values = run_parts(modules, self.parts.wiring, torch.from_numpy(self.calibration))
        return {value: x.contiguous().numpy() for value, x in values.items()}

    def _accepted(self) -> list[list[int]]:
        known = [(n, 0) for n in range(len(self.parts.modules))] + list(self.entries)
        return [
            sorted(choice for part, choice in known if part == n and (part, choice) not in self.refused)
            for n in range(len(self.parts.modules))
        ]

    def _replacement(self, entry: Entry) -> Part:
        candidate = entry.candidate

        def module() -> nn.Module:
            return self.library.load(entry, build_part(self.parts, candidate.part, candidate.spec))

        def graph() -> bytes:
            shapes = self.measured.in_shapes(candidate.part_name)
            return export_onnx(module(), *((1, *shape) for shape in shapes), name=candidate.name)

        stored = partial(self.library.onnx, entry)  # of the size that it was trained with
        return Part(candidate.part_name, onnx=stored if self.measured is self.parts else graph, module=module)
