"""Measurements on disk: an append-only SQLite table, each row with the hash of what it says."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hwnas.database import Database
from hwnas.errors import InputError
from hwnas.files import check_schema, decode, encode, hwnas_home, sha256
from hwnas.measurement import (
    MEASUREMENT_SCHEMAS,
    Fingerprint,
    Measurement,
    MeasurementFailure,
    MeasurementResult,
    Protocol,
)

FAILURE_SCHEMA = "hwnas.failure/1"
VERSION = 1
LOSS = "what it held is measured again, and jobs that are in a queue now are submitted again"

_TABLE = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY,
    network_hash TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    protocol TEXT NOT NULL,
    body TEXT NOT NULL,    -- JSON
    sha256 TEXT NOT NULL   -- of the key and the body
);
CREATE INDEX IF NOT EXISTS results_key ON results (network_hash, fingerprint, protocol);
"""
_SELECT_KEY = """
SELECT * FROM results WHERE network_hash = ? AND fingerprint = ? AND protocol = ? ORDER BY id DESC
"""
_INSERT = "INSERT INTO results VALUES (NULL, ?, ?, ?, ?, ?)"
_COUNT = "SELECT COUNT(DISTINCT network_hash) FROM results WHERE fingerprint = ? AND protocol = ?"

_log = logging.getLogger(__name__)


class MeasurementStore(Database):
    """What was measured, by network, fingerprint and protocol. Rows are added, never changed.

    A row that does not match its hash is ignored with a warning, so its network is measured again.

    Raises:
        RunDirectoryError: from any method, when the file is not a store, is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, tables=_TABLE, version=VERSION, loss=LOSS)

    def get(
        self, network_hash: str, fingerprint: Fingerprint, protocol: Protocol
    ) -> MeasurementResult | None:
        """The latest result of a key, or None."""
        key = (network_hash, fingerprint.id, protocol.id)
        # A damaged index leads to rows of other keys.
        rows = [row for row in self.read(_SELECT_KEY, key) if row[1:4] == key]
        return next(self._valid(rows), None)

    def put(self, result: MeasurementResult, fingerprint: Fingerprint, protocol: Protocol) -> None:
        """Add a result; when this returns it is on disk."""
        self.write(_INSERT, _row(result, fingerprint, protocol))

    def add_new(self, measurements: Sequence[Measurement]) -> int:
        """Add those that are not there yet, all of them or none, and say how many."""
        held = [known for known in self.all() if isinstance(known, Measurement)]
        known = {_row(each, each.fingerprint, each.protocol) for each in held}
        rows = dict.fromkeys(_row(each, each.fingerprint, each.protocol) for each in measurements)
        new = [row for row in rows if row not in known]
        self.write(_INSERT, *new)
        return len(new)

    def count(self, fingerprint: Fingerprint, protocol: Protocol) -> int:
        """How many networks have a result."""
        return int(self.read(_COUNT, (fingerprint.id, protocol.id))[0][0])

    def all(self) -> list[MeasurementResult]:
        """Every valid result, in the order of their storing."""
        return list(self._valid(self.read("SELECT * FROM results ORDER BY id")))

    def _valid(self, rows: list[tuple[Any, ...]]) -> Iterator[MeasurementResult]:
        for number, *key_and_body, digest in rows:
            source = f"{self.path}, row {number}"
            if _digest(key_and_body) != digest:
                _log.warning("%s is damaged and is ignored; its network is measured again", source)
                continue
            try:
                yield _read(key_and_body[-1], source)
            except InputError as error:
                _log.warning("%s; the row is ignored, its network is measured again", error.cause)


def _row(result: MeasurementResult, fingerprint: Fingerprint, protocol: Protocol) -> tuple[str, ...]:
    if isinstance(result, Measurement):
        plain = result.to_json()
    else:
        plain = {"schema": FAILURE_SCHEMA, **encode(result)}
    row = (result.network_hash, fingerprint.id, protocol.id, json.dumps(plain, allow_nan=False))
    return (*row, _digest(row))


def open_history() -> MeasurementStore:
    """Open what was ever measured on this machine: `$HWNAS_HOME/history.db`. Raises as `MeasurementStore`."""
    return MeasurementStore(hwnas_home() / "history.db")


def _digest(key_and_body: Sequence[object]) -> str:
    return sha256("\n".join(map(str, key_and_body)).encode())


def _read(body: str, source: str) -> MeasurementResult:
    plain = json.loads(body)
    if plain["schema"] in MEASUREMENT_SCHEMAS:
        return Measurement.from_json(plain, source)
    return decode(MeasurementFailure, check_schema(plain, FAILURE_SCHEMA, source), source)
