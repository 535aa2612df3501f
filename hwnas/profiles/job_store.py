"""Jobs of devices with a queue on disk: what is in the queue is known before anybody waits for it."""

from __future__ import annotations

import json
import logging
from typing import Any

from hwnas.database import Database
from hwnas.devices.queue import QueueJob, QueueResult
from hwnas.errors import InputError
from hwnas.files import decode, encode, sha256
from hwnas.measurement import Fingerprint, Protocol
from hwnas.profiles.store import LOSS, VERSION, MeasurementStore

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    network_hash TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    protocol TEXT NOT NULL,
    body TEXT NOT NULL,      -- SHA-256 and JSON of the job
    result TEXT,             -- SHA-256 and JSON of what it found out
    last_row INTEGER NOT NULL    -- of the table `results` when the job was made
);
"""
_SAVE = """
INSERT INTO jobs (name, network_hash, fingerprint, protocol, body, last_row)
VALUES (?, ?, ?, ?, ?, (SELECT COALESCE(MAX(id), 0) FROM results))
ON CONFLICT (name) DO UPDATE SET body = excluded.body
"""
_SELECT_OPEN = """
SELECT name, body, result FROM jobs
WHERE network_hash = ?1 AND fingerprint = ?2 AND protocol = ?3 AND NOT EXISTS (
    SELECT 1 FROM results
    WHERE network_hash = ?1 AND fingerprint = ?2 AND protocol = ?3 AND results.id > jobs.last_row
)
ORDER BY id
"""
_FORGET = "DELETE FROM jobs WHERE network_hash = ? AND fingerprint = ? AND protocol = ?"

_log = logging.getLogger(__name__)


class JobStore(Database):
    """The jobs of one device's sessions. What a method has returned from is on disk.

    They are in the file of the measurements, and a job is open until its network has a newer row there: the
    row that holds the result closes the jobs, so no kill can come between the two.

    Raises:
        RunDirectoryError: from any method, when the file is damaged or cannot be written.
    """

    def __init__(self, store: MeasurementStore, fingerprint: Fingerprint, protocol: Protocol) -> None:
        super().__init__(store.path, tables=_TABLE, version=VERSION, loss=LOSS)
        self._key = (fingerprint.id, protocol.id)

    def save(self, job: QueueJob) -> None:
        """Remember a job as it is now."""
        body = seal(json.dumps(encode(job)))
        self.write(_SAVE, (job.name, job.network_hash, *self._key, body))

    def finish(self, job: QueueJob, result: QueueResult) -> None:
        """Remember what a job found out."""
        body = seal(json.dumps(encode(result), allow_nan=False))
        self.write("UPDATE jobs SET result = ? WHERE name = ?", (body, job.name))

    def forget(self, network_hash: str) -> None:
        """Leave a network's jobs alone from now on, though it has no result."""
        self.write(_FORGET, (network_hash, *self._key))

    def open_jobs(self, network_hash: str) -> list[tuple[QueueJob, QueueResult | None]]:
        """A network's jobs, in order, that no measurement was made of yet; damaged rows are left out."""
        jobs = []
        for name, body, result in self.read(_SELECT_OPEN, (network_hash, *self._key)):
            source = f"{self.path}, job {name}"
            try:
                job = decode(QueueJob, unseal(body, source), source)
                if (job.name, job.network_hash) != (name, network_hash):
                    raise InputError(f"{source} is another one's", "nothing: it is submitted again")
                jobs.append((job, result and decode(QueueResult, unseal(result, source), source)))
            except InputError:
                _log.warning("%s is damaged and is ignored; the network is submitted again", source)
        return jobs


def seal(text: str) -> str:
    """Put the SHA-256 of a text before it."""
    return f"{sha256(text.encode())} {text}"


def unseal(sealed: str, source: str) -> Any:
    """Return the plain data of what `seal` gave. Raises InputError: it is not the text that was sealed."""
    digest, _, text = sealed.partition(" ")
    if sha256(text.encode(errors="replace")) != digest:
        raise InputError(f"{source} is not what was written", "nothing: it is submitted again")
    return json.loads(text)
