"""What a checkpoint says of its network, as a record and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.task import ACCURACY, Metric, difference, figure, quantity
from hwnas.files import decode, encode
from hwnas.measurement import STRICT, Interval, Measurement
from hwnas.networks.intact import CHECKPOINT_RECORD, read_checkpoint_record, write_checkpoint_record
from hwnas.ranges import Count, Figure, Position, Size

DEFAULT_RUNTIME = "ONNX Runtime on a CPU"
"""By which a precision is judged where the device's own runtime is not at hand."""


@dataclass(frozen=True, kw_only=True)
class FurtherMetric:
    """A further metric of a network and its reference on the test part, with the paired difference."""

    __pydantic_config__ = STRICT
    metric: Metric
    value: Interval
    reference: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a finished checkpoint amounts to, beside its measurement.

    Attributes:
        pick: the rule by which the architecture was picked from the front.
        choices: of each part; 0 is the reference's own.
        anchor: choices of the architecture that latencies are compared with: all 0, the reference, unless
            the device refuses that.
        latency_ms, latency_anchor_ms: medians, with intervals over the repeats.
        latency_reference_ms: as the anchor's; None where the device refuses the reference.
        latency_ratio: to the anchor, the two interleaved in one session.
        accuracy_stitched: before finetuning, batch normalisation recalibrated where that helps.
        accuracy, accuracy_reference, accuracy_difference: on the test part, by the task's metric, which
            `metric` names; None without labels.
        agreement: how far network and reference give the same on the test part, by `agreement_metric`; for
            classes the share of images on which they answer alike.
        accuracy_in_precision: in the precision that was measured, by `runtime_in_precision`; None for fp32 in
            ONNX Runtime and where there is no such graph.
        further_metrics: the task's further metrics; empty without labels.
        trained_shape: (C, H, W) of the images that it was trained on; None where it is measured at that size.
        macs, params: of the network, and of the reference.
        finetune_epochs: over the training part.
        protocol: by which the latencies were taken.
        fingerprint: id of the fingerprint that they belong to.
        command: that made it.
        answer: some values of the network's output for a random input, by which it is known again.
    """

    __pydantic_config__ = STRICT
    pick: str
    device: str
    data: str
    choices: tuple[Position, ...]
    anchor: tuple[Position, ...]
    latency_ms: Interval
    latency_anchor_ms: Interval
    latency_reference_ms: Interval | None
    latency_ratio: Interval
    accuracy_stitched: Interval | None
    accuracy: Interval | None
    accuracy_reference: Interval | None
    accuracy_difference: Interval | None
    agreement: Interval
    macs: Count
    macs_reference: Count
    params: Count
    params_reference: Count
    finetune_epochs: Count
    protocol: str
    fingerprint: str
    command: str
    accuracy_in_precision: Interval | None = None
    runtime_in_precision: str = DEFAULT_RUNTIME
    task: str = "classification"
    metric: Metric = ACCURACY
    agreement_metric: Metric = CLASSIFICATION.agreement_metric
    answer: tuple[Figure, ...] | None = None
    further_metrics: tuple[FurtherMetric, ...] = ()
    trained_shape: tuple[Size, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """`measurement.json` of a checkpoint, beside the hashes that its folder is judged by."""

    summary: Summary
    measurement: Measurement

    @staticmethod
    def read(folder: Path) -> CheckpointRecord:
        """Read the record in a checkpoint's folder. Raises InputError naming what is wrong."""
        summary, measurement = read_checkpoint_record(folder)
        file = folder / CHECKPOINT_RECORD
        return CheckpointRecord(
            summary=decode(Summary, summary, f"{file}: summary"),
            measurement=Measurement.from_json(measurement, str(file)),
        )

    def write(self, folder: Path) -> None:
        """Write the record beside the network's files, whose hashes it takes."""
        write_checkpoint_record(folder, encode(self.summary), self.measurement.to_json())


def in_short(summary: Summary) -> list[tuple[str, str]]:
    """How fast, how good and how small the network is beside its reference: figures, each with its words."""
    now, before, change = summary.accuracy, summary.accuracy_reference, summary.accuracy_difference
    metric = summary.metric
    if now is not None and before is not None and change is not None:
        chance = "which may be chance" if change.low <= 0 <= change.high else "more than chance"
        quality = (
            figure(now.value, metric),
            f"{metric.name} in the place of {figure(before.value, metric)}: {difference(change, metric)} on "
            f"the same images, {chance}",
        )
    else:
        metric = summary.agreement_metric
        quality = (figure(summary.agreement.value, metric), f"{metric.name} with the reference")
    params, params_before = summary.params, summary.params_reference
    return [
        (
            f"{1 / summary.latency_ratio.value:.1f} ×",
            f"as fast as {compared_with(summary)} on {summary.device}: "
            f"{summary.latency_ms.value:.3f} ms in the place of {summary.latency_anchor_ms.value:.3f} ms",
        ),
        quality,
        (
            f"{params / params_before:.2f} ×",
            f"as many parameters: {params:,} in the place of {params_before:,}",
        ),
    ]


def agreement_of(summary: Summary) -> str:
    """How far the network gives what the reference gives, in words."""
    told = quantity(summary.agreement, summary.agreement_metric)
    if summary.task == CLASSIFICATION.name:
        return f"On {told} of these images it answers what the reference answers"
    return f"{capital(summary.agreement_metric.name)}: {told}"


def capital(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def compared_with(summary: Summary) -> str:
    """Which network's latency the ratio is to."""
    if not any(summary.anchor):
        return "the reference"
    name = "-".join(str(choice) for choice in summary.anchor)
    return f"the anchor, architecture {name} before finetuning, {milliseconds(summary.latency_anchor_ms)}"


def milliseconds(interval: Interval | None) -> str:
    """`1.234 ms [1.230, 1.241]`, or that it is not known."""
    if interval is None:
        return "not known (refused by the device)"
    return f"{interval.value:.3f} ms [{interval.low:.3f}, {interval.high:.3f}]"


def ratio(interval: Interval) -> str:
    """`0.497 [0.490, 0.503]`."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
