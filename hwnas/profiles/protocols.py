"""How a latency is taken: the named protocols, and protocols of one's own."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from hwnas.errors import InputError
from hwnas.files import decode, read_toml
from hwnas.measurement import Protocol

QUICK = Protocol(
    name="quick", warmup_s=0.05, min_runs=10, min_s=0.034, repeats=3, max_repeats=3, max_spread=0.05
)
"""At least 30 runs and 0.1 s a network in all, for demonstrations and tests."""

SEARCH = Protocol(
    name="search", warmup_s=0.5, min_runs=50, min_s=1.0, repeats=3, max_repeats=6, max_spread=0.05
)
"""TFLite's benchmark_model (0.5 s of warm-up, 50 runs and 1 s), repeated until it agrees."""

REPORT = Protocol(
    name="report",
    warmup_s=1.0,
    min_runs=205,
    min_s=12.0,
    repeats=5,
    max_repeats=5,
    max_spread=0.05,
    cooldown_s=1.0,
)
"""The repeats together reach MLPerf Mobile's 1,024 samples and 60 s."""

ONCE = Protocol(name="once", warmup_s=0.0, min_runs=1, min_s=0.0, repeats=1, max_repeats=1, max_spread=0.0)
"""For modelled devices, whose answer never changes."""

PROTOCOLS = {protocol.name: protocol for protocol in (QUICK, SEARCH, REPORT, ONCE)}


def protocol_names() -> list[str]:
    """The names of the protocols that come with hwnas."""
    return list(PROTOCOLS)


def load_protocol(name_or_path: str) -> Protocol:
    """A protocol by its name or from a `.toml` file.

    Raises:
        InputError: no such protocol, or a file that is not one; the offending key is named.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return decode(Protocol, read_toml(path), path)
    if name_or_path not in PROTOCOLS:
        near = difflib.get_close_matches(name_or_path, PROTOCOLS, n=1) or protocol_names()
        raise InputError(
            f"there is no protocol {name_or_path!r}; the nearest is {', '.join(near)}",
            f"take one of {', '.join(protocol_names())}, or the path of a .toml file",
        )
    return PROTOCOLS[name_or_path]


def queued(protocol: Protocol) -> Protocol:
    """A protocol at a queue: repeats are jobs of their own, warm-up and runs within one are the queue's."""
    return replace(
        protocol, name=f"{protocol.name}, queued", warmup_s=0.0, min_runs=1, min_s=0.0, cooldown_s=0.0
    )


def describe(protocol: Protocol) -> str:
    """One line for people."""
    if protocol.repeats == protocol.max_repeats == protocol.min_runs == 1 and not protocol.min_s:
        return f"{protocol.name}: one run"
    phrases = [f"{protocol.repeats} × at least {protocol.min_runs} runs and {protocol.min_s:g} s"]
    if protocol.min_runs == 1 and not protocol.min_s:
        phrases = [f"{protocol.repeats} repeats"]
    if protocol.warmup_s:
        phrases.insert(0, f"{protocol.warmup_s:g} s of warm-up")
    if protocol.max_repeats > protocol.repeats:
        phrases.append(
            f"up to {protocol.max_repeats} × while they differ by more than {protocol.max_spread:.0%}"
        )
    if protocol.cooldown_s:
        phrases.append(f"{protocol.cooldown_s:g} s of rest before each")
    return (
        f"{protocol.name}: {', '.join(phrases)}; {protocol.statistic} of the repeats' {protocol.statistic}s"
    )
