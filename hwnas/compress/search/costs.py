"""What architectures cost on a device, as ratios to the anchor, and which of the lowest costs are true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.search.block_costs import energy_mj
from hwnas.compress.search.points import Costs, Evaluator, Point, pareto_front
from hwnas.compress.settings import TIMED, Objective
from hwnas.errors import DeviceError
from hwnas.measurement import Measurement, MeasurementResult
from hwnas.profiles.session import Session

FACTOR = 100
"""MACs and latency disagree by a factor of 2 to 10 between networks of one device, never by this."""


class MeasuredCosts:
    """Costs by measuring, as ratios to the anchor.

    Args:
        session: on the device.
        objectives: one cost each.
        told: of each network that is measured, its number and how many are asked for.

    Attributes:
        measurements: of the architectures that were asked for and could be measured.

    Raises:
        DeviceError: the anchor could not be measured, whose energy is the unit.
    """

    def __init__(
        self,
        session: Session,
        stitcher: Stitcher,
        objectives: Sequence[Objective],
        told: Callable[[int, int], None] = lambda number, count: None,
    ) -> None:
        self.measurements: dict[Choices, Measurement] = {}
        self._session = session
        self._stitcher = stitcher
        self._objectives = objectives
        self._told = told
        self._anchor_mj = self._measure_anchor_mj() if "energy" in objectives else 1.0

    def __call__(self, batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        """Return the costs of each architecture, or the reason why it has none."""
        results = self._session.measure(self._stitcher.network(choices) for choices in batch)
        found = []
        for number, (choices, (_, result)) in enumerate(zip(batch, results, strict=True), 1):
            found.append(self._costs(choices, result))
            self._told(number, len(batch))
        return found

    def _costs(self, choices: Choices, result: MeasurementResult) -> tuple[float, ...] | str:
        if not isinstance(result, Measurement):
            return result.reason
        wrong = implausible(result, _counted_ratio(self._stitcher, "macs", choices))
        if wrong is not None:
            return self._session.retract(result, wrong).reason
        self.measurements[choices] = result
        return tuple(self._ratio(objective, choices) for objective in self._objectives)

    def _ratio(self, objective: Objective, choices: Choices) -> float:
        if objective in TIMED:
            return time_ratio(self._stitcher, choices, self.measurements[choices])
        if objective == "energy":
            return energy_mj(self.measurements[choices]) / self._anchor_mj
        return _counted_ratio(self._stitcher, objective, choices)

    def _measure_anchor_mj(self) -> float:
        ((_, anchor),) = self._session.measure([self._stitcher.network(self._stitcher.anchor)])
        if not isinstance(anchor, Measurement):
            raise DeviceError(
                f"{self._stitcher.anchor_name} could not be measured: {anchor.reason}",
                "see the reason; hwnas devices lists other devices",
            )
        return energy_mj(anchor)


def confirmed(points: Sequence[Point], costs: Costs, anchor: Choices) -> Iterator[list[Point]]:
    """Measure those of the front again until no other one is on it.

    Of many noisy figures the lowest are too low, and a front is made of just these. What its networks cost
    by these costs replaces what they seemed to cost; those that come onto it in their place are next.

    Args:
        costs: of a protocol with more repeats.

    Yields:
        The points after each round.
    """
    known = {point.choices: point for point in points}
    evaluate = Evaluator(lambda choices: known[choices].loss, costs)
    sure = {anchor}
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
