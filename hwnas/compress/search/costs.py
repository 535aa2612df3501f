"""What architectures cost on a device, as ratios to the anchor, and which of the lowest costs are true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.search.block_costs import energy_mj
from hwnas.compress.search.points import Costs, Evaluator, Point, pareto_front
from hwnas.compress.settings import TIMED, Objective
from hwnas.errors import DeviceError
from hwnas.measurement import Measurement
from hwnas.profiles.session import Session

FACTOR = 100
"""MACs and latency disagree by a factor of 2 to 10 between networks of one device, never by this."""


def measured_costs(
    session: Session,
    stitcher: Stitcher,
    objectives: Sequence[Objective],
    measured: dict[Choices, Measurement],
) -> Costs:
    """Costs by measuring, as ratios to the anchor; what was measured is put into `measured`."""

    def ratio(objective: Objective, choices: Choices) -> float:
        if objective in TIMED:
            return time_ratio(stitcher, choices, measured[choices])
        if objective == "energy":
            return energy_mj(measured[choices]) / whole_mj
        return _counted_ratio(stitcher, objective, choices)

    def costs(batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        answers: list[tuple[float, ...] | str] = []
        results = session.measure(stitcher.network(choices) for choices in batch)
        for choices, (_, result) in zip(batch, results, strict=True):
            if not isinstance(result, Measurement):
                answers.append(result.reason)
                continue
            wrong = implausible(result, _counted_ratio(stitcher, "macs", choices))
            if wrong is not None:
                answers.append(session.take_back(result, wrong).reason)
                continue
            measured[choices] = result
            answers.append(tuple(ratio(objective, choices) for objective in objectives))
        return answers

    whole_mj = 1.0
    if "energy" in objectives:
        ((_, anchor),) = session.measure([stitcher.network(stitcher.anchor)])
        if not isinstance(anchor, Measurement):
            raise DeviceError(
                f"{stitcher.anchor_name} could not be measured: {anchor.reason}",
                "see the reason; hwnas devices lists other devices",
            )
        whole_mj = energy_mj(anchor)
    return costs


def confirmed(
    points: Sequence[Point],
    session: Session,
    stitcher: Stitcher,
    objectives: Sequence[Objective],
    measured: dict[Choices, Measurement],
) -> Iterator[list[Point]]:
    """The points, with those of the front measured again until no other one is on it.

    Of many noisy figures the lowest are too low, and a front is made of just these. What its networks cost
    by this session replaces what they seemed to cost; those that come onto it in their place are next.

    Args:
        session: of a protocol with more repeats.
        measured: the measurements that are replaced.

    Yields:
        The points after each round.
    """
    known = {point.choices: point for point in points}
    evaluate = Evaluator(
        lambda choices: known[choices].loss, measured_costs(session, stitcher, objectives, measured)
    )
    sure = {stitcher.anchor}
    while doubtful := [point.choices for point in pareto_front(known.values()) if point.choices not in sure]:
        sure.update(doubtful)
        known |= {point.choices: point for point in evaluate(doubtful)}
        yield list(known.values())


def time_ratio(stitcher: Stitcher, choices: Choices, measurement: Measurement) -> float:
    """To the anchor; the anchor's own is 1, whatever noise there is between two measurements of it."""
    return 1.0 if choices == stitcher.anchor else measurement.anchor_ratio


def counted_costs(stitcher: Stitcher, objectives: Sequence[Objective]) -> Costs:
    """Costs that need no device, as ratios to the reference."""
    return lambda batch: [
        tuple(_counted_ratio(stitcher, objective, choices) for objective in objectives) for choices in batch
    ]


def _counted_ratio(stitcher: Stitcher, objective: Objective, choices: Choices) -> float:
    index = ("macs", "params").index(objective)
    return stitcher.cost(choices)[index] / stitcher.cost((0,) * len(choices))[index]


def implausible(measurement: Measurement, macs_ratio: float) -> str | None:
    """Why a measurement cannot be right; None where it can.

    A latency that is too high needs no check: such a network loses against the reference by itself.

    Args:
        macs_ratio: MACs of the network, in units of the reference's.
    """
    if measurement.anchor_ratio * FACTOR >= macs_ratio:
        return None
    return (
        f"{measurement.latency_ms:.3g} ms is {measurement.anchor_ratio:.3g} of the anchor's latency, with "
        f"{macs_ratio:.3g} of the MACs: the device's clock erred; the same command measures it again"
    )
