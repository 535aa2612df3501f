"""What a device's folder in a run directory says of its searches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwnas.compress.library.stitch import Choices
from hwnas.compress.search.points import Point
from hwnas.compress.search.strategies import ExactFront
from hwnas.compress.settings import Name, Objective, SearchSettings
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import Fingerprint, Protocol
from hwnas.ranges import Count, Figure, Milliseconds, Position

FRONT_SCHEMA = "hwnas.front/2"
SEARCH_SCHEMA = "hwnas.search/2"


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A network of the front; None where a figure is not known.

    Attributes:
        choices: of each part; 0 is the reference's own.
        parts: what they are, for people.
        loss: what the quality model makes of it.
        predicted_accuracy: as a share, with `extrapolates` where it is beyond what the predictor was fitted
            to; None without a predictor.
        cost_ratios: by objective, to the anchor's, or the reference's where they are counted.
    """

    choices: Choices
    parts: tuple[str, ...] = ()
    loss: Figure
    predicted_accuracy: Figure | None = None
    extrapolates: bool | None = None
    cost_ratios: dict[str, Figure]
    latency_ms: Milliseconds | None
    throughput_per_s: Figure | None = None
    energy_mj: Figure | None = None
    macs: Count
    params: Count

    @property
    def point(self) -> Point:
        """The network as the search saw it."""
        return Point(choices=self.choices, loss=self.loss, costs=tuple(self.cost_ratios.values()))


@dataclass(frozen=True, kw_only=True)
class RefusedChoice:
    """A choice that holds operators which the device forbids."""

    part: Position
    choice: Position
    operators: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FrontRecord:
    """`front.json`: what a search found.

    Attributes:
        exact: how far the front is from the exact one under additive costs; None where that is too large.
        reference_latency_ms: the reference's, in the middle of the search; None where it was not measured.
        anchor: what measured costs are ratios to: the reference, where the device accepts it.
        anchor_latency_ms: its latency; None where nothing was measured.
        evaluated: how many networks the search asked for, with those that `failed`.
        front: the Pareto-optimal ones, by rising costs.
        judgement: what stands against what was measured, in sentences.

    >>> import hwnas
    >>> front = hwnas.open_run("runs/a").front("steady")
    >>> front.objectives, isinstance(front, hwnas.Front)
    (('latency',), True)
    """

    device: str
    objectives: tuple[Objective, ...]
    quality: Name = SearchSettings.quality
    strategy: Name = SearchSettings.strategy
    exact: ExactFront | None = None
    protocol: Protocol
    fingerprint: Fingerprint | None
    reference_latency_ms: Milliseconds | None = None
    anchor: Choices
    anchor_latency_ms: Milliseconds | None
    refused: tuple[RefusedChoice, ...] = ()
    evaluated: Count = 0
    failed: tuple[Point, ...] = ()
    front: tuple[FrontRow, ...]
    judgement: tuple[str, ...] = ()

    @staticmethod
    def read(folder: Path, suffix: str) -> FrontRecord:
        """Read `front.json`, or `front-SUFFIX.json`. Raises InputError: it is not what was written.

        >>> from pathlib import Path
        >>> hwnas.Front.read(Path("runs/a/devices/steady"), "") == front
        True
        """
        path = folder / f"front{suffix}.json"
        return decode(FrontRecord, read_signed(path, FRONT_SCHEMA), path)

    def write(self, folder: Path, suffix: str) -> None:
        """Write `front.json`, or `front-SUFFIX.json`.

        >>> Path("runs/mine").mkdir()
        >>> front.write(Path("runs/mine"), "-copy")
        >>> hwnas.Front.read(Path("runs/mine"), "-copy") == front
        True
        """
        write_signed(folder / f"front{suffix}.json", {"schema": FRONT_SCHEMA, **encode(self)})

    @property
    def predicts(self) -> bool:
        """Whether accuracies of its networks were predicted.

        >>> front.predicts
        False
        """
        return any(row.predicted_accuracy is not None for row in self.front)

    def describe(self) -> str:
        """Say how much was searched, and how far the front is from the exact one.

        >>> front.describe().startswith("search: ")
        True
        """
        text = f"search: {self.evaluated} networks, {len(self.front)} on the front"
        if self.exact is not None:
            text += (
                f", which has {self.exact.hypervolume:.1%} of the exact front's hypervolume by additive costs"
            )
        return text


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """`search.json`: every network that a search asked for."""

    objectives: tuple[Objective, ...] = ()
    points: tuple[Point, ...]

    @staticmethod
    def read(folder: Path, suffix: str) -> SearchRecord:
        """Read `search.json`, or `search-SUFFIX.json`. Raises InputError: it is not what was written."""
        path = folder / f"search{suffix}.json"
        return decode(SearchRecord, read_signed(path, SEARCH_SCHEMA), path)

    def write(self, folder: Path, suffix: str) -> None:
        """Write `search.json`, or `search-SUFFIX.json`."""
        write_signed(folder / f"search{suffix}.json", {"schema": SEARCH_SCHEMA, **encode(self)})
