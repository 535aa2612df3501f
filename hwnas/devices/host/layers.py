"""The time of each operator of a network on this CPU, by ONNX Runtime's profiler."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.devices.host import ort_session
from hwnas.devices.host.ort_session import PROVIDER
from hwnas.measurement import Layer
from hwnas.temporary import temporary_folder

KERNEL, RUN = "_kernel_time", "model_run"
CONTROL_FLOW = ("Loop", "If", "Scan")
RUNS, MOST_EVENTS = 30, 200_000
PROFILER_EVENTS = 1_000_000
"""ONNX Runtime's profiler drops what comes after so many, without a word."""

Event = dict[str, Any]

Key = tuple[tuple[str, ...], ...]
"""An operator: name, kind, number and unit of those that it runs inside of, and its own."""


@dataclass
class _Node:
    """One execution of an operator, and those inside of it."""

    event: Event
    inner: list[_Node]


def layers(content: bytes, threads: int, seconds: float) -> tuple[Layer, ...]:
    """The time of each operator in one run, the median over some runs, in the order of execution.

    An operator inside of a loop is one operator, with the sum of its iterations; the loop has what is left of
    its time. So the times of all of them add up to the run's.

    Args:
        seconds: about how long the runs may take together.

    Raises:
        ValueError: a run has more operators than the profiler keeps. ONNX Runtime's errors pass through.
    """
    events = record_events(content, threads, 0)
    run_us = next((event["dur"] for event in events if event["name"] == RUN), None)
    if run_us is None or len(events) >= PROFILER_EVENTS:
        raise ValueError(f"a run has more than {PROFILER_EVENTS:,} operators, too many to time each one")
    wanted = int(min(RUNS, MOST_EVENTS / len(events), seconds * 1e6 / max(1, run_us)))
    return layers_of(record_events(content, threads, max(1, wanted)))


def layers_of(events: Sequence[Event]) -> tuple[Layer, ...]:
    """The same of the profiler's events, without those of the first run, which allocates."""
    times = [_own_times(run) for run in _runs(events)][1:]
    keys = dict.fromkeys(key for run in times for key in run)
    return tuple(
        Layer(
            name="/".join(name for name, *_ in key),
            operator=key[-1][1],
            unit=key[-1][3],
            time_ms=statistics.median(run.get(key, 0.0) for run in times) / 1000,
        )
        for key in keys
    )


def record_events(content: bytes, threads: int, runs: int) -> list[Event]:
    """The profiler's events of the run that allocates and of some more."""
    options = ort_session.session_options(threads)
    with temporary_folder() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        loaded = ort_session.load(content, options)
        for _ in range(runs):
            loaded.run()
        events: list[Event] = json.loads(Path(loaded.session.end_profiling()).read_bytes())
        return events


def _runs(events: Sequence[Event]) -> Iterator[list[_Node]]:
    """Each run's outermost operators. An event is written when it ends, so those inside come before it."""
    ended: list[_Node] = []
    for event in events:
        if event["name"] == RUN:
            yield sorted(ended, key=_start)
            ended = []
        elif event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            node = _Node(event, [])
            while event["args"]["op_name"] in CONTROL_FLOW and ended and _is_inside(ended[-1].event, event):
                node.inner.append(ended.pop())
            node.inner.reverse()
            ended.append(node)


def _is_inside(event: Event, outer: Event) -> bool:
    start, begin = event["ts"], outer["ts"]
    return bool(start > begin or (start == begin and event["dur"] > 0))


def _start(node: _Node) -> int:
    return int(node.event["ts"])


def _own_times(nodes: Sequence[_Node], outside: Key = ()) -> dict[Key, float]:
    """Microseconds of each operator, summed over its executions, without that of the operators inside."""
    times: dict[Key, float] = {}
    for node in nodes:
        known = node.event["args"]
        key = (
            *outside,
            (
                node.event["name"].removesuffix(KERNEL),
                known["op_name"],
                str(known.get("node_index", "")),
                known.get("provider", PROVIDER),
            ),
        )
        own_us = node.event["dur"] - sum(inner.event["dur"] for inner in node.inner)
        times[key] = times.get(key, 0.0) + max(0, own_us)
        for inner, taken_us in _own_times(node.inner, key).items():
            times[inner] = times.get(inner, 0.0) + taken_us
    return times
