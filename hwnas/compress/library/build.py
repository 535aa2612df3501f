"""The block library: what is missing of it is distilled, in slices, by an executor."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from hwnas.compress.library.distill import positions_of, targets_of, teacher_statistics, total_steps
from hwnas.compress.library.run import Run
from hwnas.compress.library.teacher import Kept, Teacher, keep_features
from hwnas.compress.library.worker import TrainingContext, distill_settings, distill_slice
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.training.placement import explained_memory, give_back_memory
from hwnas.errors import HwnasError, memory_error
from hwnas.networks.architecture import Candidate
from hwnas.networks.build import build_part
from hwnas.networks.count import count


def build_library(run: Run) -> int:
    """Distil every candidate that is not done yet; each finished slice is on disk before the next starts.

    Returns:
        How many were distilled by this call without failing.

    Raises:
        HwnasError: every candidate of the library failed, or memory does not even suffice for the reference.
    """
    library, settings, progress = run.library, run.settings, run.progress
    pending = library.pending()
    slices = [pending[i : i + settings.slice_size] for i in range(0, len(pending), settings.slice_size)]
    if slices:
        with explained_memory():
            _distill_slices(run, slices)
    give_back_memory(settings.train_on)
    shutil.rmtree(library.features, ignore_errors=True)
    entries = library.entries()
    failed = [entry for entry in entries if entry.state == "failed"]
    for entry in failed:
        later = "; the next call tries it again" if entry.is_put_off else ""
        progress.say(f"{entry.candidate.name} failed and is left out: {entry.reason}{later}")
    if len(failed) == len(entries) and all(entry.is_put_off for entry in failed):
        raise memory_error(MemoryError(f"no candidate could be trained, {failed[0].reason}"))
    if len(failed) == len(entries):
        raise HwnasError(
            f"every candidate failed, the first one because {failed[0].reason}",
            "distil from another reference, or with another --loss, into a new --out PATH",
        )
    progress.say(f"library: {len(entries) - len(failed)} of {len(entries)} candidates")
    return len(pending) - len({entry.candidate for entry in failed} & set(pending))


def _distill_slices(run: Run, slices: Sequence[Sequence[Candidate]]) -> None:
    library, reference, progress, executor = run.library, run.reference, run.progress, run.executor
    data, how = reference.data, distill_settings(run.settings)
    steps = total_steps(data, how)
    total = steps * sum(len(candidates) for candidates in slices)
    done = 0

    def advance(candidates: Sequence[Candidate], step: int, loss: float) -> None:
        step = min(step, steps)  # there are more of smaller batches
        progress.advance("distill", done + step * len(candidates), total, f"{how.loss} {loss:.3f}")

    teacher, pending = Teacher(reference.parts, data, {}), [c for of_slice in slices for c in of_slice]
    kept: Kept = {}
    if executor.is_local:
        positions = positions_of(reference.parts, pending)
        kept = keep_features(teacher, library.features, positions, how.batch_size, progress.say)
        teacher = Teacher(reference.parts, data, kept)
    statistics = teacher_statistics(teacher, targets_of(reference.parts, pending), how.batch_size)
    context = TrainingContext(reference=reference, settings=run.settings, statistics=statistics, kept=kept)
    for candidates, results in executor.run(distill_slice, context, slices, advance):
        for candidate, (result, graph) in zip(candidates, results, strict=True):
            if result.smaller_batches is not None:
                smaller = f"it was given batches of {result.smaller_batches}"
                progress.say(f"{candidate.name} needs too much memory; {smaller}")
            if result.reason is not None:
                library.fail(candidate, result.reason)
                continue
            library.finish(candidate, result, graph)
            images = steps * min(how.batch_size, len(data.train))
            run.directory.cost_log.record(
                "distillation",
                images=images,
                of=len(data.train),
                macs=_trained_macs(reference, candidate),
            )
        done += steps * len(candidates)


def _trained_macs(reference: Reference, candidate: Candidate) -> int:
    """MACs of a candidate for an image of the size that it is trained with."""
    if reference.sized is None:
        return candidate.macs
    module = build_part(reference.parts, candidate.part, candidate.spec)
    return count(module, *reference.parts.in_shapes(candidate.part_name))[0]
