"""Blockwise knowledge distillation: a candidate gets what the teacher's part gets, and learns its output."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import torch
from torch import Tensor, nn

from hwnas.compress.data import Data
from hwnas.compress.library.metrics import (
    BlockMetrics,
    ChannelStatistics,
    MetricsAccumulator,
    StatisticsAccumulator,
    distance,
    mean_metrics,
)
from hwnas.compress.library.teacher import Features, Teacher
from hwnas.compress.settings import Loss
from hwnas.compress.training.loop import learning_rate_factor
from hwnas.compress.training.placement import GraphPool, channels_last, placed
from hwnas.networks.architecture import Candidate
from hwnas.networks.blocks import cut, variants
from hwnas.networks.blocks.closed_form import Moments, read_by, start_cut, take_moments
from hwnas.networks.blocks.cut import CutSpec
from hwnas.networks.blocks.families import CandidateSpec, learning_rate, start_replacement
from hwnas.networks.blocks.hidden import find_hidden
from hwnas.networks.blocks.places import in_places
from hwnas.networks.blocks.variants import VariantSpec
from hwnas.networks.build import build_block, build_part
from hwnas.networks.partition import Partition

MOMENT_IMAGES = 512
DROPPING = r".*Dropout.*|Drop.*|StochasticDepth"
"""Classes of modules that drop values by chance; a candidate depends on its seed alone."""


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How candidates are trained; the same for all of them, for fairness, but the learning rate of a family.

    Attributes:
        steps: stop after this many batches in all; None goes through all epochs.
        trainer: the name of the block trainer.
    """

    loss: Loss
    epochs: int
    steps: int | None
    batch_size: int
    seed: int
    trainer: str = "distill"


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A trained candidate, or the reason why there is none.

    Attributes:
        state: its weights; empty when it failed.
        metrics: on held-out data; None when it failed.
        end_slope: change of the logarithm of the training loss per epoch at the end of the training;
            well below zero means that it had not finished learning.
        seconds: of its own steps; for a GPU, until that has been told what to do.
        reason: why it failed.
        smaller_batches: images in a batch, where memory did not suffice for those of the settings.
    """

    state: dict[str, Tensor]
    metrics: BlockMetrics | None
    end_slope: float | None
    seconds: float
    reason: str | None = None
    smaller_batches: int | None = None


def teacher_statistics(
    teacher: Teacher, positions: Collection[int], batch_size: int
) -> dict[int, ChannelStatistics]:
    """Mean and variance of the channels at some positions over the whole training part, in one pass."""
    accumulators = {position: StatisticsAccumulator() for position in positions}
    for features in teacher.batches("train", batch_size, list(accumulators)):
        for position, accumulator in accumulators.items():
            accumulator.add(features[position])
    return {position: accumulator.result() for position, accumulator in accumulators.items()}


def targets_of(parts: Partition, candidates: Sequence[Candidate]) -> list[int]:
    """The positions of what candidates learn."""
    return sorted({position for name in {c.part_name for c in candidates} for position in parts.gives(name)})


def positions_of(parts: Partition, candidates: Sequence[Candidate]) -> list[int]:
    """Where candidates take their inputs and targets from."""
    inputs = {position for name in {c.part_name for c in candidates} for position in parts.reads(name)}
    return sorted(inputs.union(targets_of(parts, candidates)))


def distill(
    candidates: Sequence[Candidate],
    teacher: Teacher,
    statistics: Mapping[int, ChannelStatistics],
    settings: DistillSettings,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> list[Distilled]:
    """Train a slice of candidates side by side: the teacher's features of a batch serve all of them.

    A candidate's result depends on the candidate and the settings alone, not on its neighbours in the slice.

    Args:
        statistics: of the channels at the positions of the candidates' outputs, from `teacher_statistics`.
        progress: called after each step with the step's number and the mean loss.
    """
    data, positions = teacher.data, positions_of(teacher.parts, candidates)
    variances = {position: known.variance.to(data.place) for position, known in statistics.items()}
    pool = GraphPool() if data.place == "cuda" else None
    moments = _moments(candidates, teacher, settings.batch_size)
    students = [
        _Student(c, teacher.parts, statistics, settings, data, pool, moments.get(c.part, {}))
        for c in candidates
    ]
    step = 0
    for epoch in range(settings.epochs):
        for features in teacher.train_batches(settings.batch_size, settings.seed, epoch, positions):
            if step == students[0].total_steps:
                break
            learning = [student for student in students if student.reason is None]
            losses = [student.learn(features, variances, settings.loss) for student in learning]
            # A GPU is waited for once, when it has the work of all of them.
            for student, loss in zip(learning, torch.stack(losses).tolist() if losses else [], strict=True):
                student.note(loss)
            finite = [student.losses[-1] for student in learning if student.reason is None]
            step += 1
            progress(step, sum(finite) / len(finite) if finite else math.nan)
    return _evaluate(students, teacher, variances, settings.batch_size)


def total_steps(data: Data, settings: DistillSettings) -> int:
    """Batches that each candidate is trained on."""
    steps = settings.epochs * data.steps_per_epoch(settings.batch_size)
    return steps if settings.steps is None else min(steps, settings.steps)


class _Student:
    def __init__(
        self,
        candidate: Candidate,
        parts: Partition,
        statistics: Mapping[int, ChannelStatistics],
        settings: DistillSettings,
        data: Data,
        pool: GraphPool | None,
        moments: Mapping[str, Moments],
    ) -> None:
        self.candidate = candidate
        self.reads, self.gives = parts.reads(candidate.part_name), parts.gives(candidate.part_name)
        self.total_steps = total_steps(data, settings)
        self.steps_per_epoch = data.steps_per_epoch(settings.batch_size)
        self.module = initial_module(candidate, parts, statistics, settings.seed, moments)
        self.module.to(data.place).train()
        for module in self.module.modules():
            is_kept = isinstance(candidate.spec, CutSpec) and isinstance(
                module, nn.modules.batchnorm._BatchNorm
            )
            if is_kept or re.fullmatch(DROPPING, type(module).__name__):
                module.eval()
        weights = list(self.module.parameters())
        if pool is not None and weights and not isinstance(candidate.spec, VariantSpec):
            images = min(settings.batch_size, len(data.train))
            pool.add(self.module, [(images, *shape) for shape in parts.in_shapes(candidate.part_name)])
        # What has no weights learns nothing; the optimizer wants one all the same.
        self.optimizer = torch.optim.AdamW(
            weights or [nn.Parameter(torch.zeros(1))], lr=_rate(candidate.spec), weight_decay=0.0, fused=True
        )
        self.learns = bool(weights)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, self.total_steps)
        )
        self.losses: list[float] = []
        self.seconds = 0.0
        self.reason: str | None = None

    def learn(self, features: Features, variances: Mapping[int, Tensor], loss: Loss) -> Tensor:
        """One step on a batch; its loss, ()."""
        start = time.perf_counter()
        distances = [
            distance(loss, output, features[position], variances[position])
            for position, output in self.outputs(features).items()
        ]
        value = torch.stack(distances).mean()
        if self.learns:
            self.optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.scheduler.step()
        self.seconds += time.perf_counter() - start
        return value.detach()

    def outputs(self, features: Features) -> dict[int, Tensor]:
        """What it gives for a batch, by position."""
        given = self.module(*(features[position] for position in self.reads))
        return dict(zip(self.gives, given if len(self.gives) > 1 else (given,), strict=True))

    def note(self, loss: float) -> None:
        """Keep the loss of a step; one that is not finite ends the training."""
        self.losses.append(loss)
        if not math.isfinite(loss):
            self.reason = f"loss became {loss} at step {len(self.losses)}"

    def end_slope(self) -> float:
        """Change of log loss per epoch, between the last quarter of the steps and the one before it."""
        quarter = len(self.losses) // 4
        if quarter == 0:
            return 0.0
        before, last = sum(self.losses[-2 * quarter : -quarter]), sum(self.losses[-quarter:])
        return math.log(max(last, 1e-30) / max(before, 1e-30)) * self.steps_per_epoch / quarter


def _rate(spec: CandidateSpec) -> float:
    if isinstance(spec, CutSpec):
        return cut.LEARNING_RATE
    return variants.LEARNING_RATE if isinstance(spec, VariantSpec) else learning_rate(spec)


def _moments(
    candidates: Sequence[Candidate], teacher: Teacher, batch_size: int
) -> dict[int, dict[str, Moments]]:
    """What the layers of blocks read that are to be cut, over a few hundred images; by part."""
    found = {}
    cuts = [(c.part, c.part_name, c.spec) for c in candidates if isinstance(c.spec, CutSpec)]
    for part, name in sorted({(part, name) for part, name, _ in cuts}):
        position = teacher.parts.reads(name)[0]
        block = deepcopy(teacher.parts.first[part])
        groups = find_hidden(block, teacher.parts.part_shapes(part)[0])
        layers = read_by([spec for of, _, spec in cuts if of == part], block, groups)
        batches = islice(teacher.batches("train", batch_size, [position]), -(-MOMENT_IMAGES // batch_size))
        with placed(teacher.data.place, block):
            found[part] = take_moments(block, layers, (features[position] for features in batches))
    return found


def initial_module(
    candidate: Candidate,
    parts: Partition,
    statistics: Mapping[int, ChannelStatistics],
    seed: int,
    moments: Mapping[str, Moments] = MappingProxyType({}),
) -> nn.Module:
    """The candidate's untrained module; its weights depend on the seed and the candidate's name alone.

    A replacement's output starts with the teacher's mean and variance in each channel, and where its family
    can, with weights of the block; a variant starts with all of the reference's own, a cut with those that
    come nearest to the block.

    Args:
        moments: of what the block's layers read, by their names; without any a cut is by weights alone.
    """
    digest = hashlib.sha256(f"{seed}/{candidate.name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
        spec, gives = candidate.spec, parts.gives(candidate.part_name)
        if isinstance(spec, VariantSpec):
            return channels_last(build_part(parts, candidate.part, spec))
        block = parts.first[candidate.part]
        if isinstance(spec, CutSpec):
            groups = find_hidden(block, parts.part_shapes(candidate.part)[0])
            module = start_cut(spec, block, groups, moments)
        else:
            module, known = build_block(parts, candidate.part, spec), statistics[gives[0]]
            start_replacement(module, spec, block, known.mean, known.variance)
    return channels_last(in_places(module, len(gives)))


@torch.no_grad()
def _evaluate(
    students: Sequence[_Student],
    teacher: Teacher,
    variances: Mapping[int, Tensor],
    batch_size: int,
) -> list[Distilled]:
    accumulators = [
        {position: MetricsAccumulator(variances[position]) for position in student.gives}
        for student in students
    ]
    for student in students:
        student.module.eval()
    positions = positions_of(teacher.parts, [student.candidate for student in students])
    for features in teacher.batches("val", batch_size, positions):
        for student, of_student in zip(students, accumulators, strict=True):
            if student.reason is None:
                for position, output in student.outputs(features).items():
                    of_student[position].add(output, features[position])
    return [_result(student, [*acc.values()]) for student, acc in zip(students, accumulators, strict=True)]


def _result(student: _Student, accumulators: Sequence[MetricsAccumulator]) -> Distilled:
    metrics = mean_metrics([acc.result() for acc in accumulators]) if student.reason is None else None
    if metrics is not None and not math.isfinite(metrics.nsr + metrics.mse + metrics.relative_l1):
        student.reason, metrics = "its held-out metrics are not finite", None
    if metrics is None:
        return Distilled(
            state={}, metrics=None, end_slope=None, seconds=student.seconds, reason=student.reason
        )
    state = {k: v.detach().cpu().contiguous().clone() for k, v in student.module.state_dict().items()}
    return Distilled(state=state, metrics=metrics, end_slope=student.end_slope(), seconds=student.seconds)
