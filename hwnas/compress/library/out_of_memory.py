"""Distilling with too little memory: what does not fit gets smaller batches, and is put off at last."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hwnas.compress.library.distill import Distilled, DistillSettings
from hwnas.compress.library.metrics import ChannelStatistics
from hwnas.compress.library.store import OUT_OF_MEMORY
from hwnas.compress.library.teacher import Teacher
from hwnas.compress.training.placement import give_back_memory
from hwnas.errors import is_out_of_memory
from hwnas.networks.architecture import Candidate
from hwnas.plugins import Registry

BLOCK_TRAINERS = Registry("hwnas.block_trainers", "block trainer", "give one of them: --trainer distill")
"""Each is called as `distill.distill` is, and promises what that promises."""

SMALLEST_BATCH = 8


def distill_within_memory(
    candidates: Sequence[Candidate],
    teacher: Teacher,
    statistics: Mapping[int, ChannelStatistics],
    settings: DistillSettings,
    progress: Callable[[int, float], None],
) -> list[Distilled]:
    """Train a slice as the settings' trainer does; where memory ends, each candidate by itself.

    A candidate that fits alone has the same result as in the slice. One that does not is trained anew on as
    many images in batches of half the size, and so on; one that does not fit in batches of eight has failed,
    until the next call tries it again.
    """
    if (results := _attempt(candidates, teacher, statistics, settings, progress)) is not None:
        return results
    found = []
    for candidate in candidates:
        batch_size = settings.batch_size
        while True:
            result = _attempt(
                [candidate], teacher, statistics, with_batches_of(batch_size, settings), progress
            )
            if result is not None or batch_size // 2 < SMALLEST_BATCH:
                break
            batch_size //= 2
        if result is None:
            reason = f"{OUT_OF_MEMORY}, even in batches of {batch_size}"
            found.append(Distilled(state={}, metrics=None, end_slope=None, seconds=0.0, reason=reason))
        else:
            smaller = None if batch_size == settings.batch_size else batch_size
            found.append(replace(result[0], smaller_batches=smaller))
    return found


def with_batches_of(batch_size: int, settings: DistillSettings) -> DistillSettings:
    """Settings that train on as many images in batches of another size."""
    steps = settings.steps and math.ceil(settings.steps * settings.batch_size / batch_size)
    return replace(settings, batch_size=batch_size, steps=steps)


def _attempt(
    candidates: Sequence[Candidate],
    teacher: Teacher,
    statistics: Mapping[int, ChannelStatistics],
    settings: DistillSettings,
    progress: Callable[[int, float], None],
) -> list[Distilled] | None:
    """What the trainer gives; None where memory ended. Nothing of the attempt is kept then."""
    trainer = BLOCK_TRAINERS.load(settings.trainer)
    try:
        results: list[Distilled] = trainer(candidates, teacher, statistics, settings, progress)
        return results
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()
    give_back_memory(teacher.data.place)
    return None
