"""`comparison.html`: all fronts of one library together, and what is best on one device, run on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hwnas.compress.emit.cross_device import FILE as COMPARED
from hwnas.compress.emit.cross_device import Comparison, DeviceFront, OnDevice, PickedArchitecture
from hwnas.compress.library.stitch import joined_choices
from hwnas.compress.quality.kinds import described_quality
from hwnas.compress.tasks.task import quantity
from hwnas.errors import InputError
from hwnas.page import (
    BLUE,
    GREEN,
    GREY,
    INSTALL,
    ORANGE,
    PINK,
    Content,
    Plot,
    Section,
    Table,
    is_available,
    plot_text,
    write_page,
)

FILE, BATCH_FILE = "comparison.html", "batch.html"
COLOURS = (BLUE, ORANGE, GREEN, PINK, GREY)
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")
COSTS = {"latency": "latency", "throughput": "time an image", "energy": "energy"}


def write_comparison(run: Path) -> Path:
    """Make the report of all devices of a run from its `comparison.json`.

    Raises:
        InputError: there is none, it is damaged, or the package plotly is not installed.
    """
    if not is_available():
        raise InputError("a report needs the package plotly, which is not installed", INSTALL)
    comparison = Comparison.read(run)
    path = run / FILE
    write_page(path, f"{comparison.model} on {len(comparison.fronts)} devices", across_sections(comparison))
    return path


def write_batch(
    folder: Path, runs: Sequence[Path], columns: Sequence[str], checkpoints: Sequence[Sequence[str]]
) -> Path:
    """One page for all runs of a plan: their checkpoints, and every comparison of devices.

    Args:
        columns, checkpoints: the table of what was emitted.
    """
    path = folder / BATCH_FILE
    made = [Section(heading="Checkpoints", content=[Table(columns=columns, rows=checkpoints)])]
    for comparison in [Comparison.read(run) for run in runs if (run / COMPARED).is_file()]:
        made += [
            replace(section, heading=f"{comparison.model}: {section.heading}")
            for section in across_sections(comparison)
        ]
    write_page(path, f"{len(runs)} references", made)
    return path


def across_sections(comparison: Comparison) -> list[Section]:
    """What is best where, what it costs elsewhere, all fronts, and what failed."""
    made = [_best(comparison), _elsewhere(comparison), _fronts(comparison)]
    if comparison.failed:
        rows = [[name, cause] for name, cause in comparison.failed.items()]
        content: list[Content] = [
            "Once the reason is mended, the same command does what is missing.",
            Table(columns=("device", "why"), rows=rows),
        ]
        made.append(Section(heading="What could not be done", content=content))
    return made


def _best(comparison: Comparison) -> Section:
    rows = []
    for front in comparison.fronts:
        for pick in comparison.picked:
            for rule in pick.best_for.get(front.device, ()):
                here = pick.on[front.device]
                rows.append(
                    [
                        front.device,
                        rule,
                        joined_choices(pick.choices),
                        _ratio(here),
                        "–" if here.latency_ms is None else f"{here.latency_ms:.3f} ms",
                        f"{pick.loss:.4f}",
                        quantity(pick.accuracy, comparison.metric),
                        f"{pick.macs / 1e6:,.2f}",
                        f"{pick.params / 1e3:,.0f}",
                    ]
                )
    name = comparison.metric.name
    columns = ("device", "pick", "network", "ratio", "latency", "loss", name, "MMACs", "k params")
    content: list[Content] = [
        Table(columns=columns, rows=rows),
        "Ratio: what the whole network costs in the device’s search, by the reference’s cost there. "
        f"The {name} is that of the finetuned network on the test part. A network’s name is its choice in "
        "each part; 0 is the reference’s own.",
    ]
    parts = [[joined_choices(pick.choices), ", ".join(pick.parts)] for pick in comparison.picked]
    content.append(Table(columns=("network", "its parts, from the stem to the head"), rows=parts))
    return Section(heading="Best on each device", content=content)


def _elsewhere(comparison: Comparison) -> Section:
    rows = [
        [
            _found_for(pick),
            joined_choices(pick.choices),
            *(_cell(pick.on[front.device]) for front in comparison.fronts),
        ]
        for pick in comparison.picked
    ]
    columns = ("best for", "network", *(f"run on {front.device}" for front in comparison.fronts))
    text = (
        "Each picked network, measured whole on every device: its cost by the reference’s there, and in "
        "brackets how much more that is than the cheapest network that the device’s own search knows at no "
        "higher loss. "
        "0 % on the diagonal: the pick is on that device’s front."
    )
    return Section(heading="Best for A, run on B", content=[Table(columns=columns, rows=rows), text])


def _found_for(pick: PickedArchitecture) -> str:
    return "; ".join(f"{device}: {', '.join(rules)}" for device, rules in pick.best_for.items())


def _ratio(here: OnDevice) -> str:
    return "–" if here.cost_ratio is None else f"{here.cost_ratio:.3f}"


def _cell(here: OnDevice) -> str:
    if here.cost_ratio is None or here.excess is None:
        return f"– ({here.reason})"
    return f"{here.cost_ratio:.3f} (+{here.excess:.1%})"


def _fronts(comparison: Comparison) -> Section:
    traces = []
    for number, front in enumerate(comparison.fronts):
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "size": 8,
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plot_text(front.device),
                "x": [point.cost_ratio for point in front.points],
                "y": [point.loss for point in front.points],
                "text": [
                    f"<b>{joined_choices(point.choices)}</b><br>{plot_text(front.device)}"
                    f"<br>loss {point.loss:.4f}"
                    f"<br>{front.cost} / reference {point.cost_ratio:.3f}"
                    for point in front.points
                ],
                "hoverinfo": "text",
                "marker": style,
                "line": {"color": style["color"], "width": 1.5},
            }
        )
    costs = " or ".join(dict.fromkeys(COSTS[front.cost] for front in comparison.fronts)) or "cost"
    plot = Plot(
        data=traces,
        layout={
            "xaxis": {"title": {"text": f"{costs} / the reference's on the same device"}},
            "yaxis": {"title": {"text": described_quality(comparison.quality).axis}},
        },
        label="the fronts of all devices",
        height_px=460,
    )
    return Section(heading="All fronts", content=[plot, *map(_what, comparison.fronts)])


def _what(front: DeviceFront) -> str:
    text = f"{front.device} is {front.chip}; networks on its front: {len(front.points)}."
    if any(front.anchor):
        text += f" It refuses the reference: its ratios are to {joined_choices(front.anchor)} instead."
    return text
