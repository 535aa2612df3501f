"""What a run directory holds and what it lacks, read without changing anything in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwnas.compress.emit.summary import CheckpointRecord
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.run.cost_log import Cost, read_costs
from hwnas.compress.run.directory import LOCK, RunRecord, is_run, not_a_run
from hwnas.compress.tasks.task import Metric
from hwnas.database import rows_unchanged
from hwnas.files import safe_name
from hwnas.locks import is_locked
from hwnas.measurement import Interval
from hwnas.networks.intact import CHECKPOINT_RECORD, REFERENCE_RECORD

COUNT_STATES = "SELECT state, COUNT(*) FROM candidates GROUP BY state"
COUNT_NETWORKS = "SELECT COUNT(DISTINCT network_hash) FROM results"


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """How many candidates of a library are distilled, are still to be, and failed."""

    done: int
    pending: int
    failed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.done + self.pending + self.failed


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """A checkpoint: its rule, its latency over that of the reference or anchor, its quality by `metric`."""

    name: str
    pick: str
    latency_ratio: Interval
    metric: Metric
    accuracy: Interval | None


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """What is known of one device.

    Attributes:
        device: the name of its folder.
        measured: networks that are remembered, by any protocol.
        searches: that have ended, by the names of their front's files.
    """

    device: str
    measured: int
    searches: tuple[str, ...]
    checkpoints: tuple[Emitted, ...]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is.

    Attributes:
        is_running: whether a process works in its directory.
        accuracy: of the reference, by `metric`; None without labels, and as long as there is no reference.
        has_reference: whether the reference is trained and stored.
        spent: on each step so far.
        left_s: seconds for the candidates that are left, at the pace so far; None where that is unknown.
        left: what is still to be done, in words; empty where nothing is, as far as the directory tells.
    """

    run: Path
    model: str
    data: str
    is_running: bool
    has_reference: bool
    metric: Metric | None
    accuracy: Interval | None
    candidates: Candidates
    devices: tuple[OnDevice, ...]
    spent: tuple[Cost, ...]
    left_s: float | None
    left: tuple[str, ...]


def read_status(run: Path) -> RunStatus:
    """Read how far a run is; nothing in its directory is changed, and a process may work in it meanwhile.

    Raises:
        InputError: it is no run directory. RunDirectoryError: a file of it is damaged.
    """
    if not is_run(run):
        raise not_a_run(run)
    settings = RunRecord.read(run).settings
    is_running = is_locked(run / LOCK)
    has_reference = (run / "reference" / REFERENCE_RECORD).is_file()
    reference = ReferenceRecord.read(run / "reference") if has_reference else None
    candidates = _candidates(run / "library" / "library.db", is_running)
    devices = tuple(
        _on_device(run, folder, is_running) for folder in sorted(run.glob("devices/*")) if folder.is_dir()
    )
    spent = tuple(read_costs(run / "account.json"))
    left_s = _left_s(candidates, spent)
    return RunStatus(
        run=run,
        model=settings.model,
        data=settings.data,
        is_running=is_running,
        has_reference=has_reference,
        metric=None if reference is None else reference.metric,
        accuracy=None if reference is None else reference.accuracy,
        candidates=candidates,
        devices=devices,
        spent=spent,
        left_s=left_s,
        left=tuple(_left(has_reference, candidates, devices, left_s)),
    )


def _candidates(file: Path, is_running: bool) -> Candidates:
    if not file.is_file():
        return Candidates(done=0, pending=0, failed=0)
    states = dict(rows_unchanged(file, COUNT_STATES, is_written=is_running))
    return Candidates(**{state: states.get(state, 0) for state in ("done", "pending", "failed")})


def _on_device(run: Path, folder: Path, is_running: bool) -> OnDevice:
    measured = sum(
        rows_unchanged(file, COUNT_NETWORKS, is_written=is_running)[0][0]
        for file in folder.glob("measurements*.db")
    )
    emitted = []
    for file in sorted(run.glob(f"checkpoints/[!.]*/{CHECKPOINT_RECORD}")):
        summary = CheckpointRecord.read(file.parent).summary
        if safe_name(summary.device) == folder.name:
            emitted.append(
                Emitted(
                    name=file.parent.name,
                    pick=summary.pick,
                    latency_ratio=summary.latency_ratio,
                    metric=summary.metric,
                    accuracy=summary.accuracy,
                )
            )
    return OnDevice(
        device=folder.name,
        measured=measured,
        searches=tuple(sorted(file.stem for file in folder.glob("front*.json"))),
        checkpoints=tuple(emitted),
    )


def _left_s(candidates: Candidates, spent: tuple[Cost, ...]) -> float | None:
    seconds = sum(cost.seconds for cost in spent if cost.step == "distillation")
    if not candidates.pending:
        return 0.0
    return candidates.pending * seconds / candidates.done if candidates.done and seconds else None


def _left(
    has_reference: bool, candidates: Candidates, devices: tuple[OnDevice, ...], left_s: float | None
) -> list[str]:
    left = []
    if not has_reference:
        left.append("the reference")
    if candidates.pending or not candidates.total:
        pace = f", about {left_s / 60:.0f} min at the pace so far" if left_s else ""
        left.append(f"{candidates.pending or 'all'} candidates to distil{pace}")
    if not devices:
        left.append("the search of a device")
    for each in devices:
        if not each.searches:
            left.append(f"{each.device}: the search")
        if not each.checkpoints:
            left.append(f"{each.device}: the checkpoints")
    return left
