"""One HTML file that shows text, tables, drawings and interactive plots, and needs nothing beside itself.

plotly.js is embedded, compressed, from the plotly package (extra `report`). The page makes no network
request, and its content security policy lets none happen. All text is escaped: names of models and files may
hold anything.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hwnas.errors import InputError
from hwnas.extras import install
from hwnas.files import write_bytes

INSTALL = install("report")

BLUE, ORANGE, GREEN, PINK, GREY = "#2f7ed8", "#e0760a", "#1d9a6c", "#c2478d", "#8a8f98"
"""Colours of series that tell apart on a light and on a dark page, for colour-blind readers too."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; a column whose cells all begin with a digit or a sign is aligned to the right.

    Attributes:
        folded: what stands in the place of the table until it is clicked; empty shows the table at once.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """Large figures, each with the words that it stands for."""

    figures: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """An interactive plot.

    Attributes:
        data, layout: plain data as plotly.js takes it; None stands for a missing value. Text in it that is
            not the program's own goes through `plot_text`. Colours of text, axes and background are the
            page's, light or dark.
        label: what it shows, for those who cannot see it.
    """

    data: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    label: str
    height_px: int = 420


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Small plots side by side, as many in a row as there is room for."""

    plots: Sequence[Plot]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An SVG element, built as a tree so that its text is escaped. A wide one is scrolled."""

    svg: ElementTree.Element


Content = str | Headline | Table | Plot | Grid | Drawing
"""What a section holds; plain text is a paragraph."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    content: Sequence[Content]


def is_available() -> bool:
    """Whether the plotly package is installed."""
    return importlib.util.find_spec("plotly") is not None


def plot_text(text: str) -> str:
    """Any text for a title, label or hover text of a plot: plotly.js takes some tags in them for markup."""
    return html.escape(text, quote=False)


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: the plotly package is not installed.
        RunDirectoryError: the file cannot be written.
    """
    write_bytes(path, render(title, sections).encode())


def render(title: str, sections: Sequence[Section]) -> str:
    """The page as text. Raises InputError where the plotly package is not installed."""
    plotly, script = _plotly_js(), _resource("page.js")
    policy = (
        f"default-src 'none'; script-src {_source_hash(plotly)} {_source_hash(script)}; "
        "style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(map(_section, sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>{_resource("page.css")}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
{body}
</main>
<script type="application/gzip" id="plotly">{_packed(plotly)}</script>
<script>{script}</script>
</body>
</html>
"""


def _section(section: Section) -> str:
    return "\n".join(
        [
            "<section>",
            f"<h2>{html.escape(section.heading)}</h2>",
            *map(_content, section.content),
            "</section>",
        ]
    )


def _content(content: Content) -> str:
    if isinstance(content, str):
        return f"<p>{html.escape(content)}</p>"
    if isinstance(content, Headline):
        told = (
            f"<p><b>{html.escape(large)}</b> {html.escape(words)}</p>" for large, words in content.figures
        )
        return f'<div class="headline">{"".join(told)}</div>'
    if isinstance(content, Table):
        return _table(content)
    if isinstance(content, Plot):
        return _plot(content)
    if isinstance(content, Grid):
        return '<div class="grid">' + "".join(map(_plot, content.plots)) + "</div>"
    return f'<div class="wide">{ElementTree.tostring(content.svg, encoding="unicode")}</div>'


def _table(table: Table) -> str:
    figures = [
        n > 0 and all(map(_is_figure, column)) for n, column in enumerate(zip(*table.rows, strict=True))
    ]

    def row(tag: str, cells: Sequence[str]) -> str:
        kinds = [' class="number"' if figure else "" for figure in figures or [False] * len(cells)]
        marked = (
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(marked)}</tr>"

    head = row("th", table.columns)
    body = "".join(row("td", cells) for cells in table.rows)
    shown = f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    if not table.folded:
        return shown
    return f"<details><summary>{html.escape(table.folded)}</summary>{shown}</details>"


def _is_figure(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "+-−–"


def _plot(plot: Plot) -> str:
    """A place for the plot, and its data as JSON in which no tag can begin."""
    plain = json.dumps({"data": list(plot.data), "layout": plot.layout}, allow_nan=False)
    plain = plain.replace("<", "\\u003c")
    label = html.escape(plot.label, quote=True)
    return (
        f'<div class="plot" role="img" aria-label="{label}" style="height:{plot.height_px}px">'
        f'<script type="application/json">{plain}</script></div>'
    )


def _plotly_js() -> str:
    if not is_available():
        raise InputError("the page needs the package plotly, which is not installed", INSTALL)
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@lru_cache(maxsize=1)
def _packed(script: str) -> str:
    """A script in gzip and base64, which takes 2 MB where plotly.js takes 5."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def _resource(name: str) -> str:
    return (resources.files("hwnas") / name).read_text(encoding="utf-8")


def _source_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
