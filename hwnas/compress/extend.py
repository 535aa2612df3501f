"""More candidates for a run that is there already: only the new ones are distilled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.compress.executor import LocalExecutor
from hwnas.compress.library.build import build_library
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.open_run import open_inputs, prepare_training, run_of
from hwnas.compress.library.operators import check_exports
from hwnas.compress.library.space import load_space
from hwnas.compress.library.store import Library, added_candidates, store_added
from hwnas.compress.run.directory import RunDirectory, recorded_settings
from hwnas.errors import InputError
from hwnas.networks.architecture import Candidate
from hwnas.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What a space added to a library.

    Attributes:
        found: candidates of the blocks in the space.
        added: those of them that the library did not have yet.
        done: candidates distilled now without failing, those that a stopped call left among them.
    """

    space: str
    found: int
    added: int
    done: int


def extend(
    path: Path, space: str, per_block: int, progress: Progress, *, allow_code: bool = False
) -> Extension:
    """Distil the candidates of another space into a run's library, behind those that are there.

    Choices keep their numbers, even where the library is lost, so networks, checkpoints and a fitted
    predictor stay what they are; the next search on any device chooses among the new ones as well. A call
    that was stopped goes on.

    Args:
        per_block: candidates a block at most; 0 leaves it to the space.

    Raises:
        InputError: there is no run, nothing can be trained where it was, or nothing of the space fits the
            reference's blocks.
        RunDirectoryError: the run was made with other contents or versions than are found now.
    """
    settings = recorded_settings(path)
    if settings is None:
        raise InputError(
            f"{path} is not a run directory: it has no run.toml",
            "give the directory that `hwnas compress --out` named, such as runs/demo",
        )
    inputs = open_inputs(settings, progress, allow_code=allow_code)
    chosen = load_space(space)
    blocks = range(1, inputs.parts.block_count + 1)
    found = [c for c in find_candidates(inputs.measured, chosen, per_block, inputs.parts) if c.part in blocks]

    prepare_training(inputs)
    with (
        RunDirectory.open(path, settings, inputs.hashes) as directory,
        Library(directory.library) as library,
    ):
        library.add([*inputs.candidates, *added_candidates(path)])
        known = [entry.candidate for entry in library.entries()]
        added = _numbered(found, known)
        store_added(path, [c for c in (*known, *added) if c not in inputs.candidates])
        library.add(added)
        progress.say(f"{chosen.name}: {len(found)} candidates, {len(added)} of them new")
        check_exports(library, inputs.parts, inputs.measured, progress)
        done = build_library(run_of(inputs, directory, library, progress, LocalExecutor()))
    return Extension(space=chosen.name, found=len(found), added=len(added), done=done)


def _numbered(found: Sequence[Candidate], known: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are not known yet, numbered behind those that are."""
    names = {candidate.name for candidate in known}
    last = Counter[int]()
    for candidate in known:
        last[candidate.part] = max(last[candidate.part], candidate.choice)
    added = []
    for candidate in found:
        if candidate.name not in names:
            last[candidate.part] += 1
            added.append(replace(candidate, choice=last[candidate.part]))
    return added
