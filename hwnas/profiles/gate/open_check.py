"""What a check decided before it was stopped: the same command goes on from there."""

from __future__ import annotations

import json
import logging
import time

from hwnas.database import Database
from hwnas.errors import InputError
from hwnas.files import decode, encode
from hwnas.profiles.gate.report import Checked
from hwnas.profiles.job_store import seal, unseal
from hwnas.profiles.store import LOSS, VERSION, MeasurementStore

LONGEST_S = 24 * 3600.0
"""What was decided longer ago is decided anew: much may have changed that no fingerprint tells."""

_TABLE = """
CREATE TABLE IF NOT EXISTS open_checks (
    id INTEGER PRIMARY KEY,
    check_id TEXT NOT NULL,
    entry INTEGER NOT NULL,
    decided_at_s REAL NOT NULL,    -- since 1970
    body TEXT NOT NULL             -- SHA-256 and JSON
);
"""

_INSERT = "INSERT INTO open_checks (check_id, entry, decided_at_s, body) VALUES (?, ?, ?, ?)"
_SELECT = "SELECT entry, body FROM open_checks WHERE check_id = ? ORDER BY id"

_log = logging.getLogger(__name__)


class OpenCheck(Database):
    """The decisions of a check that has not ended, in the file of the measurements.

    Args:
        check_id: of everything that the decisions depend on, the networks among it.

    Raises:
        RunDirectoryError: from any method, when the file is damaged or cannot be written.
    """

    def __init__(self, store: MeasurementStore, check_id: str) -> None:
        super().__init__(store.path, tables=_TABLE, version=VERSION, loss=LOSS)
        self._id = check_id
        self.write("DELETE FROM open_checks WHERE decided_at_s < ?", (time.time() - LONGEST_S,))

    def keep(self, entry: int, checked: Checked) -> None:
        """Remember what was decided of an entry, by its position in the check."""
        body = seal(json.dumps([self._id, entry, encode(checked)]))
        self.write(_INSERT, (self._id, entry, time.time(), body))

    def decided(self) -> dict[int, Checked]:
        """Return what was decided, by position; damaged rows are left out."""
        found = {}
        for entry, body in self.read(_SELECT, (self._id,)):
            source = f"{self.path}, a check's entry {entry}"
            try:
                check_id, position, plain = unseal(body, source)
                if (check_id, position) != (self._id, entry):
                    raise InputError(f"{source} is another one's", "nothing: it is decided anew")
                found[entry] = decode(Checked, plain, source)
            except InputError:
                _log.warning("%s is damaged and is ignored; the network is measured again", source)
        return found

    def end(self) -> None:
        """Forget it: the same command then checks anew."""
        self.write("DELETE FROM open_checks WHERE check_id = ?", (self._id,))
