"""What a run directory holds, read back and validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwnas.compress.emit.summary import CheckpointRecord, Summary
from hwnas.compress.library.stitch import Choices, joined_choices
from hwnas.compress.library.store import Entry, Library
from hwnas.compress.quality.finetuned import Finetuned, FinetunedNetworks, block_metrics, is_known
from hwnas.compress.quality.predictor import Predictor
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.run.cost_log import Cost, read_costs
from hwnas.compress.run.directory import RunRecord, is_run, not_a_run
from hwnas.compress.search.block_costs import BlockCosts
from hwnas.compress.search.points import Point
from hwnas.compress.search.record import FrontRecord, SearchRecord
from hwnas.compress.settings import MEASURED, TIMED, LibrarySettings, SearchSettings
from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import safe_name
from hwnas.measurement import Measurement
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.intact import CHECKPOINT_RECORD, require_intact


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search on a device: its front, every network that it saw, and the blocks on their own.

    Attributes:
        suffix: of the names of its files; empty for NSGA-II by loss and latency.
        blocks: None where no filter was used.
    """

    suffix: str
    front: FrontRecord
    points: tuple[Point, ...]
    blocks: BlockCosts | None

    @property
    def measured(self) -> list[Point]:
        """The networks that have costs."""
        return [point for point in self.points if point.costs is not None]

    @property
    def kind(self) -> str:
        """What tells it apart from the other searches of the device, for people."""
        kinds: list[str] = [*self.front.objectives]
        kinds += [f"by {self.front.quality}"] * (self.front.quality != SearchSettings.quality)
        kinds += [self.front.strategy] * (self.front.strategy != SearchSettings.strategy)
        return ", ".join(kinds)

    @property
    def time_index(self) -> int | None:
        """Which of the costs is a time; None where none is."""
        return next((i for i, name in enumerate(self.front.objectives) if name in TIMED), None)

    def unit(self, objective: str) -> str:
        """What a cost is a ratio to; nothing is measured of a reference that the device refuses."""
        return "anchor" if any(self.front.anchor) and objective in MEASURED else "reference"

    def latency_ms(self, point: Point) -> float | None:
        """The measured latency of a network."""
        index, unit_ms = self.time_index, self.front.anchor_latency_ms
        if index is None or unit_ms is None or point.costs is None:
            return None
        return point.costs[index] * unit_ms


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An emitted network of this device."""

    name: str
    summary: Summary
    measurement: Measurement
    architecture: ArchitectureSpec


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """What one device's report is made from.

    Attributes:
        entries: the library's candidates by part and choice.
        costs: on what serves all devices, and on this one.
        predictor: of accuracy; None where there is none.
        finetuned: the networks that it was fitted to, as far as they are intact.
        lost: the files of the others.
    """

    path: Path
    folder: Path
    settings: LibrarySettings
    versions: dict[str, str]
    reference: ReferenceRecord
    entries: dict[tuple[int, int], Entry]
    costs: tuple[Cost, ...]
    searches: tuple[Search, ...]
    checkpoints: tuple[Checkpoint, ...]
    predictor: Predictor | None
    finetuned: tuple[Finetuned, ...]
    lost: tuple[Path, ...] = ()

    @property
    def device(self) -> str:
        """The device profile's name."""
        return self.searches[0].front.device

    def part_name(self, part: int, choice: int) -> str:
        """What a choice of a part is, for people."""
        if not choice:
            return "the reference's own"
        entry = self.entries.get((part, choice))
        return entry.candidate.spec.name if entry else f"choice {choice}"

    def counts(self, choices: Choices) -> tuple[int, int]:
        """MACs and parameters of an architecture."""
        return self.reference.counts(
            [self.entries[part, choice].candidate if choice else None for part, choice in enumerate(choices)]
        )


def device_folders(run: Path) -> list[Path]:
    """The folders of the devices that have a front.

    Raises:
        InputError: there is no run, or it has not searched yet.
    """
    if not is_run(run):
        raise not_a_run(run)
    folders = sorted(path.parent for path in run.glob("devices/*/front*.json"))
    if not folders:
        raise InputError(
            f"{run} has no front yet: no search has ended", "give its `hwnas compress` command again"
        )
    return list(dict.fromkeys(folders))


def device_folder(run: Path, device: str) -> Path:
    """The folder of a device that has a front. Raises InputError: it has none, with the devices that do."""
    folders = device_folders(run)
    for folder in folders:
        if folder.name == safe_name(device):
            return folder
    names = ", ".join(folder.name for folder in folders)
    raise InputError(
        f"{run} has no front of a device {device!r}", f"give one that it searched for: --device {names}"
    )


def read_run(run: Path, folder: Path) -> StoredRun:
    """Everything that is known about one device.

    Args:
        folder: of the device, inside of the run directory.

    Raises:
        RunDirectoryError: a file is missing or damaged; it is named, with what to do.
    """
    try:
        record = RunRecord.read(run)
        reference = ReferenceRecord.read(run / "reference")
        searches = [_search(folder, path) for path in sorted(folder.glob("front*.json"), key=_by_length)]
        checkpoints = _checkpoints(run, searches[0].front.device)
    except InputError as error:
        raise RunDirectoryError(
            error.cause,
            f"{error.fix}; what a device's folder holds is made again by the `hwnas compress` command of "
            "the run",
        ) from None
    architectures = FinetunedNetworks(run / "architectures")
    predictor = architectures.predictor() if architectures.has_predictor else None
    entries = _entries(run / "library")
    metrics = block_metrics(list(entries.values()))
    finetuned = [] if predictor is None else architectures.networks(predictor.epochs)
    stored = StoredRun(
        path=run,
        folder=folder,
        settings=record.settings,
        versions=record.versions,
        reference=reference,
        entries=entries,
        costs=tuple(
            cost
            for cost in read_costs(run / "account.json")
            if cost.device in (None, searches[0].front.device)
        ),
        searches=tuple(searches),
        checkpoints=tuple(checkpoints),
        predictor=predictor,
        finetuned=tuple(network for network in finetuned if is_known(metrics, network.choices)),
        lost=() if predictor is None else tuple(architectures.missed(predictor).values()),
    )
    _check_choices(stored)
    return stored


def _by_length(path: Path) -> tuple[int, str]:
    return len(path.name), path.name


def _search(folder: Path, front: Path) -> Search:
    suffix = front.stem.removeprefix("front")
    return Search(
        suffix=suffix,
        front=FrontRecord.read(folder, suffix),
        points=SearchRecord.read(folder, suffix).points,
        blocks=BlockCosts.read(folder, suffix),
    )


def _checkpoints(run: Path, device: str) -> list[Checkpoint]:
    found = []
    for file in sorted(run.glob(f"checkpoints/[!.]*/{CHECKPOINT_RECORD}")):
        folder = file.parent
        require_intact(folder)
        record = CheckpointRecord.read(folder)
        if record.summary.device == device:
            found.append(
                Checkpoint(
                    name=folder.name,
                    summary=record.summary,
                    measurement=record.measurement,
                    architecture=ArchitectureSpec.read(folder / "architecture.json"),
                )
            )
    return found


def _entries(folder: Path) -> dict[tuple[int, int], Entry]:
    if not (folder / "library.db").is_file():
        raise RunDirectoryError(
            f"{folder / 'library.db'} is missing",
            "restore it, or give the run's `hwnas compress` command again",
        )
    with Library(folder) as library:
        return {(e.candidate.part, e.candidate.choice): e for e in library.entries()}


def _check_choices(stored: StoredRun) -> None:
    """Refuse a search whose networks the library cannot have made: files of two runs were mixed."""
    known = {(part, 0) for part in range(len(stored.reference.parts))} | set(stored.entries)
    for search in stored.searches:
        rows = [point.choices for point in search.points] + [row.choices for row in search.front.front]
        for choices in rows:
            if len(choices) != len(stored.reference.parts) or not set(enumerate(choices)) <= known:
                raise RunDirectoryError(
                    f"{stored.folder} names the network {joined_choices(choices)}, which the library of "
                    f"{stored.path} does not have",
                    "give the run's `hwnas compress` command again: it searches anew",
                )
