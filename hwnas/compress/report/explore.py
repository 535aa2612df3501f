"""Fronts of parts of a library: what it costs to leave some of its candidates out.

Nothing is trained, finetuned or measured: losses are those of the blocks, or what the accuracy predictor
makes of them, and costs are sums of what each choice adds, fitted to the networks that were measured (DONNA
figure 7).
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.compress.library.stitch import Choices
from hwnas.compress.quality.finetuned import METRIC, block_metrics, metric_rows
from hwnas.compress.quality.model import part_losses
from hwnas.compress.report.stored import Search, StoredRun
from hwnas.compress.search.additive import exact_front, fit_tables
from hwnas.compress.search.pareto import non_dominated
from hwnas.errors import InputError
from hwnas.files import encode

COMPARED = 4
"""At so many costs, evenly spaced over the front of the whole, lines are compared."""
ALL = "all"
Value = str | float
Properties = Mapping[str, Value]

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a candidate has to be.

    Attributes:
        comparison: `=`, `!=`, `<=`, `>=`, `<` or `>`.
        values: of which one has to be met; one alone for an order.
    """

    name: str
    comparison: str
    values: tuple[Value, ...]

    def holds(self, properties: Properties) -> bool:
        """Whether it does; a candidate without the property never does."""
        value = properties.get(self.name)
        if value is None:
            return False
        if self.comparison in ("=", "!="):
            return (value in self.values) is (self.comparison == "=")
        (limit,) = self.values
        compare = _COMPARE[self.comparison]
        return isinstance(value, float) and isinstance(limit, float) and compare(value, limit)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A part of a library: the candidates of which all conditions hold.

    The reference's own parts stay, unless a condition is on `own`; its stem and head stay where no variant of
    them does.
    """

    name: str
    conditions: tuple[Condition, ...] = ()

    def allows(self, properties: Properties) -> bool:
        """Whether a choice belongs to it."""
        asked = [c for c in self.conditions if properties["own"] == "no" or c.name == "own"]
        return all(condition.holds(properties) for condition in asked)


@dataclass(frozen=True, kw_only=True)
class Explored:
    """A network of a line's front.

    Attributes:
        loss: Σ of block losses, or 1 − the predicted accuracy.
        cost_ratio: to the anchor's, predicted.
    """

    choices: Choices
    loss: float
    cost_ratio: float


@dataclass(frozen=True, kw_only=True)
class LineFront:
    """What a line can reach.

    Attributes:
        candidates: that it leaves, the reference's own parts not counted.
        networks: that they span.
        front: by rising cost.
        losses: the lowest within each ratio that is compared; None where no network is as cheap.
        costlier: how much more the line costs than the whole library at equal loss, in the median over the
            front of the whole, as a share; None where it reaches none of these losses.
    """

    name: str
    candidates: int
    networks: int
    front: tuple[Explored, ...]
    losses: tuple[float | None, ...]
    costlier: float | None


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """The fronts of some lines on a device; the whole library is the first.

    Attributes:
        ratios: of the anchor's cost, at which lines are compared.
    """

    device: str
    objective: str
    loss: str
    ratios: tuple[float, ...]
    lines: tuple[LineFront, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema's name and version; see docs/json.md."""
        return {"schema": "hwnas.exploration/1", **encode(self)}

    def table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """The columns and rows of what the lines cost, as text."""
        at = tuple(f"loss at {ratio:g}" for ratio in self.ratios)
        columns = ("line", "candidates", "networks", *at, f"{self.objective} at equal loss")
        return columns, [_row(line) for line in self.lines]


def parse_line(text: str) -> Line:
    """Parse `NAME=FILTER`, such as `k7=kernel=7`, `small=kernel=3+5,width<1` or `no attention=se=no`.

    Conditions that all have to hold stand with commas between, values of which one suffices with a plus.

    Raises:
        InputError: it is none.
    """
    name, equals, conditions = text.partition("=")
    if not equals or not name.strip():
        raise InputError(
            f"{text!r} is no line NAME=FILTER", "give a name and conditions, such as --line k7=kernel=7"
        )
    parts = [part for part in conditions.split(",") if part.strip()]
    return Line(name=name.strip(), conditions=tuple(_condition(text, part.strip()) for part in parts))


def explore(stored: StoredRun, search: Search, lines: Sequence[Line]) -> Exploration:
    """Find the front of each line.

    Raises:
        InputError: a condition on what no candidate has, a line that leaves a part nothing, two lines of one
            name, or a search of which no network was measured.
    """
    names = [ALL, *(line.name for line in lines)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two lines are called {', '.join(sorted(twice))}", "give each a name of its own")
    space = _Space(stored, search)
    space.require_known(lines)
    fronts = [(line, *space.front(line)) for line in (Line(name=ALL), *lines)]
    whole = fronts[0][2]
    costs = [each.cost_ratio for each in whole]
    ratios = [math.ceil(100 * cost) / 100 for cost in np.linspace(min(costs), max(costs), COMPARED)]
    return Exploration(
        device=stored.device,
        objective=search.front.objectives[0],
        loss="1 − predicted accuracy" if space.predictor else f"Σ {stored.settings.loss}",
        ratios=tuple(ratios),
        lines=tuple(
            LineFront(
                name=line.name,
                candidates=sum(choice != 0 for of_part in choices for choice in of_part),
                networks=math.prod(map(len, choices)),
                front=tuple(front),
                losses=tuple(
                    min((each.loss for each in front if each.cost_ratio <= ratio), default=None)
                    for ratio in ratios
                ),
                costlier=_costlier(front, whole),
            )
            for line, choices, front in fronts
        ),
    )


class _Space:
    """The choices of a run whose cost is known, with what each adds to loss and cost."""

    def __init__(self, stored: StoredRun, search: Search) -> None:
        self.stored = stored
        self.predictor = stored.predictor if search.front.predicts else None
        entries = [entry for entry in stored.entries.values() if entry.state == "done"]
        self.metrics = block_metrics(entries, METRIC if self.predictor else stored.settings.loss)
        costs = self._costs(search)
        refused = {(each.part, each.choice) for each in search.front.refused}
        keys = [key for key in costs if key not in refused and (key[1] == 0 or key in self.metrics)]
        parts = range(len(stored.reference.parts))
        self.choices = [sorted(choice for part, choice in keys if part == n) for n in parts]
        self.tables = part_losses(self.metrics, self.choices, self.predictor)
        self.costs = self._fitted(search, costs)

    def front(self, line: Line) -> tuple[list[list[int]], list[Explored]]:
        """What a line leaves of each part, and its front by rising cost."""
        kept = []
        for part, of_part in enumerate(self.choices):
            rows = [n for n, choice in enumerate(of_part) if line.allows(self.properties(part, choice))]
            if not rows and part in (
                0,
                len(self.choices) - 1,
            ):
                rows = [0]
            if not rows:
                raise InputError(
                    f"the line {line.name} leaves nothing for {self.stored.reference.parts[part]}",
                    "allow the reference's own part there: leave own=no out",
                )
            kept.append(rows)
        tables = [
            np.column_stack([loss[rows], cost[rows]])
            for loss, cost, rows in zip(self.tables, self.costs, kept, strict=True)
        ]
        choices = [[of[n] for n in rows] for of, rows in zip(self.choices, kept, strict=True)]
        picked, sums = exact_front(tables)
        found = [tuple(of[int(n)] for of, n in zip(choices, row, strict=True)) for row in picked]
        losses = sums[:, 0]
        if self.predictor is not None:
            losses = 1 - self.predictor.predict(metric_rows(self.metrics, found))
        values = np.column_stack([losses, sums[:, 1]])
        front = [
            Explored(choices=found[n], loss=float(values[n, 0]), cost_ratio=float(values[n, 1]))
            for n in non_dominated(values)
        ]
        return choices, sorted(front, key=lambda each: each.cost_ratio)

    def properties(self, part: int, choice: int) -> Properties:
        """What can be asked of a choice."""
        name = self.stored.reference.parts[part]
        if not choice:
            return {"own": "yes", "part": name}
        candidate = self.stored.entries[part, choice].candidate
        known = {"macs": candidate.macs, "params": candidate.params, "loss": self.metrics[part, choice]}
        spec = {key: _value(value) for key, value in encode(candidate.spec).items()}
        return {"own": "no", "part": name, **{key: float(value) for key, value in known.items()}, **spec}

    def require_known(self, lines: Iterable[Line]) -> None:
        """Refuse a condition on what no candidate has."""
        keys = [(part, choice) for part, of_part in enumerate(self.choices) for choice in of_part]
        known = {name for key in keys for name in self.properties(*key)}
        for line in lines:
            for condition in line.conditions:
                if condition.name not in known:
                    raise InputError(
                        f"{line.name}: no candidate has {condition.name!r}",
                        f"ask for {', '.join(sorted(known))}",
                    )

    def _costs(self, search: Search) -> dict[tuple[int, int], float]:
        """What each choice costs alone, as the filter measured it, or its MACs; the own parts together 1."""
        if search.blocks is not None:
            rows = [(part.part, row.choice, row.cost) for part in search.blocks.parts for row in part.choices]
            costs = {(part, choice): cost for part, choice, cost in rows if cost is not None}
        else:
            costs = {(part, 0): float(macs) for part, macs in enumerate(self.stored.reference.macs)}
            costs |= {key: float(entry.candidate.macs) for key, entry in self.stored.entries.items()}
        whole = sum(cost for (_, choice), cost in costs.items() if choice == 0) or 1.0
        return {key: cost / whole for key, cost in costs.items()}

    def _fitted(self, search: Search, costs: Mapping[tuple[int, int], float]) -> list[np.ndarray]:
        prior = [
            np.array([costs[part, choice] for choice in of_part]) for part, of_part in enumerate(self.choices)
        ]
        points = [
            point
            for point in search.measured
            if all(choice in of for choice, of in zip(point.choices, self.choices, strict=True))
        ]
        if not points:
            raise InputError(
                f"no network of {self.stored.device}'s search has costs",
                "give the run's `hwnas compress` command again",
            )
        rows = np.array(
            [[of.index(c) for c, of in zip(point.choices, self.choices, strict=True)] for point in points]
        )
        values = np.array([point.costs[0] for point in points if point.costs is not None])
        return fit_tables(prior, rows, values).tables


def _row(line: LineFront) -> list[str]:
    return [
        line.name,
        str(line.candidates),
        f"{line.networks:.3g}" if line.networks >= 10**6 else str(line.networks),
        *("–" if loss is None else f"{loss:.4g}" for loss in line.losses),
        "–" if line.costlier is None else f"{line.costlier:+.1%}",
    ]


def _costlier(front: Sequence[Explored], whole: Sequence[Explored]) -> float | None:
    shares = []
    for best in whole:
        within = [each.cost_ratio for each in front if each.loss <= best.loss + 1e-12]
        if within and best.cost_ratio > 0:
            shares.append(min(within) / best.cost_ratio - 1)
    return statistics.median(shares) if shares else None


def _condition(line: str, text: str) -> Condition:
    found = re.fullmatch(r"([a-z_]+)\s*(<=|>=|!=|=|<|>)\s*(.+)", text)
    if not found:
        raise InputError(
            f"{line!r}: {text!r} is no condition",
            "compare a property with a value: kernel=3+5, width<1, se=no, part=block2",
        )
    name, comparison, values = found.groups()
    parsed = tuple(_parsed(value.strip()) for value in values.split("+"))
    if comparison in _COMPARE and (len(parsed) > 1 or not isinstance(parsed[0], float)):
        raise InputError(f"{line!r}: {text!r} compares with no single number", f"such as {name}{comparison}1")
    return Condition(name=name, comparison=comparison, values=parsed)


def _parsed(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return {"true": "yes", "false": "no"}.get(text, text)


def _value(value: object) -> Value:
    """A field of a candidate as a condition names it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return float(value)
    return _parsed("-".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
