"""Tables and the plot of finetune_curves.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hwnas.compress.training.intervals import mean_score, paired_difference
from hwnas.measurement import Interval

LIBRARY, SCRATCH = "library", "scratch"
SHORTER = 9  # DONNA finetunes for 50 epochs instead of 450
Curve = Mapping[int, Interval]
"""Accuracy on the part `test` by finished epochs."""


def budget_table(scores: Mapping[tuple[str, int], Tensor]) -> str:
    """Library after E epochs against scratch after nine times as many, and how much shorter it is.

    Args:
        scores: right or wrong on each test image at the end of a training, (N,), by start and epochs.
    """
    lines = [
        "| library, epochs | accuracy | scratch, epochs | accuracy | library − scratch, points | as good |",
        "|---|---|---|---|---|---|",
    ]
    budgets = sorted(epochs for start, epochs in scores if start == LIBRARY)
    for epochs in budgets:
        own, other = scores[LIBRARY, epochs], scores[SCRATCH, SHORTER * epochs]
        ahead = paired_difference(own, other)
        points = f"{100 * ahead.value:+.1f} [{100 * ahead.low:+.1f}, {100 * ahead.high:+.1f}]"
        lines.append(
            f"| {epochs} | {percent(mean_score(own))} | {SHORTER * epochs} | {percent(mean_score(other))} "
            f"| {points} | {'yes' if ahead.value >= 0 else 'no'} |"
        )
    longest = max(epochs for start, epochs in scores if start == SCRATCH)
    wanted = mean_score(scores[SCRATCH, longest]).value
    enough = [epochs for epochs in budgets if mean_score(scores[LIBRARY, epochs]).value >= wanted]
    lines.append("")
    if enough:
        times = longest / enough[0]
        lines.append(
            f"Scratch has {100 * wanted:.1f} % after {longest} epochs, the library at least that after "
            f"{enough[0]}: {times:g} times shorter. "
            f"Goal, {SHORTER} times: {'met' if times >= SHORTER else 'missed'}."
        )
    else:
        lines.append(
            f"Scratch has {100 * wanted:.1f} % after {longest} epochs, which the library does not reach in "
            f"{budgets[-1]}. Goal, {SHORTER} times shorter: missed."
        )
    return "\n".join(lines)


def curve_table(curves: Mapping[str, Curve]) -> str:
    """Accuracy along the longest trainings; an epoch after which a kill came is left out."""
    shown = sorted({epoch for curve in curves.values() for epoch in curve})
    lines = [f"| epoch | {' | '.join(curves)} |", "|---" * (1 + len(curves)) + "|"]
    for epoch in shown:
        cells = [percent(curve[epoch]) if epoch in curve else "–" for curve in curves.values()]
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(curves: Mapping[str, Curve], reference: float, path: Path) -> None:
    """Both curves with their intervals, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for start, curve in curves.items():
        epochs = sorted(curve)
        values = [curve[epoch] for epoch in epochs]
        label = f"from {'the library' if start == LIBRARY else 'random weights'}, {epochs[-1]} epochs"
        axes.plot(epochs, [100 * v.value for v in values], marker=".", label=label)
        axes.fill_between(epochs, [100 * v.low for v in values], [100 * v.high for v in values], alpha=0.2)
    axes.axhline(100 * reference, color="grey", linestyle="--", label="reference")
    axes.set_xscale("log")
    ends = {max(curve) for curve in curves.values()}
    axes.set_xticks(sorted(ends | {tick for tick in (1, 2, 5, 10, 20) if 1.5 * tick < max(ends)}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.minorticks_off()
    axes.set_xlabel("epochs")
    axes.set_ylabel("accuracy on the test part, %")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def percent(interval: Interval) -> str:
    """`71.2 % [69.8, 72.6]`."""
    return f"{interval.value * 100:.1f} % [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"
