"""From points of the front to checkpoints: stitch, recalibrate, finetune, evaluate, measure, write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.composed import put_into
from hwnas.compress.data import Data
from hwnas.compress.emit.checkpoint import is_intact, write_checkpoint
from hwnas.compress.emit.on_device import scores_on
from hwnas.compress.emit.picking import choose
from hwnas.compress.emit.summary import DEFAULT_RUNTIME, CheckpointRecord, FurtherMetric, Summary
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.stitch import Choices
from hwnas.compress.library.target import calibration_images
from hwnas.compress.quality.finetune import finetune
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.reference.reloaded import confirm_stored
from hwnas.compress.search.pick import check_rule
from hwnas.compress.search.record import FrontRecord
from hwnas.compress.settings import TIMED, SearchSettings
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.task import Evidence, Task, joined
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import mean_score, measured, measured_difference
from hwnas.devices.host.cpu import CpuDevice
from hwnas.devices.host.device import HostDevice
from hwnas.errors import DeviceError, InputError, NetworkFormError
from hwnas.files import safe_name
from hwnas.measurement import Measurement, Precision
from hwnas.network import Network
from hwnas.networks.checks import answer_of
from hwnas.networks.exported import network_of
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.protocols import describe, load_protocol
from hwnas.profiles.statistics import median_interval


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """A picked network, trained, not yet measured."""

    name: str
    rule: str
    choices: Choices
    module: nn.Module
    network: Network
    stitched: Evidence | None
    scores: Evidence | None
    agreement: Tensor


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """Checkpoints of one search.

    Attributes:
        checkpoints: their folders, and what they say.
        unreached: why there is none for a pick, where no network of the front reaches it.
    """

    checkpoints: tuple[tuple[Path, Summary], ...]
    unreached: InputError | None


def emit_checkpoints(device: DeviceRun, found: FrontRecord, command: str) -> Emitted:
    """Write a checkpoint for each pick; one that is already there and is the same network stays.

    The picked networks and the anchor (the reference, where the device accepts it) are measured together,
    interleaved, by the protocol `report`.

    Args:
        command: that the user gave, for the model cards.

    Raises:
        DeviceError: the device cannot run a finished network.
    """
    checkpoints, search = device.run.directory.checkpoints, device.search
    unreached: list[InputError] = []
    picked: list[tuple[Path, str, Choices]] = []
    for rule in search.picks:
        path = checkpoints / checkpoint_name(found.device, search.suffix, rule)
        try:
            choices = choose(device, found, rule)
        except InputError as error:
            unreached.append(error)
        else:
            picked.append((path, rule, choices))
    todo = [
        _finish(device, path.name, rule, choices)
        for path, rule, choices in picked
        if not _is_written(path, choices, search, found)
    ]
    if todo:
        measurements = _measure(device, todo)
        reference = device.run.reference
        scores = loop.scores(reference.module(), reference.data, reference.task)
        for finished, measurement in zip(todo, measurements, strict=True):
            _say_missed(device, finished, measurement)
            _write(device, finished, measurement, scores, command)
        device.run.directory.cost_log.record("report measurements", device.name)
    why = InputError("; ".join(error.cause for error in unreached), unreached[-1].fix) if unreached else None
    written = tuple((path, CheckpointRecord.read(path).summary) for path, _, _ in picked)
    return Emitted(checkpoints=written, unreached=why)


def checkpoint_name(device: str, suffix: str, rule: str) -> str:
    """`cpu-knee`, `cpu-speedup-2`, `s20-gpu-latency-ms-1.5`; `cpu-macs-knee` for another objective."""
    return safe_name(f"{device}{suffix}-{rule.replace('=', '-')}")


def _is_written(path: Path, choices: Choices, search: SearchSettings, found: FrontRecord) -> bool:
    """Whether a checkpoint is this very network, measured on a device with this fingerprint."""
    if not is_intact(path):
        return False
    summary = CheckpointRecord.read(path).summary
    same_device = found.fingerprint is None or found.fingerprint.id == summary.fingerprint
    same_training = summary.finetune_epochs == search.finetune_epochs
    same_network = summary.choices == choices and summary.anchor == found.anchor
    return same_network and same_training and same_device


def _finish(device: DeviceRun, name: str, rule: str, choices: Choices) -> _Finished:
    run, epochs = device.run, device.search.finetune_epochs
    reference, stitcher, data = run.reference, device.stitcher, run.reference.data
    unfinished = stitcher.module(choices)
    loop.settle(unfinished, reference.module(), data, reference.task, run.settings.batch_size)
    stitched = loop.scores(unfinished, data, reference.task)
    module, _ = finetune(
        device,
        choices,
        epochs,
        lambda done, loss: run.progress.advance(f"finetune {name}", done, epochs, f"loss {loss:.3f}"),
    )
    return _Finished(
        name=name,
        rule=rule,
        choices=choices,
        module=module,
        network=network_of(module, reference.measured, name, stitcher.calibration),
        stitched=stitched,
        scores=loop.scores(module, data, reference.task),
        agreement=loop.agreement(module, reference.module(), data, reference.task),
    )


def _measure(device: DeviceRun, todo: Sequence[_Finished]) -> list[Measurement]:
    names = {finished.network.hash: finished.name for finished in todo}
    networks = {finished.network.hash: finished.network for finished in todo}
    measurements = {}
    with device.session(load_protocol(device.search.checkpoint_protocol)) as session:
        what = f"{', '.join(names.values())} and {device.stitcher.anchor_name}"
        device.run.progress.say(f"measuring {what}, {describe(session.protocol)}")
        for network_hash, result in session.measure(networks.values()):
            if not isinstance(result, Measurement):
                raise DeviceError(
                    f"{names[network_hash]} could not be measured: {result.reason}",
                    "give the same command again once that is mended; the finetuned network is kept",
                )
            measurements[network_hash] = result
    return [measurements[finished.network.hash] for finished in todo]


def _say_missed(device: DeviceRun, finished: _Finished, measurement: Measurement) -> None:
    """Say so where a checkpoint, as measured, surely misses the bound by which it was picked."""
    objectives = device.search.objectives
    limit = check_rule(finished.rule, objectives)
    if limit is None or not {*TIMED} & {*objectives}:
        return
    in_ms = finished.rule.startswith("latency-ms")
    found = median_interval(measurement.medians_ms if in_ms else measurement.anchor_ratios)
    if found.low > limit:
        device.run.progress.say(
            f"{finished.name} misses {finished.rule}: {'ms' if in_ms else 'ratio'} {found.value:.3f} "
            f"[{found.low:.3f}, {found.high:.3f}], not {limit:.3f}. The search measured it shorter, or at a "
            "busier moment; --protocol search or report measures longer"
        )


def _write(
    device: DeviceRun,
    finished: _Finished,
    measurement: Measurement,
    reference_scores: Evidence | None,
    command: str,
) -> None:
    reference, stitcher, profile = device.run.reference, device.stitcher, device.target.profile
    macs, params = stitcher.cost(finished.choices)
    macs_reference, params_reference = stitcher.cost((0,) * len(finished.choices))
    latency_anchor_ms = median_interval(measurement.anchor_ms)
    measure = reference.task.measure
    runtime, rounded = _scores_as_measured(device, finished)
    summary = Summary(
        pick=finished.rule,
        device=profile.name,
        data=reference.data.name,
        choices=finished.choices,
        latency_ms=median_interval(measurement.medians_ms),
        anchor=stitcher.anchor,
        latency_anchor_ms=latency_anchor_ms,
        latency_reference_ms=None if any(stitcher.anchor) else latency_anchor_ms,
        latency_ratio=median_interval(measurement.anchor_ratios),
        accuracy_stitched=measured(finished.stitched, measure),
        accuracy=measured(finished.scores, measure),
        accuracy_in_precision=measured(rounded, measure),
        runtime_in_precision=runtime,
        accuracy_reference=measured(reference_scores, measure),
        accuracy_difference=measured_difference(finished.scores, reference_scores, measure),
        agreement=mean_score(finished.agreement),
        task=reference.task.name,
        metric=reference.task.metric,
        agreement_metric=reference.task.agreement_metric,
        further_metrics=tuple(_further(reference.task, finished.scores, reference_scores)),
        macs=macs,
        macs_reference=macs_reference,
        params=params,
        params_reference=params_reference,
        finetune_epochs=device.search.finetune_epochs,
        protocol=measurement.protocol.name,
        fingerprint=measurement.fingerprint.id,
        command=command,
        answer=answer_of(finished.module, reference.measured.image_shape),
        trained_shape=None if reference.sized is None else reference.data.image_shape,
    )

    def confirm(folder: Path) -> None:
        confirm_stored(folder, finished.module, reference.data, shape=reference.measured.image_shape)

    entries = [stitcher.entries.get((n, choice)) for n, choice in enumerate(finished.choices)]
    write_checkpoint(
        device.run.directory.checkpoints / finished.name,
        module=finished.module,
        architecture=reference.architecture([entry.candidate.spec if entry else None for entry in entries]),
        network=finished.network,
        record=CheckpointRecord(summary=summary, measurement=measurement),
        confirm=confirm,
    )


def _further(task: Task, scores: Evidence | None, reference: Evidence | None) -> Iterator[FurtherMetric]:
    """The further metrics of a task that apply to the evidence."""
    for measure in task.further_metrics:
        value, before = measured(scores, measure), measured(reference, measure)
        difference = measured_difference(scores, reference, measure)
        if value is not None and before is not None and difference is not None:
            yield FurtherMetric(metric=measure.metric, value=value, reference=before, difference=difference)


def _scores_as_measured(device: DeviceRun, finished: _Finished) -> tuple[str, Evidence | None]:
    """The task's evidence in the precision that is measured, and by which runtime that was computed.

    It is the device's own where that is a runtime of this machine, else ONNX Runtime on this CPU. No evidence
    where that would be the graph in fp32 in ONNX Runtime, which is confirmed to answer as torch does.
    """
    reference, target = device.run.reference, device.target
    precision, data, task = target.profile.precision, reference.data, reference.task
    network = _as_trained(finished, reference)
    opened = None if target.cluster else open_device(target.profile)
    if not isinstance(opened, CpuDevice) or (isinstance(opened, HostDevice) and precision == "fp32"):
        return DEFAULT_RUNTIME, _scores_in_precision(network, data, precision, task)
    return f"{opened.runtime_name} as measured", scores_on(opened, network, finished.module, data, task)


def _as_trained(finished: _Finished, reference: Reference) -> Network:
    """The network with a graph for images of the size that it was trained with."""
    if reference.sized is None:
        return finished.network
    images = calibration_images(reference.data, reference.data.image_shape)
    return network_of(finished.module, reference.parts, finished.name, images)


def _scores_in_precision(
    network: Network, data: Data, precision: Precision, task: Task = CLASSIFICATION
) -> Evidence | None:
    """The task's evidence of each image of the test part, by the graph in a device's precision, on this CPU.

    None without targets, in fp32, where the network has no graph in that precision, and for images of several
    sizes, of which a graph has one.
    """
    import onnxruntime as ort

    if precision == "fp32" or not data.has_targets or len(data.test.sizes) > 1:
        return None
    try:
        content = network.onnx(precision)
    except NetworkFormError:
        return None
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scores = []
    for x, targets in replace(data, place="cpu").batches(data.test, 1):
        assert targets is not None
        found = session.run(None, {name: x.contiguous().numpy()})
        outputs = dict(zip(network.wiring.outputs.values(), map(torch.from_numpy, found), strict=True))
        scores.append(task.score(put_into(network.wiring.tree, outputs), targets))
    return joined(scores)
