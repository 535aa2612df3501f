"""The tables of benchmarks/gate_power.py: what each rule says of the pairs, and whether the goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import gate_rules
import numpy as np

from hwnas.profiles.gate.rank_tests import paired_shift

THRESHOLDS = {"same": (0.05, 0.025), "5 %": (0.025,), "10 %": (0.05,)}
"""At which each kind of pair is judged."""

STATES = {"unloaded": (False,), "another process loads a core": (True,), "together": (False, True)}
COLUMNS = {
    "A/A fails at 5 %": ((("same", 0.05),), "regression"),
    "A/A fails at 2.5 %": ((("same", 0.025),), "regression"),
    "10 % found at 5 %": ((("10 %", 0.05),), "regression"),
    "5 % found at 2.5 %": ((("5 %", 0.025),), "regression"),
    "inconclusive at 5 %": ((("same", 0.05), ("10 %", 0.05)), "inconclusive"),
    "inconclusive at 2.5 %": ((("same", 0.025), ("5 %", 0.025)), "inconclusive"),
}
"""Of which kinds at which threshold what is counted."""

GOALS = {
    "A/A fails at 5 %": (False, 0.01, False),
    "A/A fails at 2.5 %": (False, 0.01, False),
    "10 % found at 5 %": (True, 0.95, False),
    "5 % found at 2.5 %": (True, 0.95, False),
    "inconclusive at 5 %": (False, 0.10, True),
    "inconclusive at 2.5 %": (False, 0.10, True),
}
"""At least or at most which share, and whether of the unloaded machine only."""


def tables(judged: Sequence[Judged]) -> str:
    """A table for the unloaded, the loaded and all pairs, as far as there are any, and the goals."""
    parts = []
    for title, states in STATES.items():
        chosen = [each for each in judged if each.loaded in states]
        if chosen:
            parts.append(f"## {title}: {len(chosen)} pairs\n\n{describe(chosen)}\n")
            parts.append("\n".join(table(chosen)) + "\n")
    return "\n".join([*parts, *goals(judged)])


class Judged:
    """A pair with what every rule says of it, at each of its thresholds."""

    def __init__(self, pair: dict[str, Any]) -> None:
        self.kind, self.loaded, self.other_cores = pair["kind"], pair["loaded"], pair["other_cores"]
        repeats_ms = pair["repeats_ms"]
        self.log_ratio = statistics.median(map(gate_rules.log_ratio, repeats_ms))
        self.verdicts = {
            (rule, threshold): decide(repeats_ms, threshold)
            for rule, decide in gate_rules.RULES.items()
            for threshold in THRESHOLDS[self.kind]
        }
        self.seconds = {
            threshold: pair["elapsed_s"][gate_rules.repeats_needed(repeats_ms, threshold) - 1]
            for threshold in THRESHOLDS[self.kind]
        }


def describe(chosen: Sequence[Judged]) -> str:
    """What the extra work of each kind really cost, and how long checks took."""
    effects = []
    for kind in THRESHOLDS:
        log_ratios = [each.log_ratio for each in chosen if each.kind == kind]
        if log_ratios:
            shift = paired_shift(log_ratios, 0.95)
            low, value, high = (f"{np.expm1(part):+.1%}" for part in (shift.low, shift.value, shift.high))
            interval = f" [{low}, {high}]" if np.isfinite(shift.low) else ""
            effects.append(f"{kind}: {len(log_ratios)} pairs, {value}{interval}")
    seconds = [seconds for each in chosen for seconds in each.seconds.values()]
    cores = [each.other_cores for each in chosen]
    return (
        f"processes other than the study's used {statistics.median(cores):.2f} cores in the median, "
        f"at most {max(cores):.2f}\n"
        f"latency of the second network, {'; '.join(effects)}\n"
        f"seconds a check: median {statistics.median(seconds):.1f}, longest {max(seconds):.1f}"
    )


def table(chosen: Sequence[Judged]) -> list[str]:
    """A Markdown table: a line for each rule, shares with Clopper-Pearson 95 % intervals."""
    lines = ["| rule | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for rule in gate_rules.RULES:
        cells = []
        for cases, counted in COLUMNS.values():
            known = (
                verdicts(chosen, rule, cases) if counted == "regression" or rule == gate_rules.OURS else []
            )
            cells.append(gate_rules.share(known.count(counted), len(known)))
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return lines


def verdicts(chosen: Sequence[Judged], rule: str, cases: Sequence[tuple[str, float]]) -> list[str]:
    """What a rule says of the pairs of each kind, at the threshold that belongs to it here."""
    return [
        each.verdicts[rule, threshold] for kind, threshold in cases for each in chosen if each.kind == kind
    ]


def goals(judged: Sequence[Judged]) -> list[str]:
    """A line for each goal of the check: whether the pairs so far meet it."""
    lines = ["goals of the check, by the pairs so far:"]
    for column, (at_least, limit, only_unloaded) in GOALS.items():
        cases, counted = COLUMNS[column]
        chosen = [each for each in judged if not (only_unloaded and each.loaded)]
        known = verdicts(chosen, gate_rules.OURS, cases)
        if known:
            share = known.count(counted) / len(known)
            met = "met" if (share >= limit if at_least else share <= limit) else "MISSED"
            lines.append(
                f"- {column}{', unloaded' if only_unloaded else ''}, {'at least' if at_least else 'at most'} "
                f"{limit:.0%}: {gate_rules.share(known.count(counted), len(known))} {met}"
            )
    longest_s = max(max(each.seconds.values()) for each in judged)
    lines.append(f"- under 60 s a check: {longest_s:.1f} s {'met' if longest_s < 60 else 'MISSED'}")
    return lines
