"""Columns go by rank until a line has room; what stays is whole."""

from __future__ import annotations

import random

import pytest
from rich.cells import cell_len

from hwnas.cli.tables import GAP, Column, figures, fit, print_table, print_text

NET = Column(name="network")


def test_a_pipe_gets_all_columns_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        [Column(name="device"), *figures("ms")], [[["cpu", "1.5"], ["移动", "12.25"]], [["[b]", "3"]]]
    )
    assert capsys.readouterr().out.splitlines() == [
        "device     ms",
        "cpu       1.5",
        "移动    12.25",
        "",
        "[b]         3",
    ]


def test_the_highest_rank_goes_first() -> None:
    columns = [NET, *figures("median"), *figures("p90", "p99", rank=1)]
    rows = [["net", "12.500", "13.000", "14.000"]]
    assert fit(columns, rows, None) == [7, 6, 6, 6]
    assert fit(columns, rows, 31) == [7, 6, 6, 6]
    assert fit(columns, rows, 30) == [7, 6, 6, 0]
    assert fit(columns, rows, 22) == [7, 6, 0, 0]
    assert fit(columns, rows, 14) is None


def test_text_gives_way_before_a_column_is_dropped() -> None:
    rows = [["a description of some forty characters", "12.5"]]
    assert fit([NET, *figures("ms", rank=1)], rows, 26) == [20, 4]


def test_figures_are_whole_at_any_width() -> None:
    chance = random.Random(0)
    for _ in range(500):
        count = chance.randint(1, 6)
        columns = [NET] + [
            Column(name=f"c {n}", kind=chance.choice(["text", "name", "figure"]), rank=chance.randint(0, 3))
            for n in range(count)
        ]
        rows = [
            ["word " * chance.randint(1, 9), *("7" * chance.randint(0, 30) for _ in range(count))]
            for _ in range(3)
        ]
        room = chance.randint(10, 120)
        widths = fit(columns, rows, room)
        if widths is None:
            continue
        shown = [n for n, width in enumerate(widths) if width]
        assert sum(widths) + GAP * (len(shown) - 1) <= room
        assert all(n in shown for n, column in enumerate(columns) if not column.rank)
        dropped = [columns[n].rank for n in range(len(columns)) if n not in shown]
        assert all(columns[n].rank <= min(dropped, default=9) for n in shown)
        for n in shown:
            if columns[n].kind != "text":
                assert all(cell_len(row[n]) <= widths[n] for row in rows)


def test_a_terminal_breaks_no_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = "net: 12.345 ms (12.300 … 12.400), 81.0 images/s, 0.759 [0.701, 0.802] of the reference"
    for columns in range(20, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_text(text)
        lines = capsys.readouterr().out.splitlines()
        assert " ".join(lines) == text
        assert all(len(line) <= columns for line in lines)
        assert all(any(whole in line for line in lines) for whole in ("(12.300 … 12.400)", "[0.701, 0.802]"))


def test_rows_become_lines_where_nothing_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    print_table([NET, *figures("median ms", "p90")], [[["net", "1234567.500", "1234568.5"]]])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "net",
        "  median ms:",
        "1234567.500",
        "  p90: 1234568.5",
    ]
