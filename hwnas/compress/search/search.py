"""One device's search: every network that its strategy asks for is measured there, whole."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.compress.library.operators import check_forbidden
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.quality.model import Quality
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.search.block_costs import BlockCosts, counted_block_costs, measured_block_costs
from hwnas.compress.search.costs import confirmed, counted_costs, measured_costs, time_ratio
from hwnas.compress.search.initial_tables import block_prior, choice_sizes
from hwnas.compress.search.pick import check_rule
from hwnas.compress.search.points import Point, pareto_front
from hwnas.compress.search.strategies import ExactShare, Problem, exact_share, explore
from hwnas.compress.settings import LibrarySettings, Objective, SearchSettings, Strategy
from hwnas.compress.settings import Quality as QualityName
from hwnas.devices.base import Device
from hwnas.errors import InputError, NetworkFormError, PreparationError
from hwnas.files import encode, write_signed
from hwnas.measurement import DeviceProfile, Fingerprint, Measurement, Protocol
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile, open_device, with_options
from hwnas.profiles.judgement import judge, sentences
from hwnas.profiles.protocols import confirming, describe, load_protocol
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session, require_kind
from hwnas.profiles.statistics import overhead_of
from hwnas.profiles.store import MeasurementStore
from hwnas.progress import Progress

FRONT_SCHEMA = "hwnas.front/2"
SEARCH_SCHEMA = "hwnas.search/2"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device profile and the protocol by which its search measures.

    Attributes:
        cluster: address of the Ray cluster that has the device; empty where it hangs on this machine.
    """

    profile: DeviceProfile
    protocol: Protocol
    cluster: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """What a search found.

    Attributes:
        points: every architecture that it asked for.
        front: the Pareto-optimal ones, by rising costs.
        reference_latency_ms: the reference's, in the middle of the search; None where it was not measured.
        anchor: what measured costs are ratios to: the reference, where the device accepts it.
        anchor_latency_ms: its latency; None where nothing was measured.
        refused: the choices that hold operators which the device forbids.
        judgement: what stands against what was measured, in sentences.
        exact: how far the front is from the exact one under additive costs; None where that is too large.
        suffix: what tells names of this search's files apart; nothing for the usual one.
    """

    device: str
    objectives: tuple[Objective, ...]
    quality: QualityName
    strategy: Strategy
    suffix: str
    exact: ExactShare | None
    protocol: Protocol
    fingerprint: Fingerprint | None
    reference_latency_ms: float | None
    anchor: Choices
    anchor_latency_ms: float | None
    refused: tuple[dict[str, Any], ...]
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    rows: tuple[dict[str, Any], ...]
    judgement: tuple[str, ...]

    def describe(self) -> str:
        """How much was searched, and how far the front is from the exact one, for people."""
        text = f"search: {len(self.points)} networks, {len(self.front)} on the front"
        if self.exact is not None:
            text += (
                f", which has {self.exact.hypervolume:.1%} of the exact front's hypervolume by additive costs"
            )
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in `front.json`."""
        return {
            "schema": FRONT_SCHEMA,
            "device": self.device,
            "objectives": list(self.objectives),
            "quality": self.quality,
            "strategy": self.strategy,
            "exact": None if self.exact is None else encode(self.exact),
            "protocol": encode(self.protocol),
            "fingerprint": None if self.fingerprint is None else encode(self.fingerprint),
            "reference_latency_ms": self.reference_latency_ms,
            "anchor": list(self.anchor),
            "anchor_latency_ms": self.anchor_latency_ms,
            "refused": list(self.refused),
            "evaluated": len(self.points),
            "failed": [encode(point) for point in self.points if point.reason is not None],
            "front": list(self.rows),
            "judgement": list(self.judgement),
        }


def target_of(settings: SearchSettings) -> Target:
    """The device and protocol that the settings name, checked before any work is done, as are the picks.

    Raises:
        InputError, DeviceError: unknown, refused, or its latencies mean nothing (an emulator).
    """
    for rule in settings.picks:
        check_rule(rule, settings.objectives)
    profile = profile_of(
        settings.device,
        batch=settings.batch,
        any_gpu=settings.any_gpu,
        allow_fallback=settings.allow_fallback,
    )
    require_kind(open_device(profile), {"measured", "modelled"}, "a search")
    check_forbidden(profile)
    return Target(profile=profile, protocol=load_protocol(settings.protocol))


def profile_of(device: str, *, batch: int | None, any_gpu: bool, allow_fallback: bool) -> DeviceProfile:
    """A device's profile with what the command says; see `SearchSettings`. Raises InputError: unknown."""
    options = {"batch": batch, "any_gpu": any_gpu or None, "allow_fallback": allow_fallback or None}
    profile = with_options(load_profile(device), **options)
    if batch is None:
        return profile
    return replace(profile, name=f"{profile.name}-batch-{batch}")  # a folder of its own


def require_energy(profile: DeviceProfile, network: Network, cluster: str = "") -> None:
    """Refuse the objective energy before anything is trained for it.

    A queue is not asked, since its jobs cost, and neither is a device that cannot run this network.

    Args:
        cluster: as for `open_device`.

    Raises:
        InputError: the device does not tell what a network needs.
    """
    device = open_device(profile, cluster)
    if not isinstance(device, Device):
        return
    with device:
        try:
            handle = device.prepare(network)
        except (PreparationError, NetworkFormError):
            return
        device.release(handle)
    if "energy_mj" not in handle.metrics:
        raise InputError(f"{profile.name} tells no energy", "take the objective latency, or a simulator")


def search_device(
    run: RunDirectory,
    stitcher: Stitcher,
    quality: Quality,
    library: LibrarySettings,
    settings: SearchSettings,
    target: Target,
    progress: Progress,
) -> SearchOutcome:
    """Search for one device, and write `front.json` and `search.json` into its folder.

    Other objectives than latency alone, other quality models than `loss` and other strategies than NSGA-II
    have files of their own, such as `front-latency-params.json` or `front-predictor-random.json`.

    What was measured before is remembered, so a search that was stopped, repeated with the same settings,
    goes the same way again and measures only what is missing.

    Raises:
        HwnasError: no architecture could be measured.
    """
    folder = run.device(target.profile.name)
    measured: dict[Choices, Measurement] = {}
    fingerprint = None
    with ExitStack() as stack:
        session = None
        if settings.uses_device:
            session = stack.enter_context(
                _open_session(folder, stitcher, target, target.protocol, settings, progress)
            )
            fingerprint = session.fingerprint
            progress.say(f"search on {fingerprint.chip}, {describe(session.protocol)}")
            if any(stitcher.anchor):
                progress.say(
                    f"the device refuses the reference, whose latency there stays unknown; costs are ratios "
                    f"to {stitcher.anchor_name}, the accepted architecture with the lowest loss"
                )
        choices, blocks = _filtered_choices(folder, session, stitcher, quality.metric, settings, progress)
        if settings.filter != "none":
            run.account.lap("block costs", target.profile.name)
        if settings.measures:
            assert session is not None
            costs = measured_costs(session, stitcher, settings.objectives, measured)
        else:
            costs = counted_costs(stitcher, settings.objectives)

        def after_generation(generation: int, seen: int) -> None:
            run.account.lap("search", target.profile.name)
            progress.advance("search", generation, settings.generations, f"{seen} networks")

        problem = Problem(
            choices=choices,
            loss=quality.loss,
            costs=costs,
            prior=block_prior(stitcher, quality, choices, blocks, settings.objectives),
            sizes=choice_sizes(stitcher, choices),
        )
        points = explore(problem, settings, library.seed, after_generation)
    if session is not None and settings.measures and _is_noisy(session, settings):
        points = _confirm(points, run, stitcher, settings, target, measured, progress)
    anchors = [value for measurement in measured.values() for value in measurement.anchor_ms]
    anchor_latency_ms = statistics.median(anchors) if anchors else None
    write_signed(
        folder / f"search{settings.suffix}.json",
        {
            "schema": SEARCH_SCHEMA,
            "objectives": list(settings.objectives),
            "points": [encode(point) for point in points],
        },
    )
    front = pareto_front(points)
    outcome = SearchOutcome(
        device=target.profile.name,
        objectives=settings.objectives,
        quality=settings.quality,
        strategy=settings.strategy,
        suffix=settings.suffix,
        exact=exact_share(problem, points, front),
        protocol=target.protocol,
        fingerprint=fingerprint,
        reference_latency_ms=None if any(stitcher.anchor) else anchor_latency_ms,
        anchor=stitcher.anchor,
        anchor_latency_ms=anchor_latency_ms,
        refused=tuple(
            {"part": part, "choice": choice, "operators": list(operators)}
            for (part, choice), operators in stitcher.refused.items()
        ),
        points=tuple(points),
        front=tuple(front),
        rows=tuple(
            _row(
                point, settings.objectives, stitcher, quality, measured.get(point.choices), anchor_latency_ms
            )
            for point in front
        ),
        judgement=tuple(sentences([judge(measurement) for measurement in measured.values()])),
    )
    write_signed(folder / f"front{outcome.suffix}.json", outcome.to_json())
    progress.say(outcome.describe())
    overhead = overhead_of(measured.values())
    if overhead:
        progress.say(overhead)
    return outcome


def _is_noisy(session: Session, settings: SearchSettings) -> bool:
    """Whether the front is measured again: not where answers never change, or each one is paid for."""
    directly = isinstance(session.device, Device) and session.device.kind == "measured"
    return directly and settings.max_measurements is None


def _confirm(
    points: Sequence[Point],
    run: RunDirectory,
    stitcher: Stitcher,
    settings: SearchSettings,
    target: Target,
    measured: dict[Choices, Measurement],
    progress: Progress,
) -> list[Point]:
    """The points, with those of the front measured again; see `confirmed`."""
    name, protocol = target.profile.name, confirming(target.protocol)
    before = {point.choices for point in pareto_front(points)}
    with _open_session(run.device(name), stitcher, target, protocol, settings, progress) as session:
        progress.say(f"measuring the front again, {describe(session.protocol)}")
        for again in confirmed(points, session, stitcher, settings.objectives, measured):
            points = again
            run.account.lap("search", name)
    left = before - {point.choices for point in pareto_front(points)}
    progress.say(f"{len(left)} of {len(before)} networks of the front only seemed to belong to it")
    return list(points)


@contextmanager
def _open_session(
    folder: Path,
    stitcher: Stitcher,
    target: Target,
    protocol: Protocol,
    settings: SearchSettings,
    progress: Progress,
) -> Iterator[Session]:
    """A session on the target's device by some protocol; what it measures is kept in the device's folder."""
    with (
        MeasurementStore(measurements_file(folder, stitcher)) as store,
        Session(
            open_device(target.profile, target.cluster),
            protocol,
            store,
            anchor=stitcher.network(stitcher.anchor),
            max_measurements=settings.max_measurements,
            watch=watch_queue(progress),
        ) as session,
    ):
        yield session
        for text in session.judgement:
            progress.say(text)


def measurements_file(folder: Path, stitcher: Stitcher) -> Path:
    """Where measurements are kept: those beside another anchor are ratios to something else."""
    anchor = f"-{'-'.join(map(str, stitcher.anchor))}" if any(stitcher.anchor) else ""
    return folder / f"measurements{anchor}.db"


def _filtered_choices(
    folder: Path,
    session: Session | None,
    stitcher: Stitcher,
    metric: str,
    settings: SearchSettings,
    progress: Progress,
) -> tuple[list[list[int]], BlockCosts | None]:
    """What the filter leaves for each part, and what it saw, which goes into `blocks.json`."""
    path = folder / f"blocks{settings.suffix}.json"
    how = (metric, settings.objectives, settings.filter_threshold)
    if settings.filter == "none":
        path.unlink(missing_ok=True)
        return stitcher.choices, None
    if settings.filter == "macs":
        found = counted_block_costs(stitcher, stitcher.choices, *how)
    else:
        assert session is not None
        found = measured_block_costs(session, stitcher, stitcher.choices, *how, progress)
    write_signed(path, found.to_json())
    progress.say(found.describe())
    return found.choices, found


def _row(
    point: Point,
    objectives: Sequence[Objective],
    stitcher: Stitcher,
    quality: Quality,
    measurement: Measurement | None,
    anchor_latency_ms: float | None,
) -> dict[str, Any]:
    predicted = quality.predicted(point.choices)
    macs, params = stitcher.cost(point.choices)
    row: dict[str, Any] = {
        "choices": list(point.choices),
        "parts": [stitcher.part_name(n, choice) for n, choice in enumerate(point.choices)],
        "loss": point.loss,
        "predicted_accuracy": None if predicted is None else predicted[0],
        "extrapolates": None if predicted is None else predicted[1],
        "cost_ratios": dict(zip(objectives, point.costs or (), strict=True)),
        "latency_ms": None,
        "throughput_per_s": None,
        "energy_mj": None,
        "macs": macs,
        "params": params,
    }
    if measurement is not None and anchor_latency_ms is not None:
        row["latency_ms"] = time_ratio(stitcher, point.choices, measurement) * anchor_latency_ms
        row["throughput_per_s"] = 1000 * measurement.metrics.get("batch_size", 1) / row["latency_ms"]
        row["energy_mj"] = measurement.metrics.get("energy_mj")
    return row
