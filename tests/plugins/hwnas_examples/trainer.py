"""A block trainer that leaves candidates as they start, and judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from hwnas.compress.library.distill import Distilled, DistillSettings, initial_module
from hwnas.compress.library.metrics import ChannelStatistics, MetricsAccumulator
from hwnas.compress.library.teacher import Teacher
from hwnas.networks.architecture import Candidate


@torch.no_grad()
def as_it_starts(
    candidates: Sequence[Candidate],
    teacher: Teacher,
    statistics: Mapping[int, ChannelStatistics],
    settings: DistillSettings,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> list[Distilled]:
    """Judge each candidate with its first weights."""
    found = []
    for candidate in candidates:
        (given,), (wanted,) = (
            ends(candidate.part_name) for ends in (teacher.parts.reads, teacher.parts.gives)
        )
        module = initial_module(candidate, teacher.parts, statistics, settings.seed).eval()
        metrics = MetricsAccumulator(statistics[wanted].variance)
        for features in teacher.batches("val", settings.batch_size, [given, wanted]):
            metrics.add(module(features[given]), features[wanted])
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        found.append(Distilled(state=state, metrics=metrics.result(), end_slope=0.0, seconds=0.0))
    return found
