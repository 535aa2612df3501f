"""One device's search: every network that its strategy asks for is measured there, whole."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.stitch import Choices
from hwnas.compress.quality.kinds import QualityModel
from hwnas.compress.search.block_costs import BlockCosts, counted_block_costs, measured_block_costs
from hwnas.compress.search.costs import MeasuredCosts, confirmed, counted_costs, time_ratio
from hwnas.compress.search.initial_tables import block_tables, choice_sizes
from hwnas.compress.search.points import Point, pareto_front
from hwnas.compress.search.record import FrontRecord, FrontRow, RefusedChoice, SearchRecord
from hwnas.compress.search.strategies import Problem, explore, hypervolume_ratio
from hwnas.devices.base import Device
from hwnas.measurement import Fingerprint, Measurement
from hwnas.profiles.judgement import judge, sentences
from hwnas.profiles.protocols import confirming, describe
from hwnas.profiles.session import Session
from hwnas.profiles.statistics import overhead_of


def search_device(device: DeviceRun, quality: QualityModel) -> FrontRecord:
    """Search for one device, and write `front.json` and `search.json` into its folder.

    Other objectives than latency alone, other quality models than `loss` and other strategies than NSGA-II
    have files of their own, such as `front-latency-params.json` or `front-predictor-random.json`.

    What was measured before is remembered, so a search that was stopped, repeated with the same settings,
    goes the same way again and measures only what is missing.

    Raises:
        HwnasError: no architecture could be measured.
    """
    run, settings, stitcher = device.run, device.search, device.stitcher
    measurements: dict[Choices, Measurement] = {}
    fingerprint: Fingerprint | None = None
    is_noisy = False
    with ExitStack() as stack:
        session = None
        if settings.uses_device:
            session = stack.enter_context(device.session(device.target.protocol))
            fingerprint = session.fingerprint
            is_noisy = settings.measures and _is_noisy(device, session)
            _say_session(device, session)
        blocks = _block_costs(device, session, quality.metric)
        choices = stitcher.choices if blocks is None else blocks.choices
        costs = counted_costs(stitcher, settings.objectives)
        if settings.measures:
            assert session is not None
            costs = MeasuredCosts(session, stitcher, settings.objectives)
            measurements = costs.measurements
        problem = Problem(
            choices=choices,
            loss=quality.loss,
            costs=costs,
            initial=block_tables(stitcher, quality, choices, blocks, settings.objectives),
            sizes=choice_sizes(stitcher, choices),
        )

        def after_generation(generation: int, seen: int) -> None:
            run.directory.cost_log.record("search", device.name)
            run.progress.advance("search", generation, settings.generations, f"{seen} networks")

        points = explore(problem, settings, run.settings.seed, after_generation)
    if is_noisy:
        points = _confirm(device, points, measurements)
    SearchRecord(objectives=settings.objectives, points=tuple(points)).write(device.folder, settings.suffix)
    found = _record(device, quality, problem, points, measurements, fingerprint)
    found.write(device.folder, settings.suffix)
    run.progress.say(found.describe())
    overhead = overhead_of(measurements.values())
    if overhead:
        run.progress.say(overhead)
    return found


def _is_noisy(device: DeviceRun, session: Session) -> bool:
    """Whether the front is measured again: not where answers never change, or each one is paid for."""
    directly = isinstance(session.device, Device) and session.device.kind == "measured"
    return directly and device.search.max_measurements is None


def _say_session(device: DeviceRun, session: Session) -> None:
    say, stitcher = device.run.progress.say, device.stitcher
    say(f"search on {session.fingerprint.chip}, {describe(session.protocol)}")
    if any(stitcher.anchor):
        say(
            "the device refuses the reference, whose latency there stays unknown; costs are ratios "
            f"to {stitcher.anchor_name}, the accepted architecture with the lowest loss"
        )


def _block_costs(device: DeviceRun, session: Session | None, metric: str) -> BlockCosts | None:
    """What each choice costs on its own, filtered; it goes into `blocks.json`. None without a filter."""
    settings, stitcher, progress = device.search, device.stitcher, device.run.progress
    how = (stitcher.choices, metric, settings.objectives, settings.filter_threshold)
    if settings.filter == "none":
        (device.folder / f"blocks{settings.suffix}.json").unlink(missing_ok=True)
        return None
    if settings.filter == "macs":
        found = counted_block_costs(stitcher, *how)
    else:
        assert session is not None
        found = measured_block_costs(session, stitcher, *how, progress)
    found.write(device.folder, settings.suffix)
    progress.say(found.describe())
    device.run.directory.cost_log.record("block costs", device.name)
    return found


def _confirm(
    device: DeviceRun, points: Sequence[Point], measurements: dict[Choices, Measurement]
) -> list[Point]:
    """Measure the front again; see `confirmed`. What was measured replaces what it seemed to be."""
    before = {point.choices for point in pareto_front(points)}
    progress, stitcher = device.run.progress, device.stitcher
    with device.session(confirming(device.target.protocol)) as session:
        progress.say(f"measuring the front again, {describe(session.protocol)}")

        def told(number: int, count: int) -> None:
            progress.advance("front again", number, count)

        costs = MeasuredCosts(session, stitcher, device.search.objectives, told)
        for again in confirmed(points, costs, stitcher.anchor):
            points = again
            device.run.directory.cost_log.record("search", device.name)
    measurements |= costs.measurements
    left = before - {point.choices for point in pareto_front(points)}
    progress.say(f"{len(left)} of {len(before)} networks of the front only seemed to belong to it")
    return list(points)


def _record(
    device: DeviceRun,
    quality: QualityModel,
    problem: Problem,
    points: Sequence[Point],
    measurements: Mapping[Choices, Measurement],
    fingerprint: Fingerprint | None,
) -> FrontRecord:
    settings, stitcher = device.search, device.stitcher
    anchors = [value for measurement in measurements.values() for value in measurement.anchor_ms]
    anchor_latency_ms = statistics.median(anchors) if anchors else None
    front = pareto_front(points)
    return FrontRecord(
        device=device.name,
        objectives=settings.objectives,
        quality=settings.quality,
        strategy=settings.strategy,
        exact=hypervolume_ratio(problem, points, front),
        protocol=device.target.protocol,
        fingerprint=fingerprint,
        reference_latency_ms=None if any(stitcher.anchor) else anchor_latency_ms,
        anchor=stitcher.anchor,
        anchor_latency_ms=anchor_latency_ms,
        refused=tuple(
            RefusedChoice(part=part, choice=choice, operators=operators)
            for (part, choice), operators in stitcher.refused.items()
        ),
        evaluated=len(points),
        failed=tuple(point for point in points if point.reason is not None),
        front=tuple(
            _row(device, quality, point, measurements.get(point.choices), anchor_latency_ms)
            for point in front
        ),
        judgement=tuple(sentences([judge(measurement) for measurement in measurements.values()])),
    )


def _row(
    device: DeviceRun,
    quality: QualityModel,
    point: Point,
    measurement: Measurement | None,
    anchor_latency_ms: float | None,
) -> FrontRow:
    stitcher, predicted = device.stitcher, quality.predicted(point.choices)
    macs, params = stitcher.cost(point.choices)
    latency_ms = throughput_per_s = energy_mj = None
    if measurement is not None and anchor_latency_ms is not None:
        latency_ms = time_ratio(stitcher, point.choices, measurement) * anchor_latency_ms
        throughput_per_s = 1000 * measurement.metrics.get("batch_size", 1) / latency_ms
        energy_mj = measurement.metrics.get("energy_mj")
    return FrontRow(
        choices=point.choices,
        parts=tuple(stitcher.part_name(n, choice) for n, choice in enumerate(point.choices)),
        loss=point.loss,
        predicted_accuracy=None if predicted is None else predicted[0],
        extrapolates=None if predicted is None else predicted[1],
        cost_ratios=dict(zip(device.search.objectives, point.costs or (), strict=True)),
        latency_ms=latency_ms,
        throughput_per_s=throughput_per_s,
        energy_mj=energy_mj,
        macs=macs,
        params=params,
    )
