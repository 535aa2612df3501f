"""SQLite files of a run: write-ahead log, synced at every commit, errors explained."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwnas.errors import RunDirectoryError
from hwnas.temporary import temporary_folder

OF_ONE_ROW = ("CHECK constraint failed", "NULL value in", "TEXT value in", "NUMERIC value in")
"""How SQLite's complaints begin that are about the content of a row."""


def rows_unchanged(path: Path, sql: str, *, is_written: bool) -> list[tuple[Any, ...]]:
    """Return the rows of a query without changing a file of the database.

    Args:
        is_written: whether a process may write to it meanwhile; else it is read as it lies there.

    Raises:
        RunDirectoryError: it is no database, or has no such table.
    """
    log = path.with_name(f"{path.name}-wal")
    with ExitStack() as held:
        file, mode = path, "mode=ro"
        if not is_written:
            mode = "mode=ro&immutable=1"
            if log.is_file() and log.stat().st_size:
                # A killed process left it, and whoever opens the file would clear it up.
                folder = held.enter_context(temporary_folder())
                shutil.copy(log, folder)
                file, mode = Path(shutil.copy(path, folder)), "mode=rw"
        try:
            uri = f"{file.absolute().as_uri()}?{mode}"
            connection = held.enter_context(closing(sqlite3.connect(uri, uri=True, timeout=30)))
            return connection.execute(sql).fetchall()
        except sqlite3.Error as error:
            raise RunDirectoryError(
                f"cannot read {path}: {error}", "give the run's `hwnas compress` command again"
            ) from None


class Database:
    """One SQLite file; what `write` has returned from is on disk.

    Args:
        tables: SQL that makes what is not there yet.
        version: of the format; a file of another one is refused.
        loss: what moving a damaged file away costs the user, as the end of a sentence.
        functions: that its SQL may call, by name.
        triggers: SQL of temporary triggers, which hold as long as the file is open.

    Raises:
        RunDirectoryError: from any method: damaged, not writable, or of another version.
    """

    def __init__(
        self,
        path: Path,
        *,
        tables: str,
        version: int,
        loss: str,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        triggers: str = "",
    ) -> None:
        self.path = path
        self.loss = loss
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30)
        # Damaged text must reach the checks of its own row, not fail the reading of all rows.
        self._connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            self._create(tables, version)
            self._check()
            for name, function in (functions or {}).items():
                self._connection.create_function(name, -1, function, deterministic=True)
            with self._explained():
                self._connection.executescript(triggers)
        except BaseException:
            self._connection.close()
            raise

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._explained():
            return self._connection.execute(sql, values).fetchall()

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        """Execute a statement for each row of values, in one transaction."""
        with self._explained(), self._connection:
            self._connection.executemany(sql, rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, tables: str, version: int) -> None:
        with self._explained():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
        found = self.read("PRAGMA user_version")[0][0]
        if found not in (0, version):  # 0: a new file
            raise RunDirectoryError(
                f"{self.path} has format {found}, of another version of hwnas; this one reads {version}",
                "use the version that wrote it, or choose another place with --out PATH",
            )
        with self._explained():
            self._connection.executescript(tables)
            if found < version:  # a database that is only read is not written to
                self._connection.execute(f"PRAGMA user_version = {version}")

    def _check(self) -> None:
        """Refuse a file whose pages do not belong together: rows would be missing without a word.

        What a row says has a hash of its own, so one that only breaks a constraint is left to that.
        """
        with self._explained():
            found = [str(row[0]) for row in self._connection.execute("PRAGMA quick_check(100)")]
        broken = [text for text in found if text != "ok" and not text.startswith(OF_ONE_ROW)]
        if broken:
            raise self._damaged(broken[0].splitlines()[-1])

    def _damaged(self, reason: object) -> RunDirectoryError:
        return RunDirectoryError(
            f"{self.path} is damaged or not a database of hwnas: {reason}",
            f"move {self.path} away and give the same command again; {self.loss}",
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what a failure of SQLite or the file system means for the user."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise RunDirectoryError(
                f"cannot use {self.path}: {error}",
                "check free space and permissions, and that no other hwnas process uses this run directory",
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        except UnicodeDecodeError as error:  # of a column's name, or of a message that quotes what is damaged
            raise self._damaged("a name in it is no text") from error
