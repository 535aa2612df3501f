"""Tables and verdicts of equal_latency.py: plain values in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from hwnas.compress.run.cost_log import Cost
from hwnas.compress.training.intervals import mean_score, paired_difference
from hwnas.measurement import Interval

OWN = "hwnas"
MARGIN_AT = 0.5
MARGIN = 0.01


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finalist: the best network of a method within a bound.

    Attributes:
        bound: upper limit of the latency, in units of the reference's.
        network: what it is, for people.
        reason: why there is none.
        latency_ratio, latency_ms, reference_ms: by the session that measured all finalists.
        scores: right or wrong on each image of the test part, (N,) bool.
    """

    method: str
    bound: float
    network: str = ""
    reason: str = ""
    latency_ratio: Interval | None = None
    latency_ms: Interval | None = None
    reference_ms: Interval | None = None
    scores: Tensor | None = None
    macs: int = 0
    params: int = 0

    @property
    def accuracy(self) -> float:
        """On the test part; −1 where there is no network."""
        return -1.0 if self.scores is None else mean_score(self.scores).value

    @property
    def is_over(self) -> bool:
        """Whether all of the latency's interval is above the bound."""
        return self.latency_ratio is not None and self.latency_ratio.low > self.bound


def accuracy_table(rows: Sequence[Row], reference: Tensor) -> str:
    """One line a finalist, by bound.

    Args:
        reference: its scores on the test part, (N,) bool.
    """
    lines = [
        "| bound | method | latency / reference | ms | accuracy | to the reference, points "
        "| hwnas − it, points | MMACs | k params | network |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.scores is None or row.latency_ratio is None or row.latency_ms is None:
            lines.append(f"| {row.bound:g} | {row.method} | {row.reason} |" + " |" * 7)
            continue
        own = _own(rows, row.bound)
        ahead = (
            "–"
            if row.method == OWN or own is None or own.scores is None
            else _points(paired_difference(own.scores, row.scores))
        )
        over = " **over**" if row.is_over else ""
        lines.append(
            f"| {row.bound:g} | {row.method} | {_figure(row.latency_ratio)}{over} "
            f"| {_figure(row.latency_ms)} | {_percent(mean_score(row.scores))} "
            f"| {_points(paired_difference(row.scores, reference))} | {ahead} "
            f"| {row.macs / 1e6:.1f} | {row.params / 1e3:.0f} | {row.network} |"
        )
    anchors = [row.reference_ms for row in rows if row.reference_ms is not None]
    anchor = _figure(anchors[0]) if anchors else ""
    lines.append(f"| – | reference | 1 | {anchor} | {_percent(mean_score(reference))} |" + " |" * 5)
    return "\n".join(lines)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Whether hwnas is the best at every bound, and by a point or more at 0.5."""
    lines, won, margin_met = [], [], None
    for bound in dict.fromkeys(row.bound for row in rows):
        own = _own(rows, bound)
        others = [row for row in rows if row.bound == bound and row.method != OWN and row.scores is not None]
        if own is None or own.scores is None or own.is_over:
            why = (
                "is over the bound" if own is not None and own.is_over else "has no network within the bound"
            )
            lines.append(f"- {bound:g}: missed, hwnas {why}.")
            won.append(False)
            difference = float("-inf")
        elif not others:
            lines.append(f"- {bound:g}: no other method has a network within the bound.")
            won.append(True)
            difference = float("inf")
        else:
            best = max(others, key=lambda row: row.accuracy)
            assert best.scores is not None
            ahead = paired_difference(own.scores, best.scores)
            difference = ahead.value
            won.append(difference > 0)
            what = "best" if won[-1] else "not the best"
            sure = (
                "" if ahead.low > 0 or ahead.high < 0 else "; the interval holds 0, so chance may decide it"
            )
            lines.append(
                f"- {bound:g}: hwnas is {what}, {_points(ahead)} points to {best.method}"
                f"{', which is over the bound' if best.is_over else ''}{sure}."
            )
        if bound == MARGIN_AT:
            margin_met = difference >= MARGIN - 1e-9
    lines.append(f"- Goal, best at every bound: {_met(all(won))}.")
    if margin_met is not None:
        lines.append(f"- Goal, a point or more at {MARGIN_AT:g}: {_met(margin_met)}.")
    return lines


def spent_since(now: Iterable[Cost], *earlier: Iterable[Cost]) -> list[Cost]:
    """What was spent beyond what earlier lists hold, by step and device; steps without anything left out."""
    before: dict[tuple[str, str | None], list[Cost]] = {}
    for known in earlier:
        for spent in known:
            before.setdefault((spent.step, spent.device), []).append(spent)
    found = []
    for spent in now:
        gone = before.get((spent.step, spent.device), [])
        rest = replace(
            spent,
            seconds=spent.seconds - sum(each.seconds for each in gone),
            images=spent.images - sum(each.images for each in gone),
            epochs=spent.epochs - sum(each.epochs for each in gone),
            training_flops=spent.training_flops - sum(each.training_flops for each in gone),
        )
        if rest.seconds > 1e-6 or rest.images:
            found.append(rest)
    return found


def cost_table(costs: Mapping[str, Sequence[Cost]]) -> str:
    """Epochs, seconds and training FLOPs of each step of each method, with sums where there are several."""
    lines = ["| what | step | epochs | seconds | training TFLOPs |", "|---|---|---|---|---|"]
    for what, steps in costs.items():
        rows = [(str(spent.step), spent.epochs, spent.seconds, spent.training_flops) for spent in steps]
        if len(rows) > 1:
            _, *columns = zip(*rows, strict=True)
            rows.append(("**sum**", sum(columns[0]), sum(columns[1]), sum(columns[2])))
        for step, epochs, seconds, flops in rows:
            lines.append(f"| {what} | {step} | {epochs:.1f} | {seconds:,.0f} | {flops / 1e12:,.1f} |")
    return "\n".join(lines)


def _own(rows: Sequence[Row], bound: float) -> Row | None:
    return next((row for row in rows if row.bound == bound and row.method == OWN), None)


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _figure(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _percent(interval: Interval) -> str:
    return f"{interval.value * 100:.1f} % [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def _points(interval: Interval) -> str:
    values = [
        f"{100 * value:+.1f}".replace("-", "−") for value in (interval.value, interval.low, interval.high)
    ]
    return f"{values[0]} [{values[1]}, {values[2]}]"
