"""Damaged SQLite files: every failure is one that is explained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hwnas.database import Database
from hwnas.errors import RunDirectoryError

TABLES = "CREATE TABLE IF NOT EXISTS figures (name TEXT PRIMARY KEY, value REAL NOT NULL CHECK (value > 0))"


def use(path: Path) -> list[tuple[object, ...]]:
    with Database(path, tables=TABLES, version=1, loss="nothing is lost") as database:
        database.write("INSERT OR REPLACE INTO figures VALUES (?, ?)", ("b", 2.0))
        return database.read("SELECT name, value FROM figures ORDER BY name")


@pytest.mark.parametrize("bit", [0x80, 0x01])
def test_any_damaged_byte_of_the_tables_text_is_explained(bit: int, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.db", tmp_path / "damaged.db"
    assert use(whole) == [("b", 2.0)]
    content = whole.read_bytes()
    start = content.index(b"tablefigures")
    refused = 0
    for at in range(start, content.index(b"> 0))", start) + 5):
        shutil.copy(whole, damaged)
        damaged.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        try:
            use(damaged)
        except RunDirectoryError:
            refused += 1
    assert refused > 20
