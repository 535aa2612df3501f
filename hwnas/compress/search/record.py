"""What a run directory says of a device's search."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.compress.library.stitch import Choices
from hwnas.compress.search.points import Point
from hwnas.compress.search.strategies import ExactShare
from hwnas.compress.settings import Quality, Strategy
from hwnas.measurement import Fingerprint, Protocol
from hwnas.ranges import Count, Figure, Milliseconds


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A network of the front; None where a figure is not known."""

    choices: Choices
    loss: Figure
    cost_ratios: dict[str, Figure]
    latency_ms: Milliseconds | None
    macs: Count
    params: Count
    predicted_accuracy: Figure | None = None
    extrapolates: bool | None = None


@dataclass(frozen=True, kw_only=True)
class FrontRecord:
    """`front.json`."""

    device: str
    objectives: tuple[str, ...]
    protocol: Protocol
    fingerprint: Fingerprint | None
    anchor: Choices
    anchor_latency_ms: Milliseconds | None
    front: tuple[FrontRow, ...]
    quality: Quality = "loss"
    strategy: Strategy = "nsga2"
    exact: ExactShare | None = None
    judgement: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """`search.json`."""

    points: tuple[Point, ...]
