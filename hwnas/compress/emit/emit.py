"""From points of the front to checkpoints: stitch, recalibrate, finetune, evaluate, measure, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.compress.data import Data
from hwnas.compress.data.task import CLASSIFICATION, Task
from hwnas.compress.emit.checkpoint import is_intact, write_checkpoint
from hwnas.compress.emit.summary import Summary, read_summary
from hwnas.compress.library.stitch import Choices
from hwnas.compress.quality.finetune import Finetuner
from hwnas.compress.reference.reloaded import confirm_stored
from hwnas.compress.search.pick import check_rule, pick
from hwnas.compress.search.points import Point
from hwnas.compress.search.search import SearchOutcome, Target, measurements_file
from hwnas.compress.settings import TIMED, SearchSettings
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import mean_score, paired_difference
from hwnas.errors import DeviceError, InputError, NetworkFormError
from hwnas.files import safe_name
from hwnas.measurement import Interval, Measurement, Precision
from hwnas.network import Network
from hwnas.networks.checks import answer_of
from hwnas.networks.exported import network_of
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.protocols import REPORT, describe
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session
from hwnas.profiles.statistics import median_interval
from hwnas.profiles.store import MeasurementStore


@dataclass(frozen=True, kw_only=True)
class Emission:
    """What every checkpoint of one search is made from.

    Attributes:
        command: that the user gave, for the model cards.
    """

    finetuner: Finetuner
    search: SearchSettings
    target: Target
    command: str


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """A picked network, trained, not yet measured."""

    name: str
    rule: str
    choices: Choices
    module: nn.Sequential
    network: Network
    stitched: Tensor | None
    scores: Tensor | None
    agreement: Tensor


def emit_checkpoints(
    emission: Emission, outcome: SearchOutcome
) -> tuple[list[tuple[Path, Summary]], InputError | None]:
    """Write a checkpoint for each pick; one that is already there and is the same network stays.

    The picked networks and the anchor (the reference, where the device accepts it) are measured together,
    interleaved, by the protocol `report`.

    Returns:
        The checkpoints; and why there is none for a pick, where no point of the front reaches it.

    Raises:
        DeviceError: the device cannot run a finished network.
    """
    run = emission.finetuner.run
    unreached: list[InputError] = []
    picked: list[tuple[str, Point]] = []
    for rule in emission.search.picks:
        try:
            picked.append((rule, pick(outcome.front, rule, outcome.objectives, outcome.anchor_latency_ms)))
        except InputError as error:
            unreached.append(error)
    todo = []
    for rule, point in picked:
        path = run.checkpoints / checkpoint_name(outcome.device, outcome.suffix, rule)
        if not _is_written(path, point.choices, emission.search, outcome):
            todo.append(_finish(emission, path.name, rule, point))
    if todo:
        measurements = _measure(emission, todo)
        reference = emission.finetuner.reference
        scores = loop.scores(reference.module(), reference.data, reference.task)
        for finished, measurement in zip(todo, measurements, strict=True):
            _say_missed(emission, finished, measurement)
            _write(emission, finished, measurement, scores)
        run.account.lap("report measurements", outcome.device)
    paths = [run.checkpoints / checkpoint_name(outcome.device, outcome.suffix, rule) for rule, _ in picked]
    checkpoints = [(path, read_summary(path)) for path in paths]
    if not unreached:
        return checkpoints, None
    return checkpoints, InputError("; ".join(error.cause for error in unreached), unreached[-1].fix)


def checkpoint_name(device: str, suffix: str, rule: str) -> str:
    """`cpu-knee`, `cpu-speedup-2`, `s20-gpu-latency-ms-1.5`; `cpu-macs-knee` for another objective."""
    return safe_name(f"{device}{suffix}-{rule.replace('=', '-')}")


def _is_written(path: Path, choices: Choices, search: SearchSettings, outcome: SearchOutcome) -> bool:
    """Whether a checkpoint is this very network, measured on a device with this fingerprint."""
    if not is_intact(path):
        return False
    summary = read_summary(path)
    same_device = outcome.fingerprint is None or outcome.fingerprint.id == summary.fingerprint
    same_training = summary.finetune_epochs == search.finetune_epochs
    same_network = summary.choices == choices and summary.anchor == outcome.anchor
    return same_network and same_training and same_device


def _finish(emission: Emission, name: str, rule: str, point: Point) -> _Finished:
    finetuner, epochs = emission.finetuner, emission.search.finetune_epochs
    reference, stitcher, data = finetuner.reference, finetuner.stitcher, finetuner.reference.data
    unfinished = stitcher.module(point.choices)
    loop.recalibrate(unfinished, data, finetuner.settings.batch_size)
    stitched = loop.scores(unfinished, data, reference.task)
    module, _ = finetuner.finetune(
        point.choices,
        epochs,
        "finetuning",
        emission.target.profile.name,
        lambda done, loss: finetuner.progress.advance(f"finetune {name}", done, epochs, f"loss {loss:.3f}"),
    )
    network = network_of(module, reference.parts, name, stitcher.calibration)
    return _Finished(
        name=name,
        rule=rule,
        choices=point.choices,
        module=module,
        network=network,
        stitched=stitched,
        scores=loop.scores(module, data, reference.task),
        agreement=loop.agreement(module, reference.module(), data, reference.task),
    )


def _measure(emission: Emission, todo: Sequence[_Finished]) -> list[Measurement]:
    finetuner, profile = emission.finetuner, emission.target.profile
    stitcher, progress = finetuner.stitcher, finetuner.progress
    names = {finished.network.hash: finished.name for finished in todo}
    measurements = {}
    with (
        MeasurementStore(measurements_file(emission.finetuner.run.device(profile.name), stitcher)) as store,
        Session(
            open_device(profile, emission.target.cluster),
            REPORT,
            store,
            anchor=stitcher.network(stitcher.anchor),
            watch=watch_queue(progress),
        ) as session,
    ):
        what = f"{', '.join(names.values())} and {stitcher.anchor_name}"
        progress.say(f"measuring {what}, {describe(session.protocol)}")
        networks = {finished.network.hash: finished.network for finished in todo}
        for network_hash, result in session.measure(networks.values()):
            if not isinstance(result, Measurement):
                raise DeviceError(
                    f"{names[network_hash]} could not be measured: {result.reason}",
                    "give the same command again once that is mended; the finetuned network is kept",
                )
            measurements[network_hash] = result
        for text in session.judgement:
            progress.say(text)
    return [measurements[finished.network.hash] for finished in todo]


def _say_missed(emission: Emission, finished: _Finished, measurement: Measurement) -> None:
    """Say so where a network surely misses, by the protocol `report`, the bound by which it was picked."""
    objectives = emission.search.objectives
    limit = check_rule(finished.rule, objectives)
    if limit is None or not {*TIMED} & {*objectives}:
        return
    in_ms = finished.rule.startswith("latency-ms")
    found = median_interval(measurement.medians_ms if in_ms else measurement.anchor_ratios)
    if found.low > limit:
        emission.finetuner.progress.say(
            f"{finished.name} misses {finished.rule}: {'ms' if in_ms else 'ratio'} {found.value:.3f} "
            f"[{found.low:.3f}, {found.high:.3f}], not {limit:.3f}. The search measured it shorter, or at a "
            "busier moment; --protocol search or report measures longer"
        )


def _write(
    emission: Emission, finished: _Finished, measurement: Measurement, reference_scores: Tensor | None
) -> None:
    reference, stitcher = emission.finetuner.reference, emission.finetuner.stitcher
    profile = emission.target.profile
    macs, params = stitcher.cost(finished.choices)
    macs_reference, params_reference = stitcher.cost((0,) * len(finished.choices))
    latency_anchor_ms = median_interval(measurement.anchor_ms)
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
        accuracy_stitched=_mean(finished.stitched),
        accuracy=_mean(finished.scores),
        accuracy_in_precision=_mean(
            _scores_in_precision(finished.network, reference.data, profile.precision, reference.task)
        ),
        accuracy_reference=_mean(reference_scores),
        accuracy_difference=None
        if finished.scores is None or reference_scores is None
        else paired_difference(finished.scores, reference_scores),
        agreement=mean_score(finished.agreement),
        task=reference.task.name,
        metric=reference.task.metric,
        agreement_metric=reference.task.agreement_metric,
        macs=macs,
        macs_reference=macs_reference,
        params=params,
        params_reference=params_reference,
        finetune_epochs=emission.search.finetune_epochs,
        protocol=measurement.protocol.name,
        fingerprint=measurement.fingerprint.id,
        command=emission.command,
        answer=answer_of(finished.module, reference.data.image_shape),
    )

    def confirm(folder: Path) -> None:
        confirm_stored(folder, finished.module, reference.data)

    entries = [stitcher.entries.get((n, choice)) for n, choice in enumerate(finished.choices)]
    write_checkpoint(
        emission.finetuner.run.checkpoints / finished.name,
        module=finished.module,
        architecture=reference.architecture([entry.candidate.spec if entry else None for entry in entries]),
        network=finished.network,
        measurement=measurement,
        summary=summary,
        confirm=confirm,
    )


def _scores_in_precision(
    network: Network, data: Data, precision: Precision, task: Task = CLASSIFICATION
) -> Tensor | None:
    """The task's metric for each image of the test part, by the graph in a device's precision, on this CPU.

    None without targets, in fp32, and where the network has no graph in that precision.
    """
    import onnxruntime as ort

    if precision == "fp32" or data.test.labels is None:
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
        output = torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0])
        scores.append(task.score(output, targets))
    return torch.cat(scores)


def _mean(scores: Tensor | None) -> Interval | None:
    return None if scores is None else mean_score(scores)
