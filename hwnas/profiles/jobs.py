"""Jobs of devices with a queue on disk: what is in the queue is known before anybody waits for it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from hwnas.database import Database
from hwnas.devices.queue import QueueJob, QueueResult
from hwnas.errors import InputError
from hwnas.files import decode, encode
from hwnas.measurement import Fingerprint, Protocol

VERSION = 1

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    network_hash TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    protocol TEXT NOT NULL,
    body TEXT NOT NULL,                  -- JSON of the job
    result TEXT,                         -- JSON of what it found out
    closed INTEGER NOT NULL DEFAULT 0    -- its network's measurement or failure is in the store
);
"""
_SAVE = """
INSERT INTO jobs (name, network_hash, fingerprint, protocol, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET body = excluded.body
"""
_SELECT_OPEN = """
SELECT name, body, result FROM jobs
WHERE network_hash = ? AND fingerprint = ? AND protocol = ? AND NOT closed ORDER BY id
"""
_CLOSE = "UPDATE jobs SET closed = 1 WHERE network_hash = ? AND fingerprint = ? AND protocol = ?"

_log = logging.getLogger(__name__)


class JobStore:
    """The jobs of one device's sessions. What a method has returned from is on disk.

    Raises:
        RunDirectoryError: from any method, when the file is damaged or cannot be written.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint, protocol: Protocol) -> None:
        self.path = path
        self._key = (fingerprint.id, protocol.id)
        loss = "jobs that are in the queue now are submitted again"
        self._database = Database(path, tables=_TABLE, version=VERSION, loss=loss)

    def save(self, job: QueueJob) -> None:
        """Remember a job as it is now."""
        body = json.dumps(encode(job))
        self._database.write(_SAVE, (job.name, job.network_hash, *self._key, body))

    def finish(self, job: QueueJob, result: QueueResult) -> None:
        """Remember what a job found out."""
        body = json.dumps(encode(result), allow_nan=False)
        self._database.write("UPDATE jobs SET result = ? WHERE name = ?", (body, job.name))

    def close_network(self, network_hash: str) -> None:
        """The network's result is stored elsewhere: its jobs need not be picked up again."""
        self._database.write(_CLOSE, (network_hash, *self._key))

    def open_jobs(self, network_hash: str) -> list[tuple[QueueJob, QueueResult | None]]:
        """A network's jobs, in order, that no measurement was made of yet; damaged rows are left out."""
        jobs = []
        for name, body, result in self._database.read(_SELECT_OPEN, (network_hash, *self._key)):
            source = f"{self.path}, job {name}"
            try:
                job = decode(QueueJob, json.loads(body), source)
                jobs.append((job, result and decode(QueueResult, json.loads(result), source)))
            except (InputError, ValueError):
                _log.warning("%s is damaged and is ignored; the network is submitted again", source)
        return jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
