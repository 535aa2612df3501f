"""`explore.html`: the fronts of some lines on one plot, and what each of them costs."""

from __future__ import annotations

from pathlib import Path

from hwnas.compress.library.stitch import joined_choices
from hwnas.compress.report.explore import Exploration
from hwnas.page import BLUE, GREEN, GREY, ORANGE, PINK, Content, Plot, Section, Table, plot_text, write_page

FILE = "explore.html"
COLOURS = (GREY, BLUE, ORANGE, GREEN, PINK)
DASHES = ("solid", "dash", "dot", "dashdot")


def write_exploration(folder: Path, model: str, found: Exploration) -> Path:
    """Write the page into a device's folder.

    Raises:
        InputError: the package plotly is not installed.
    """
    path = folder / FILE
    columns, rows = found.table()
    content: list[Content] = [
        "Predicted fronts of parts of the library: each line leaves some of its candidates out. Nothing was "
        "trained or measured for it. Costs are sums over the parts, fitted to the networks that the search "
        f"measured; the loss is {found.loss}.",
        _plot(found),
        Table(columns=columns, rows=rows),
    ]
    write_page(path, f"{model} on {found.device}, explored", [Section(heading="Lines", content=content)])
    return path


def _plot(found: Exploration) -> Plot:
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plot_text(line.name),
            "x": [each.cost_ratio for each in line.front],
            "y": [each.loss for each in line.front],
            "text": [joined_choices(each.choices) for each in line.front],
            "hovertemplate": "%{text}<br>%{x:.3f}, %{y:.4g}",
            "marker": {"color": COLOURS[n % len(COLOURS)], "size": 5},
            "line": {
                "color": COLOURS[n % len(COLOURS)],
                "width": 1.5,
                "shape": "hv",
                "dash": DASHES[n // len(COLOURS) % len(DASHES)],
            },
        }
        for n, line in enumerate(found.lines)
    ]
    horizontal = f"{found.objective} / the anchor's, predicted"
    return Plot(
        data=traces,
        layout={
            "xaxis": {"title": {"text": horizontal}},
            "yaxis": {"title": {"text": plot_text(found.loss)}},
        },
        label=f"{horizontal} against {found.loss}, a line for each part of the library",
        height_px=460,
    )
