"""What stands against a measurement, in plain sentences with figures: other work, quotas, clocks, drift.

Other work is told by the CPU time of everything that ran on the CPUs, less that of the process itself. Load
averages are not judged: they are minutes behind, and hold what hwnas itself does.
"""

from __future__ import annotations

import collections
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hwnas.measurement import Conditions, CpuTimes, Measurement

OTHER_WORK = 0.05
"""Share of the CPUs' time that other work may take."""

TICK_S = 0.02
"""By so much a CPU's counters may be off: two ticks of the system's clock."""

CLOCK_FALL, DRIFT = 0.1, 0.05

BIN, MODE_SHARE, VALLEY = 0.1, 0.1, 0.3
"""Of the search for two modes: width of a bin in logarithms, share of a peak, depth of a valley."""

Kind = Literal["other work", "CPU quota", "throttling", "clocks", "governor", "drift", "two modes"]
DISTURBANCES: tuple[Kind, ...] = ("other work", "CPU quota", "throttling", "clocks")
"""Kinds that make a latency another one than the device's own; figures of two such are not compared."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that stands against a measurement.

    Attributes:
        label: two or three words for a table.
        text: a sentence, without its point.
        size: what tells the worst of several of its kind.
    """

    kind: Kind
    label: str
    text: str
    size: float


def judge(measurement: Measurement) -> list[Finding]:
    """What stands against a measurement; nothing against a model, which has no noise."""
    if measurement.kind != "measured":
        return []
    return [*judge_conditions(measurement.conditions), *_drift(measurement), *_modes(measurement)]


def judge_conditions(conditions: tuple[Conditions, Conditions]) -> list[Finding]:
    """What the conditions before and after say against what was measured between them."""
    before, after = conditions
    found = []
    if before.cpu is not None and after.cpu is not None:
        found += [*_other_work(before.cpu, after.cpu, after.load), *_quota(before.cpu, after.cpu)]
    others = max(before.other_processes or 0, after.other_processes or 0)
    if others:
        text = f"{others} other process{'es use' if others > 1 else ' uses'} the device as well"
        found.append(Finding(kind="other work", label=f"{others} other", text=text, size=others))
    if before.throttled or after.throttled:
        why = f" ({', '.join(after.limits or before.limits)})" if after.limits or before.limits else ""
        text = f"the device held its clocks back at the beginning or the end{why}: let it cool down"
        found.append(Finding(kind="throttling", label="throttled", text=text, size=1))
    return [*found, *_clocks(before, after), *_governor(after)]


def sentences(judged: Sequence[Sequence[Finding]]) -> list[str]:
    """What stands against several measurements, each kind once, by its worst.

    Args:
        judged: by `judge`, of each measurement; of more than one it is said how many a sentence is about.
    """
    by_kind: dict[Kind, list[Finding]] = {}
    for finding in itertools.chain.from_iterable(judged):
        by_kind.setdefault(finding.kind, []).append(finding)
    told = []
    for found in by_kind.values():
        worst = max(found, key=lambda finding: finding.size)
        share = f" ({len(found)} of {len(judged)} networks; this is the worst)"
        told.append(worst.text + (share if len(judged) > 1 else ""))
    return told


def disturbed_by(measurement: Measurement) -> str:
    """What disturbed a measurement, in a few words for a table; empty where nothing is known to have."""
    found = judge_conditions(measurement.conditions) if measurement.kind == "measured" else []
    return ", ".join(finding.label for finding in found if finding.kind in DISTURBANCES)


def as_sentence(text: str) -> str:
    """With a capital and a point, for a page."""
    return f"{text[:1].upper()}{text[1:]}."


def clean_bill(measurement: Measurement) -> str:
    """What is said where nothing stands against a measurement: no more than is known."""
    if measurement.kind != "measured":
        return f"The figures are {measurement.kind}: nothing can disturb them."
    looked = ["drift", "second mode"]
    before, after = measurement.conditions
    known = after.throttled is not None
    unknown = [] if known else ["whether it throttled"]
    looked = ["throttling", *looked] if known else looked
    if (before.cpu is not None and after.cpu is not None) or after.other_processes is not None:
        looked = ["other work", *looked]
    else:
        unknown.append("whether other work ran")
    text = f"No {', '.join(looked[:-1])} or {looked[-1]} is seen"
    return f"{text}; {' and '.join(unknown)} is not known." if unknown else f"{text}."


def two_modes(samples_ms: Sequence[float]) -> bool:
    """Whether samples lie in two heaps: two peaks with a tenth of all each, a deep valley between."""
    counts = collections.Counter(round(math.log(sample_ms) / BIN) for sample_ms in samples_ms)
    bins = [counts[place] for place in range(min(counts), max(counts) + 1)]
    peaks = [place for place, count in enumerate(bins) if count >= max(MODE_SHARE * len(samples_ms), 5)]
    return any(
        min(bins[first:second]) < VALLEY * min(bins[first], bins[second])
        for first, second in itertools.combinations(peaks, 2)
    )


def _other_work(before: CpuTimes, after: CpuTimes, load: float | None) -> list[Finding]:
    elapsed_s = after.clock_s - before.clock_s
    if elapsed_s <= 0:
        return []
    others_s = after.busy_s - before.busy_s - (after.own_s - before.own_s)
    share = min(1.0, others_s / (elapsed_s * after.cpus))
    if share < OTHER_WORK + TICK_S / elapsed_s:
        return []
    cpus = f"{after.cpus} CPUs" if after.cpus > 1 else "one CPU"
    average = "" if load is None else f", load average {load:.1f}"
    text = (
        f"other work took {share:.0%} of the time of {cpus} while this was measured{average}: latencies are "
        "those of a busy machine"
    )
    return [Finding(kind="other work", label=f"other work {share:.0%}", text=text, size=share)]


def _quota(before: CpuTimes, after: CpuTimes) -> list[Finding]:
    stopped_s = after.throttled_s - before.throttled_s
    stopped = after.throttled_periods - before.throttled_periods
    if stopped <= 0 or after.quota_cpus is None:
        return []
    periods = max(stopped, after.quota_periods - before.quota_periods)
    share = stopped / periods
    text = (
        f"the CPU quota of {after.quota_cpus:.3g} CPUs stopped this process in {stopped} of {periods} "
        f"periods ({stopped_s:.2g} s): latencies hold what was waited for"
    )
    return [Finding(kind="CPU quota", label=f"CPU quota {share:.0%}", text=text, size=share)]


def _clocks(before: Conditions, after: Conditions) -> list[Finding]:
    """A fall of the clocks; not where a governor lowers them as soon as nothing runs."""
    shared = [
        name for name in before.clocks_mhz if after.clocks_mhz.get(name) and before.clocks_mhz[name] > 0
    ]
    if not shared or after.governor not in (None, "performance"):
        return []
    name = min(shared, key=lambda name: after.clocks_mhz[name] / before.clocks_mhz[name])
    then_mhz, now_mhz = before.clocks_mhz[name], after.clocks_mhz[name]
    fall = 1 - now_mhz / then_mhz
    if fall < CLOCK_FALL:
        return []
    text = f"the clock of {name} fell from {then_mhz:.0f} to {now_mhz:.0f} MHz"
    return [Finding(kind="clocks", label=f"clocks {-fall:.0%}", text=text, size=fall)]


def _governor(after: Conditions) -> list[Finding]:
    if after.governor in (None, "performance"):
        return []
    text = f"the governor is {after.governor}, not performance: the CPU's clocks change with what it does"
    return [Finding(kind="governor", label=str(after.governor), text=text, size=1)]


def _drift(measurement: Measurement) -> list[Finding]:
    medians_ms = measurement.medians_ms
    if len(medians_ms) < 6:
        return []
    third = len(medians_ms) // 3
    change = statistics.median(medians_ms[-third:]) / statistics.median(medians_ms[:third]) - 1
    if abs(change) <= DRIFT:
        return []
    text = f"drift: the last third of the repeats is {change:+.1%} against the first third"
    return [Finding(kind="drift", label=f"drift {change:+.0%}", text=text, size=abs(change))]


def _modes(measurement: Measurement) -> list[Finding]:
    if not two_modes([*itertools.chain.from_iterable(measurement.repeats_ms)]):
        return []
    text = "two modes: the runs lie in two heaps; look at clocks, placement of threads, other work"
    return [Finding(kind="two modes", label="two modes", text=text, size=1)]
