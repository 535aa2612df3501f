"""Tables that fit: a narrow terminal gets fewer columns, and no figure is ever cut or broken."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
LEAST_TEXT = 20
"""Width in cells that a column of text keeps before other columns are dropped for it."""
LONGEST_WORD = 40
"""A longer word in a column of text may be broken."""

INTERVAL = re.compile(r"\[\S+, \S+\]|\(\S+ … \S+\)")
BOUND = "\ue000"
"""Stands for a space at which no line is broken: a character that no text has."""

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: what stands above it.
        kind: `figure` is aligned on the right; it and `name` stay whole, `text` goes on in the next line.
        rank: 0 always stays; of the others the highest is dropped first where room is short.
    """

    name: str
    kind: Literal["text", "name", "figure"] = "text"
    rank: int = 0


def figures(*names: str, rank: int = 0) -> list[Column]:
    """Return columns of figures, each dropped after the one to the right of it.

    Args:
        rank: of the first one; 0 keeps all of them.
    """
    return [Column(name=name, kind="figure", rank=rank and rank + n) for n, name in enumerate(names)]


def print_text(text: str) -> None:
    """Print lines on stdout; a terminal breaks long ones between words, and no interval."""
    room = _room(_console())
    if room is not None:
        bound = INTERVAL.sub(lambda found: found[0].replace(" ", BOUND), text)
        text = "\n".join(_folded(bound, room)).replace(BOUND, " ")
    typer.echo(text)


def print_table(
    columns: Sequence[Column],
    sections: Sequence[Rows],
    title: str = "",
    is_marked: Callable[[Sequence[str]], bool] = lambda row: False,
) -> None:
    """Print rows below the names of their columns; in a pipe all of them, as wide as they are.

    Columns without a single entry are left out. Where a terminal has no room for those of rank 0, each row
    becomes lines of its own.

    Args:
        sections: rows that belong together; an empty line stands between two sections.
        is_marked: whether a row is printed bold.
    """
    rows = [row for section in sections for row in section]
    if not rows:
        return
    console = _console()
    used = [n for n, column in enumerate(columns) if any(row[n] for row in rows)]
    columns = [columns[n] for n in used]
    bodies = [[[row[n] for n in used] for row in section] for section in sections if section]
    marked = [[is_marked(row) for row in section] for section in sections if section]
    widths = fit(columns, [row for body in bodies for row in body], _room(console))
    if title:
        print_text(title)
    if widths is None:
        _print_records(columns, bodies)
        return
    shown = [n for n, width in enumerate(widths) if width]
    layout = [(columns[n], widths[n]) for n in shown]

    def echo(cells: Sequence[str], *, is_bold: bool, at_bottom: bool = False) -> None:
        for line in _lines(layout, cells, at_bottom=at_bottom):
            typer.echo(typer.style(line, bold=True) if is_bold and _has_styles(console) else line)

    echo([column.name for column, _ in layout], is_bold=True, at_bottom=True)
    for number, (body, bold) in enumerate(zip(bodies, marked, strict=True)):
        if number:
            typer.echo()
        for row, is_bold in zip(body, bold, strict=True):
            echo([row[n] for n in shown], is_bold=is_bold)


def fit(columns: Sequence[Column], rows: Rows, room: int | None) -> list[int] | None:
    """Return the width in cells of each column, 0 for one that is dropped.

    Args:
        room: cells of a line; None is no bound.

    Returns:
        None where the columns of rank 0 do not fit.

    >>> fit([Column(name="net"), *figures("ms", "runs", rank=1)], [["a", "12.5", "8"]], 9)
    [3, 4, 0]
    """
    from rich.cells import cell_len

    cells = [list(column) for column in zip(*rows, strict=True)]
    whole = [
        max(cell_len(line) for cell in (column.name, *of_column) for line in cell.split("\n"))
        for column, of_column in zip(columns, cells, strict=True)
    ]
    if room is None:
        return whole
    least = []
    for column, of_column in zip(columns, cells, strict=True):
        word = max(map(cell_len, column.name.split()), default=0)
        longest = max(cell_len(line) for cell in of_column for line in cell.split("\n"))
        if column.kind == "text":
            words = max((cell_len(part) for cell in of_column for part in cell.split()), default=0)
            longest = min(longest, max(LEAST_TEXT, min(words, LONGEST_WORD)))
        least.append(max(word, longest))
    kept = list(range(len(columns)))
    while kept and sum(least[n] for n in kept) + GAP * (len(kept) - 1) > room:
        last = max(kept, key=lambda n: (columns[n].rank, n))
        if not columns[last].rank:
            return None
        kept.remove(last)
    left = room - sum(least[n] for n in kept) - GAP * (len(kept) - 1)
    widths = [least[n] if n in kept else 0 for n in range(len(columns))]
    for n in sorted(kept, key=lambda n: whole[n] - least[n]):  # whoever lacks little is served first
        more = min(left, whole[n] - least[n])
        widths[n] += more
        left -= more
    return widths


def _console() -> Console:
    from rich.console import Console

    return Console(emoji=False)


def _room(console: Console) -> int | None:
    return console.width if console.is_terminal else None


def _has_styles(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and not console.no_color


def _lines(
    layout: Sequence[tuple[Column, int]], cells: Sequence[str], *, at_bottom: bool = False
) -> list[str]:
    """One row as lines of text, without spaces at their ends."""
    from rich.cells import cell_len

    folded = [_folded(cell, width) for cell, (_, width) in zip(cells, layout, strict=True)]
    height = max(map(len, folded))
    lines = []
    for number in range(height):
        line = ""
        for (column, width), of_cell in zip(layout, folded, strict=True):
            at = number - (height - len(of_cell)) * at_bottom
            text = of_cell[at] if 0 <= at < len(of_cell) else ""
            spaces = " " * (width - cell_len(text))
            line += (spaces + text if column.kind == "figure" else text + spaces) + " " * GAP
        lines.append(line.rstrip())
    return lines


def _folded(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` cells, broken between words; a longer word is broken."""
    from rich.cells import cell_len
    from rich.text import Text

    lines = []
    for line in text.split("\n"):
        if cell_len(line) <= width:
            lines.append(line)
        else:
            lines += [part.plain.rstrip() for part in Text(line).wrap(_console(), width)]
    return lines


def _print_records(columns: Sequence[Column], bodies: Sequence[Rows]) -> None:
    for row in (row for body in bodies for row in body):
        first, *others = zip(columns, row, strict=True)
        print_text(f"\n{first[1]}")
        for column, cell in others:
            if cell:
                print_text(f"  {column.name}: {cell}")
