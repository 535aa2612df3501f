"""The report's plots, as plain data for plotly.js."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hwnas.compress.emit.emit import checkpoint_name
from hwnas.compress.library.stitch import Choices, joined_choices
from hwnas.compress.quality.kinds import described_quality
from hwnas.compress.report.stored import Checkpoint, Search, StoredRun
from hwnas.compress.search.block_costs import BlockCosts, PartCosts
from hwnas.compress.search.pick import pick
from hwnas.compress.search.points import Point, pareto_front
from hwnas.compress.tasks.task import figure
from hwnas.measurement import Interval
from hwnas.page import BLUE, GREEN, GREY, ORANGE, PINK, Plot, plot_text

NAMES = {"throughput": "time an image", "macs": "MACs", "params": "parameters"}
"""What objectives are called on axes, where that is not their own name."""
Trace = dict[str, Any]


def picks(stored: StoredRun, search: Search) -> dict[Choices, list[str]]:
    """The networks that were emitted from a search, each with the rules by which it was picked."""
    rules: dict[Choices, list[str]] = {}
    for checkpoint in stored.checkpoints:
        rule = checkpoint.summary.pick
        if checkpoint.name == checkpoint_name(stored.device, search.suffix, rule):
            rules.setdefault(checkpoint.summary.choices, []).append(rule)
    return rules


def front_plots(stored: StoredRun, search: Search) -> list[Plot]:
    """Each cost against the loss, and, where there are several costs, each against each.

    The first one is large and has the legend of all.
    """
    count = len(search.front.objectives)
    pairs: list[tuple[int, int | None]] = [(i, None) for i in range(count)]
    pairs += [(i, j) for i in range(count) for j in range(i + 1, count)]
    first, *others = (_front_plot(stored, search, x, y) for x, y in pairs)
    return [first, *(replace(p, layout={**p.layout, "showlegend": False}, height_px=320) for p in others)]


def _front_plot(stored: StoredRun, search: Search, x: int, y: int | None) -> Plot:
    def place(point: Point) -> tuple[float, float]:
        return _cost(search, point, x), point.loss if y is None else _cost(search, point, y)

    def trace(name: str, points: Sequence[Point], **style: Any) -> Trace:
        return {
            "type": "scatter",
            "name": plot_text(name),
            "x": [place(point)[0] for point in points],
            "y": [place(point)[1] for point in points],
            "text": [describe(stored, search, point) for point in points],
            "hoverinfo": "text",
            "mode": "markers",
            **style,
        }

    front = pareto_front(search.measured)
    known = {point.choices: point for point in search.measured}
    # With two axes the front is a line; with more it is a surface, of which a line would show nothing.
    lines = "lines+markers" if len(search.front.objectives) == 1 else "markers"
    traces = [
        trace(
            "all searched networks",
            search.measured,
            marker={"color": GREY, "size": 6, "opacity": 0.45},
        ),
        trace(
            "front",
            front,
            mode=lines,
            marker={"color": BLUE, "size": 8},
            line={"color": BLUE, "width": 1.5, "shape": "linear"},
        ),
    ]
    if search.front.anchor in known:
        star = {"color": ORANGE, "size": 15, "symbol": "star"}
        name = "anchor" if any(search.front.anchor) else "reference"
        traces.append(trace(name, [known[search.front.anchor]], marker=star))
    picked = picks(stored, search)
    knee = pick([row.point for row in search.front.front], "knee", search.front.objectives, None)
    if knee.choices not in picked and knee.choices in known:
        hollow = {"color": PINK, "size": 11, "symbol": "diamond-open"}
        traces.append(trace("knee, not picked", [known[knee.choices]], marker=hollow))
    for choices, rules in picked.items():
        if choices in known:
            diamond = {"color": PINK, "size": 13, "symbol": "diamond"}
            traces.append(trace(f"picked: {', '.join(rules)}", [known[choices]], marker=diamond))
    vertical = described_quality(search.front.quality).axis if y is None else _axis(search, y)
    horizontal = _axis(search, x)
    return Plot(
        data=traces,
        layout={"xaxis": {"title": {"text": horizontal}}, "yaxis": {"title": {"text": vertical}}},
        label=f"{horizontal} against {vertical}",
        height_px=460,
    )


def checkpoints_plot(checkpoints: Sequence[Checkpoint]) -> Plot | None:
    """Quality on the test part against latency, of the reference and each checkpoint, with intervals.

    The reference is measured in the session of each checkpoint; the first one's is shown.

    Returns:
        None without labels.
    """
    first = checkpoints[0].summary
    metric = first.metric
    named = [
        ("reference", first.latency_reference_ms, first.accuracy_reference, ORANGE, "star"),
        *((c.name, c.summary.latency_ms, c.summary.accuracy, PINK, "diamond") for c in checkpoints),
    ]
    scale = 100 if metric.share else 1

    def ends(value: Interval, unit: float = 1) -> dict[str, Any]:
        high, low = (value.high - value.value) * unit, (value.value - value.low) * unit
        return {"type": "data", "symmetric": False, "array": [high], "arrayminus": [low], "thickness": 1}

    traces = [
        {
            "type": "scatter",
            "name": plot_text(name),
            "x": [latency_ms.value],
            "y": [quality.value * scale],
            "error_x": ends(latency_ms),
            "error_y": ends(quality, scale),
            "text": [
                f"<b>{plot_text(name)}</b><br>{latency_ms.value:.3f} ms<br>{figure(quality.value, metric)}"
            ],
            "hoverinfo": "text",
            "mode": "markers",
            "marker": {"color": color, "size": 13, "symbol": symbol},
        }
        for name, latency_ms, quality, color, symbol in named
        if latency_ms is not None and quality is not None
    ]
    if not traces:
        return None
    vertical = f"{plot_text(metric.name)}{', %' if metric.share else ''}"
    return Plot(
        data=traces,
        layout={
            "xaxis": {"title": {"text": "latency, ms"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": vertical}},
        },
        label=f"{metric.name} on the test part against latency, of the reference and each checkpoint",
        height_px=320,
    )


def _axis(search: Search, index: int) -> str:
    objective = search.front.objectives[index]
    if objective == "latency":
        return "latency, ms"
    return f"{NAMES.get(objective, objective)} / the {search.unit(objective)}'s"


def _cost(search: Search, point: Point, index: int) -> float:
    assert point.costs is not None
    if search.front.objectives[index] == "latency":
        return point.costs[index] * (search.front.anchor_latency_ms or 1.0)
    return point.costs[index]


def describe(stored: StoredRun, search: Search, point: Point) -> str:
    """A network for hovering over: figures, then what stands in each part."""
    macs, params = stored.counts(point.choices)
    lines = [f"<b>{joined_choices(point.choices)}</b>", f"loss {point.loss:.4f}"]
    latency_ms = search.latency_ms(point)
    if latency_ms is not None:
        lines.append(f"latency {latency_ms:.3f} ms")
    for objective, ratio in zip(search.front.objectives, point.costs or (), strict=True):
        lines.append(f"{objective} / {search.unit(objective)} {ratio:.3f}")
    lines.append(f"{macs / 1e6:,.2f} MMACs, {params / 1e3:,.0f} k params")
    for part, (name, choice) in enumerate(zip(stored.reference.parts, point.choices, strict=True)):
        lines.append(f"{plot_text(name)}: {plot_text(stored.part_name(part, choice))}")
    return "<br>".join(lines)


def parts_plot(blocks: BlockCosts, networks: Sequence[tuple[str, Choices]]) -> Plot:
    """The latency of each part of some networks, alone, as one bar a network.

    Args:
        networks: names, each with the choices of its parts.
    """
    traces: list[Trace] = []
    for part in blocks.parts:
        known = {row.choice: row for row in part.choices}
        rows = [known.get(choices[part.part]) for _, choices in networks]
        costs = [None if row is None else row.cost for row in rows]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plot_text(part.name),
                "y": [plot_text(name) for name, _ in networks],
                "x": costs,
                "text": [
                    ""
                    if row is None or row.cost is None
                    else f"{plot_text(part.name)}: {plot_text(row.name)}<br>{row.cost:.3f} ms"
                    for row in rows
                ],
                "textposition": "none",
                "hoverinfo": "text",
            }
        )
    return Plot(
        data=traces,
        layout={
            "barmode": "stack",
            "xaxis": {"title": {"text": "latency of each part alone, ms"}},
            "yaxis": {"autorange": "reversed"},
            "legend": {"traceorder": "normal"},
        },
        label="latency of each part alone, of the reference and each checkpoint",
        height_px=160 + 40 * len(networks),
    )


def sums_plot(measured_ms: Sequence[float], sums_ms: Sequence[float], names: Sequence[str]) -> Plot:
    """Sum of the block costs against the measured latency of the whole network."""
    texts = [
        f"<b>{plot_text(name)}</b><br>measured {whole:.3f} ms<br>"
        f"sum {total:.3f} ms ({total / whole - 1:+.1%})"
        for name, whole, total in zip(names, measured_ms, sums_ms, strict=True)
    ]
    return _against(
        (measured_ms, "whole network, measured, ms"),
        (sums_ms, "sum of the block costs, ms"),
        ("searched networks", texts),
        "sum of block costs against measured latency",
    )


def predictor_plot(actual: Sequence[float], predicted: Sequence[float], names: Sequence[str]) -> Plot:
    """Predicted accuracy against that after finetuning, both as shares."""
    texts = [
        f"<b>{plot_text(name)}</b><br>finetuned {reached:.1%}<br>predicted {expected:.1%}"
        for name, reached, expected in zip(names, actual, predicted, strict=True)
    ]
    return _against(
        ([100 * value for value in actual], "accuracy after finetuning, %"),
        ([100 * value for value in predicted], "predicted without the network, %"),
        ("finetuned networks", texts),
        "predicted accuracy against that after finetuning",
    )


def _against(
    x: tuple[Sequence[float], str],
    y: tuple[Sequence[float], str],
    dots: tuple[str, Sequence[str]],
    label: str,
) -> Plot:
    """Two figures that should be equal, each with the title of its axis; the dots have a name and texts."""
    low, high = min(*x[0], *y[0]), max(*x[0], *y[0])
    return Plot(
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "name": "equal",
                "x": [low, high],
                "y": [low, high],
                "hoverinfo": "skip",
                "line": {"color": GREY, "dash": "dash", "width": 1.5},
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": dots[0],
                "x": list(x[0]),
                "y": list(y[0]),
                "text": list(dots[1]),
                "hoverinfo": "text",
                "marker": {"color": BLUE, "size": 7, "opacity": 0.7},
            },
        ],
        layout={"xaxis": {"title": {"text": x[1]}}, "yaxis": {"title": {"text": y[1]}}},
        label=label,
    )


def block_plots(blocks: BlockCosts, unit: str) -> list[Plot]:
    """Cost ratio against loss of the choices of each part that has candidates (DONNAv2 figure 3).

    Args:
        unit: what the costs are ratios to.
    """
    return [_block_plot(blocks, part, unit) for part in blocks.parts if len(part.choices) > 1]


def _block_plot(blocks: BlockCosts, part: PartCosts, unit: str) -> Plot:
    def trace(name: str, rows: Sequence[Any], **marker: Any) -> Trace:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [row.loss for row in rows],
            "y": [row.cost_ratio for row in rows],
            "text": [
                f"<b>{row.choice}: {plot_text(row.name)}</b><br>loss {row.loss:.4f}"
                f"<br>cost ratio {row.cost_ratio:.3f}"
                + (f"<br>beaten by {row.beaten_by}" if row.beaten_by is not None else "")
                for row in rows
            ],
            "hoverinfo": "text",
            "marker": {"size": 8, **marker},
        }

    rows = [row for row in part.choices if row.cost_ratio is not None]
    kept = [row for row in rows if row.choice and row.kept]
    removed = [row for row in rows if row.choice and not row.kept]
    limit_x, limit_y = _limit(blocks, part)
    return Plot(
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "name": "limit",
                "x": limit_x,
                "y": limit_y,
                "hoverinfo": "skip",
                "line": {"color": GREEN, "width": 1.5, "dash": "dot", "shape": "hv"},
            },
            trace("kept", kept, color=BLUE),
            trace("removed", removed, color=ORANGE, symbol="x"),
            trace(
                "reference's own", [row for row in rows if not row.choice], color=GREY, symbol="star", size=12
            ),
        ],
        layout={
            "title": {"text": plot_text(part.name), "x": 0.01, "font": {"size": 14}},
            "xaxis": {"title": {"text": "block loss"}},
            "yaxis": {"title": {"text": f"{blocks.cost} / the {unit}'s"}},
            "showlegend": False,
            "margin": {"l": 10, "r": 10, "t": 34, "b": 10},
        },
        label=f"{part.name}: cost ratio against loss",
        height_px=300,
    )


def _limit(blocks: BlockCosts, part: PartCosts) -> tuple[list[float], list[float]]:
    """The cost ratio above which a candidate goes, by loss: the lowest one so far, and the threshold."""
    rows = sorted((row.loss, row.cost_ratio) for row in part.choices if row.cost_ratio is not None)
    xs: list[float] = []
    ys: list[float] = []
    for loss, ratio in rows:
        xs.append(loss)
        ys.append(min([ratio + blocks.threshold, *ys[-1:]]))
    return xs, ys


def bars(title: str, names: Sequence[str], values: Sequence[float], texts: Sequence[str]) -> Plot:
    """Horizontal bars, the first one on top."""
    return Plot(
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "x": list(values),
                "y": list(names),
                "text": list(texts),
                "textposition": "auto",
                "hoverinfo": "none",
                "marker": {"color": BLUE},
            }
        ],
        layout={
            "xaxis": {"title": {"text": title}},
            "yaxis": {"autorange": "reversed"},
            "showlegend": False,
        },
        label=title,
        height_px=90 + 34 * len(names),
    )


def growth_plot(growth: Sequence[tuple[int, float]]) -> Plot:
    """Hypervolume of the best front so far over the networks that were evaluated."""
    return Plot(
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "x": [n for n, _ in growth],
                "y": [share for _, share in growth],
                "line": {"color": BLUE, "shape": "hv"},
            }
        ],
        layout={
            "xaxis": {"title": {"text": "networks evaluated"}},
            "yaxis": {"title": {"text": "hypervolume / that at the end"}, "rangemode": "tozero"},
            "showlegend": False,
        },
        label="hypervolume of the best front over the networks evaluated",
        height_px=300,
    )
