"""The block library: trained weights, graph and held-out metrics of every candidate."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from hwnas.compress.library.distill import Distilled
from hwnas.compress.library.metrics import BlockMetrics
from hwnas.database import Database
from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import (
    decode,
    encode,
    is_one_name,
    read_bytes,
    read_signed,
    sha256,
    write_bytes,
    write_signed,
)
from hwnas.networks.architecture import Candidate
from hwnas.onnx_file import has_external_data
from hwnas.ranges import Figure, Seconds

State = Literal["pending", "done", "failed"]

_TABLES = """
CREATE TABLE IF NOT EXISTS candidates (
    part INTEGER NOT NULL,
    part_name TEXT NOT NULL,
    choice INTEGER NOT NULL,
    spec TEXT NOT NULL,            -- JSON
    macs INTEGER NOT NULL,
    params INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'failed')),
    reason TEXT,
    operators TEXT,                -- JSON, of the exported graph; NULL until it was exported
    nsr REAL, mse REAL, relative_l1 REAL,
    end_slope REAL,
    weights_sha256 TEXT, onnx_sha256 TEXT,
    seconds REAL,
    sha256 TEXT,                   -- of all the other columns but seconds, which differ from run to run
    PRIMARY KEY (part, choice)
);
"""
_CANDIDATE = ("part", "part_name", "choice", "spec", "macs", "params")
_METRICS = ("nsr", "mse", "relative_l1")
_OTHERS = ("state", "reason", "operators", "end_slope", "weights_sha256", "onnx_sha256", "seconds")
_COLUMNS = (*_CANDIDATE, *_METRICS, *_OTHERS)
_CELLS = ", ".join(_COLUMNS)
_TRIGGERS = "".join(
    f"""
CREATE TEMP TRIGGER IF NOT EXISTS sign_{event.split()[0]} AFTER {event} ON candidates BEGIN
    UPDATE candidates SET sha256 = row_sha256({_CELLS}) WHERE part = NEW.part AND choice = NEW.choice;
END;
"""  # noqa: S608
    for event in ("INSERT", f"UPDATE OF {_CELLS}")
)
"""Every change of a row renews its hash, in the same transaction."""
_SELECT = f"SELECT {_CELLS}, sha256 FROM candidates"  # noqa: S608

OUT_OF_MEMORY = "out of memory"
"""How the reason of a candidate begins that failed for want of memory."""

EXTENSION_SCHEMA = "hwnas.extension/1"
EXTENSION_FILE = "extension.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Extension:
    """What `extension.json` of a run directory holds."""

    candidates: tuple[Candidate, ...]


def added_candidates(run: Path) -> tuple[Candidate, ...]:
    """The candidates that a run's library was extended by, under their numbers; none where it was not.

    Raises:
        RunDirectoryError: the list of them is damaged.
    """
    file = run / EXTENSION_FILE
    if not file.is_file():
        return ()
    try:
        return decode(_Extension, read_signed(file, EXTENSION_SCHEMA), file).candidates
    except InputError as error:
        raise RunDirectoryError(
            error.cause, f"remove {file} and give the `hwnas extend` command again: nothing is distilled anew"
        ) from None


def store_added(run: Path, candidates: Sequence[Candidate]) -> None:
    """Keep the list of candidates that a run's library is extended by."""
    record = encode(_Extension(candidates=tuple(candidates)))
    write_signed(run / EXTENSION_FILE, {"schema": EXTENSION_SCHEMA, **record})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate and what is known about it; files and metrics are there once it is `done`.

    Attributes:
        operators: kinds of ONNX operators in its graph; None until it was exported.
    """

    candidate: Candidate
    state: State
    reason: str | None
    operators: tuple[str, ...] | None
    metrics: BlockMetrics | None
    end_slope: Figure | None
    weights_sha256: str | None
    onnx_sha256: str | None
    seconds: Seconds | None

    @property
    def is_put_off(self) -> bool:
        """Whether it only failed for want of memory: the next call tries it again."""
        return self.state == "failed" and (self.reason or "").startswith(OUT_OF_MEMORY)


class Library(Database):
    """`library.db` and `blocks/` of a run directory. A row says `done` only once its files are on disk.

    `features/` holds what the reference gives for each image, as long as candidates are distilled.

    Each row carries the hash of what it says. `add` forgets rows that do not match theirs, so that their
    candidates are distilled again; everything else refuses them.
    """

    def __init__(self, folder: Path) -> None:
        self.blocks = folder / "blocks"
        self.features = folder / "features"
        self._read: dict[tuple[object, ...], Entry] = {}
        super().__init__(
            folder / "library.db",
            tables=_TABLES,
            version=3,
            loss="its candidates are distilled again",
            functions={"row_sha256": lambda *cells: _digest(cells)},
            triggers=_TRIGGERS,
        )
        self.blocks.mkdir(parents=True, exist_ok=True)

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Enter candidates as pending; known ones stay as they are, unless their rows are damaged."""
        self._forget_damaged()
        rows = [
            (c.part, c.part_name, c.choice, json.dumps(encode(c.spec), sort_keys=True), c.macs, c.params)
            for c in candidates
        ]
        self.write(
            """INSERT OR IGNORE INTO candidates (part, part_name, choice, spec, macs, params, state)
            VALUES (?, ?, ?, ?, ?, ?, 'pending')""",
            *rows,
        )

    def entries(self) -> list[Entry]:
        """Every candidate, by part and choice. A row that is as it was last time is not checked again."""
        rows = self.read(f"{_SELECT} ORDER BY part, choice")
        entries = [self._read.get(row) or self._entry(row) for row in rows]
        self._read = dict(zip(rows, entries, strict=True))
        return entries

    def pending(self) -> list[Candidate]:
        """The candidates that are still to be distilled.

        Among them are done ones whose files are damaged, and those that failed for want of memory.
        """
        pending = []
        for entry in self.entries():
            damaged = entry.state == "done" and not self._intact(entry)
            if entry.state == "pending" or entry.is_put_off or damaged:
                pending.append(entry.candidate)
        return pending

    def store_operators(self, found: Sequence[tuple[Candidate, Sequence[str]]]) -> None:
        """Store the operators of exported candidates."""
        self.write(
            "UPDATE candidates SET operators = ? WHERE part = ? AND choice = ?",
            *((json.dumps(list(names)), c.part, c.choice) for c, names in found),
        )

    def finish(self, candidate: Candidate, result: Distilled, onnx: bytes) -> None:
        """Store a trained candidate: its files first, then its row."""
        from safetensors.torch import save

        assert result.metrics is not None
        weights = save(result.state)
        write_bytes(self._path(candidate, "safetensors"), weights)
        write_bytes(self._path(candidate, "onnx"), onnx)
        metrics = result.metrics
        self.write(
            """UPDATE candidates SET state = 'done', reason = NULL, nsr = ?, mse = ?, relative_l1 = ?,
            end_slope = ?, weights_sha256 = ?, onnx_sha256 = ?, seconds = ? WHERE part = ? AND choice = ?""",
            (
                metrics.nsr,
                metrics.mse,
                metrics.relative_l1,
                result.end_slope,
                sha256(weights),
                sha256(onnx),
                result.seconds,
                candidate.part,
                candidate.choice,
            ),
        )

    def fail(self, candidate: Candidate, reason: str) -> None:
        """Mark a candidate as failed; it is left out of every search."""
        self.write(
            "UPDATE candidates SET state = 'failed', reason = ? WHERE part = ? AND choice = ?",
            (reason, candidate.part, candidate.choice),
        )

    def load(self, entry: Entry, module: nn.Module) -> nn.Module:
        """Load a done candidate's weights into its module, which is left in eval mode.

        Raises:
            RunDirectoryError: the file is missing or not the one that was written.
        """
        from safetensors.torch import load

        state: dict[str, Tensor] = load(self._content(entry, "safetensors", entry.weights_sha256))
        module.load_state_dict(state)
        return module.eval()

    def onnx(self, entry: Entry) -> bytes:
        """A done candidate's ONNX model.

        Raises:
            RunDirectoryError: as `load`; or the graph names other files for its weights.
        """
        content = self._content(entry, "onnx", entry.onnx_sha256)
        if has_external_data(content):
            raise RunDirectoryError(
                f"{self._path(entry.candidate, 'onnx')} names files of its own to read weights from",
                "it is not of hwnas; start anew with --out PATH",
            )
        return content

    def _forget_damaged(self) -> None:
        for *values, digest, rowid in self.read(_SELECT.replace("sha256 FROM", "sha256, rowid FROM")):
            if _digest(values) != digest:
                _log.warning(
                    "%s, part %s, choice %s is damaged; its candidate is distilled again",
                    self.path,
                    values[0],
                    values[2],
                )
                self.write("DELETE FROM candidates WHERE rowid = ?", (rowid,))

    def _path(self, candidate: Candidate, suffix: str) -> Path:
        return self.blocks / f"{candidate.name}.{suffix}"

    def _intact(self, entry: Entry) -> bool:
        try:
            self._content(entry, "safetensors", entry.weights_sha256)
            self._content(entry, "onnx", entry.onnx_sha256)
        except RunDirectoryError:
            return False
        return True

    def _content(self, entry: Entry, suffix: str, digest: str | None) -> bytes:
        path = self._path(entry.candidate, suffix)
        content = read_bytes(path) if path.is_file() else b""
        if sha256(content) != digest:
            raise RunDirectoryError(
                f"{path} is missing or damaged",
                "give the same command again: the candidate is distilled anew",
            )
        return content

    def _entry(self, row: tuple[object, ...]) -> Entry:
        *cells, digest = row
        values = dict(zip(_COLUMNS, cells, strict=True))
        place = f"{self.path}, part {values['part']}, choice {values['choice']}"
        if _digest(cells) != digest:
            raise RunDirectoryError(
                f"{place} is damaged: it is not the row that was written",
                "give the run's `hwnas compress` command again: the candidate is distilled anew",
            )
        for column in ("spec", "operators"):
            values[column] = _plain(values[column])
        plain = {
            "candidate": {column: values[column] for column in _CANDIDATE},
            "metrics": None if values["nsr"] is None else {column: values[column] for column in _METRICS},
            **{column: values[column] for column in _OTHERS},
        }
        entry = decode(Entry, plain, place)
        if not is_one_name(f"{entry.candidate.name}.safetensors"):
            raise RunDirectoryError(
                f"{place}: its name {entry.candidate.name!r} is no name of a file",
                "nothing was read or written there; start anew with --out PATH",
            )
        return entry


def _digest(cells: Sequence[object]) -> str:
    """Of the columns of a row, `seconds` apart; floats as their shortest exact text."""
    signed = cells[: _COLUMNS.index("seconds")]
    return sha256(repr(tuple(signed)).encode(errors="replace"))


def _plain(text: object) -> object:
    """JSON text as plain data; damaged text stays text, which `decode` refuses with the row's place."""
    try:
        return None if text is None else json.loads(str(text))
    except ValueError:
        return text
