"""What each choice costs on its own on a device, and which ones the search can do without."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.search.filter import ChoiceCost, filter_choices
from hwnas.compress.settings import MEASURED, TIMED, Objective
from hwnas.errors import DeviceError, InputError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import Measurement, MeasurementFailure, MeasurementResult, Protocol
from hwnas.networks.blocks.cut import is_left_out
from hwnas.profiles.session import Session
from hwnas.progress import Progress
from hwnas.ranges import Figure, Milliseconds, Position

BLOCKS_SCHEMA = "hwnas.blocks/1"
Key = tuple[int, int]
"""A part and a choice of it."""
CostName = Literal["latency", "energy", "macs"]
UNITS: dict[CostName, str] = {"latency": "ms", "energy": "mJ", "macs": "MACs"}


@dataclass(frozen=True, kw_only=True)
class PartCosts:
    """The choices of one part; part 0 is the stem, the last one the head."""

    part: Position
    name: str
    choices: tuple[ChoiceCost, ...]


@dataclass(frozen=True, kw_only=True)
class BlockCosts:
    """What was found out about every choice of every part.

    Attributes:
        reference_latency_ms: the whole reference's in the same session; None where the cost is MACs, or where
            the device refuses the reference.
        anchor_latency_ms: that of the session's anchor, which is the reference where the device accepts it.
        threshold: of the filter.
        joints: cost of the parts between those with a number, together; None where one could not be measured.
    """

    cost: CostName
    protocol: Protocol | None
    reference_latency_ms: Milliseconds | None
    anchor_latency_ms: Milliseconds | None = None
    threshold: Figure
    parts: tuple[PartCosts, ...]
    joints: Figure | None = 0.0

    @property
    def choices(self) -> list[list[int]]:
        """What the filter leaves for each part."""
        return [[choice.choice for choice in part.choices if choice.kept] for part in self.parts]

    @staticmethod
    def read(folder: Path, suffix: str) -> BlockCosts | None:
        """Read `blocks.json`, or `blocks-SUFFIX.json`; None where no filter was used.

        Raises:
            InputError: it is not what was written.
        """
        path = folder / f"blocks{suffix}.json"
        if not path.is_file():
            return None
        return decode(BlockCosts, read_signed(path, BLOCKS_SCHEMA), path)

    def write(self, folder: Path, suffix: str) -> None:
        """Write `blocks.json`, or `blocks-SUFFIX.json`, with the unit of the costs."""
        plain = {"schema": BLOCKS_SCHEMA, **encode(self), "unit": UNITS[self.cost]}
        write_signed(folder / f"blocks{suffix}.json", plain)

    def describe(self) -> str:
        """What the filter removed and why, for people: a line for all, and one for each part."""
        candidates = [choice for part in self.parts for choice in part.choices if choice.choice]
        removed = sum(not choice.kept for choice in candidates)
        lines = [
            f"filter: {removed} of {len(candidates)} candidates removed: another choice of the block has no "
            f"higher loss and a {self.cost} ratio that is lower by more than {self.threshold:g}"
        ]
        for part in self.parts:
            gone = [_explained(choice) for choice in part.choices if choice.choice and not choice.kept]
            if gone:
                lines.append(f"  {part.name}: {', '.join(gone)}")
        return "\n".join(lines)


def counted_block_costs(
    stitcher: Stitcher,
    choices: Sequence[Sequence[int]],
    metric: str,
    objectives: Sequence[Objective],
    threshold: float,
) -> BlockCosts:
    """The MACs of every choice, and the filter by them; no device is asked. Arguments as for measuring."""
    costs = {key: float(stitcher.part_cost(*key)[0]) for key in _keys(choices)}
    parts = _filtered(stitcher, costs, metric, objectives, threshold)
    return BlockCosts(cost="macs", protocol=None, reference_latency_ms=None, threshold=threshold, parts=parts)


def measured_block_costs(
    session: Session,
    stitcher: Stitcher,
    choices: Sequence[Sequence[int]],
    metric: str,
    objectives: Sequence[Objective],
    threshold: float,
    progress: Progress,
) -> BlockCosts:
    """Measure every choice as a network of its own, and filter by that.

    The cost is the energy where that is an objective and time is none, otherwise the latency, corrected for
    drift by the session's anchor. What was measured before is remembered.

    Args:
        choices: of each part, by part.
        metric: the block loss.

    Raises:
        DeviceError: none of them could be measured.
    """
    all_keys = _keys(choices)
    keys = [key for key in all_keys if not is_left_out(stitcher.spec(*key))]
    results: dict[Key, MeasurementResult] = {}
    measured = session.measure(stitcher.part_network(*key) for key in keys)
    for number, (key, (_, result)) in enumerate(zip(keys, measured, strict=True), 1):
        results[key] = result
        progress.advance("block costs", number, len(keys), stitcher.part_name(*key))
    joints = [result for _, result in session.measure(stitcher.joint_networks())]
    known = {key: result for key, result in results.items() if isinstance(result, Measurement)}
    if not known:
        reason = next(result.reason for result in results.values() if not isinstance(result, Measurement))
        raise DeviceError(
            f"no block could be measured on its own: {reason}",
            "see the reason, or do without: --filter macs, --filter none",
        )
    anchor_ms = statistics.median(ms for result in known.values() for ms in result.anchor_ms)
    energy = "energy" in objectives and not {*TIMED} & {*objectives}

    def cost_of(result: MeasurementResult) -> float | MeasurementFailure:
        if isinstance(result, MeasurementFailure):
            return result
        return energy_mj(result) if energy else result.anchor_ratio * anchor_ms

    costs = {key: cost_of(results[key]) if key in results else 0.0 for key in all_keys}
    of_joints = [cost for cost in map(cost_of, joints) if not isinstance(cost, MeasurementFailure)]
    return BlockCosts(
        cost="energy" if energy else "latency",
        protocol=session.protocol,
        reference_latency_ms=None if any(stitcher.anchor) else anchor_ms,
        anchor_latency_ms=anchor_ms,
        threshold=threshold,
        parts=_filtered(stitcher, costs, metric, objectives, threshold, known),
        joints=sum(of_joints) if len(of_joints) == len(joints) else None,
    )


def energy_mj(measurement: Measurement) -> float:
    """What a network needs for one run. Raises InputError where the device does not tell."""
    if "energy_mj" not in measurement.metrics:
        raise InputError(
            f"{measurement.fingerprint.chip} tells no energy", "take the objective latency, or a simulator"
        )
    return measurement.metrics["energy_mj"]


def _keys(choices: Sequence[Sequence[int]]) -> list[Key]:
    return [(part, choice) for part, of_part in enumerate(choices) for choice in of_part]


def _filtered(
    stitcher: Stitcher,
    costs: Mapping[Key, float | MeasurementFailure],
    metric: str,
    objectives: Sequence[Objective],
    threshold: float,
    measurements: Mapping[Key, Measurement] | None = None,
) -> tuple[PartCosts, ...]:
    """The choices of each part with their costs, filtered."""
    single = {key: m.metrics.get("single_layers_ms") for key, m in (measurements or {}).items()}
    counted = [("macs", "params").index(objective) for objective in objectives if objective not in MEASURED]
    parts = []
    for part, name in enumerate(stitcher.parts.names):
        of_part = {choice: cost for (of, choice), cost in costs.items() if of == part}
        unit = next((cost for cost in of_part.values() if not isinstance(cost, MeasurementFailure)), 0.0)
        rows = []
        for choice, cost in of_part.items():
            row = ChoiceCost(
                choice=choice,
                name=stitcher.part_name(part, choice),
                loss=stitcher.part_loss(part, choice, metric),
                single_layers_ms=single.get((part, choice)),
                other_costs=tuple(stitcher.part_cost(part, choice)[i] for i in counted),
            )
            if isinstance(cost, MeasurementFailure):
                rows.append(replace(row, reason=cost.reason, kept=choice == 0 or cost.transient))
            else:
                rows.append(replace(row, cost=cost, cost_ratio=cost / unit if unit else None))
        parts.append(PartCosts(part=part, name=name, choices=tuple(filter_choices(rows, threshold))))
    return tuple(parts)


def _explained(choice: ChoiceCost) -> str:
    why = choice.reason or f"{choice.cost_ratio:.2f}, beaten by {choice.beaten_by}"
    return f"{choice.choice} {choice.name} ({why})"
