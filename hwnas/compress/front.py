"""One device's search: every network that NSGA-II asks for is measured there, whole."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from hwnas.compress.progress import Progress
from hwnas.compress.run import RunDirectory
from hwnas.compress.search import Costs, Point, pareto_front, search
from hwnas.compress.settings import MEASURED, TIMED, LibrarySettings, Objective, SearchSettings
from hwnas.compress.stitch import Choices, Stitcher
from hwnas.errors import DeviceError, InputError
from hwnas.files import encode, write_json
from hwnas.measurement import DeviceProfile, Fingerprint, Measurement, Protocol
from hwnas.profiles.catalogue import load_profile, open_device, with_options
from hwnas.profiles.protocols import describe, load_protocol
from hwnas.profiles.session import Session, require_kind
from hwnas.profiles.statistics import overhead_of
from hwnas.profiles.store import MeasurementStore

FRONT_SCHEMA = "hwnas.front/1"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device profile and the protocol by which its search measures."""

    profile: DeviceProfile
    protocol: Protocol


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """What a search found.

    Attributes:
        points: every architecture that it asked for.
        front: the Pareto-optimal ones, by rising cost.
        reference_latency_ms: the reference's, in the middle of the search; None where nothing was measured.
    """

    device: str
    objective: Objective
    protocol: Protocol
    fingerprint: Fingerprint | None
    reference_latency_ms: float | None
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    rows: tuple[dict[str, Any], ...]

    @property
    def suffix(self) -> str:
        """What tells names of this objective's files apart; nothing for latency."""
        return _suffix(self.objective)

    @property
    def unit_ms(self) -> float | None:
        """What a cost of 1 stands for; None where the objective is not a time."""
        return self.reference_latency_ms if self.objective in TIMED else None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in `front.json`."""
        return {
            "schema": FRONT_SCHEMA,
            "device": self.device,
            "objective": self.objective,
            "protocol": encode(self.protocol),
            "fingerprint": None if self.fingerprint is None else encode(self.fingerprint),
            "reference_latency_ms": self.reference_latency_ms,
            "evaluated": len(self.points),
            "failed": [encode(point) for point in self.points if point.reason is not None],
            "front": list(self.rows),
        }


def target_of(settings: SearchSettings) -> Target:
    """The device and protocol that the settings name, checked before any work is done.

    Raises:
        InputError, DeviceError: unknown, refused, or its latencies mean nothing (an emulator).
    """
    profile = load_profile(settings.device)
    profile = with_options(
        profile,
        batch=settings.batch,
        any_gpu=settings.any_gpu or None,
        allow_fallback=settings.allow_fallback or None,
    )
    if settings.batch is not None:
        profile = replace(profile, name=f"{profile.name}-batch-{settings.batch}")  # a folder of its own
    require_kind(open_device(profile), {"measured", "modelled"}, "a search")
    return Target(profile=profile, protocol=load_protocol(settings.protocol))


def search_device(
    run: RunDirectory,
    stitcher: Stitcher,
    library: LibrarySettings,
    settings: SearchSettings,
    target: Target,
    progress: Progress,
) -> SearchOutcome:
    """Search for one device, and write `front.json` and `search.json` into its folder.

    Another objective than latency has files of its own, such as `front-macs.json`.

    What was measured before is remembered, so a search that was stopped, repeated with the same settings,
    goes the same way again and measures only what is missing.

    Raises:
        HwnasError: no architecture could be measured.
    """
    folder = run.device(target.profile.name)
    measured: dict[Choices, Measurement] = {}
    fingerprint = None
    with ExitStack() as stack:
        if settings.objective in MEASURED:
            store = stack.enter_context(MeasurementStore(folder / "measurements.db"))
            session = stack.enter_context(
                Session(
                    open_device(target.profile),
                    target.protocol,
                    store,
                    anchor=stitcher.reference,
                    max_measurements=settings.max_measurements,
                )
            )
            fingerprint = session.fingerprint
            progress.say(f"search on {fingerprint.chip}, {describe(session.protocol)}")
            costs = _measured_costs(session, stitcher, settings.objective, measured)
        else:
            costs = _counts(stitcher, settings.objective)
        points = search(
            stitcher.choices,
            lambda choices: stitcher.loss(choices, library.loss),
            costs,
            population=settings.population,
            generations=settings.generations,
            seed=library.seed,
            progress=lambda generation, seen: progress.advance(
                "search", generation, settings.generations, f"{seen} networks"
            ),
        )
    anchors = [value for measurement in measured.values() for value in measurement.anchor_ms]
    reference_latency_ms = statistics.median(anchors) if anchors else None
    write_json(
        folder / f"search{_suffix(settings.objective)}.json",
        {"schema": "hwnas.search/1", "points": [encode(p) for p in points]},
    )
    front = pareto_front(points)
    outcome = SearchOutcome(
        device=target.profile.name,
        objective=settings.objective,
        protocol=target.protocol,
        fingerprint=fingerprint,
        reference_latency_ms=reference_latency_ms,
        points=tuple(points),
        front=tuple(front),
        rows=tuple(
            _row(point, stitcher, measured.get(point.choices), reference_latency_ms) for point in front
        ),
    )
    write_json(folder / f"front{outcome.suffix}.json", outcome.to_json())
    progress.say(f"search: {len(points)} networks, {len(front)} on the front")
    overhead = overhead_of(measured.values())
    if overhead:
        progress.say(overhead)
    return outcome


def _measured_costs(
    session: Session, stitcher: Stitcher, objective: Objective, measured: dict[Choices, Measurement]
) -> Costs:
    """Costs by measuring, as ratios to the reference; what was measured is put into `measured`."""

    def costs(batch: Sequence[Choices]) -> list[float | str]:
        answers: list[float | str] = []
        results = session.measure(stitcher.network(choices) for choices in batch)
        for choices, (_, result) in zip(batch, results, strict=True):
            if not isinstance(result, Measurement):
                answers.append(result.reason)
                continue
            measured[choices] = result
            answers.append(result.anchor_ratio if objective in TIMED else _energy_mj(result) / whole_mj)
        return answers

    whole_mj = 1.0
    if objective == "energy":
        ((_, reference),) = session.measure([stitcher.reference])
        if not isinstance(reference, Measurement):
            raise DeviceError(
                f"the reference could not be measured: {reference.reason}",
                "see the reason; hwnas devices lists other devices",
            )
        whole_mj = _energy_mj(reference)
    return costs


def _energy_mj(measurement: Measurement) -> float:
    if "energy_mj" not in measurement.metrics:
        raise InputError(
            f"{measurement.fingerprint.chip} tells no energy", "take the objective latency, or a simulator"
        )
    return measurement.metrics["energy_mj"]


def _suffix(objective: Objective) -> str:
    return "" if objective == "latency" else f"-{objective}"


def _counts(stitcher: Stitcher, objective: Objective) -> Costs:
    index = ("macs", "params").index(objective)
    whole = stitcher.cost((0,) * stitcher.parts.block_count)[index]
    return lambda batch: [stitcher.cost(choices)[index] / whole for choices in batch]


def _row(
    point: Point, stitcher: Stitcher, measurement: Measurement | None, reference_latency_ms: float | None
) -> dict[str, Any]:
    macs, params = stitcher.cost(point.choices)
    names = [
        stitcher.entries[n, choice].candidate.spec.name if choice else "reference"
        for n, choice in enumerate(point.choices, 1)
    ]
    row: dict[str, Any] = {
        "choices": list(point.choices),
        "blocks": names,
        "loss": point.loss,
        "cost_ratio": point.cost,
        "latency_ms": None,
        "throughput_per_s": None,
        "energy_mj": None,
        "macs": macs,
        "params": params,
    }
    if measurement is not None and reference_latency_ms is not None:
        row["latency_ms"] = measurement.anchor_ratio * reference_latency_ms
        row["throughput_per_s"] = 1000 * measurement.metrics.get("batch_size", 1) / row["latency_ms"]
        row["energy_mj"] = measurement.metrics.get("energy_mj")
    return row
