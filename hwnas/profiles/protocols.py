"""How a latency is taken: the named protocols, and protocols of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hwnas.errors import InputError
from hwnas.files import decode, read_toml
from hwnas.measurement import Protocol
from hwnas.profiles.statistics import half_width
from hwnas.spelling import did_you_mean

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

ADAPTIVE = Protocol(
    name="adaptive",
    warmup_s=0.1,
    min_runs=30,
    min_s=0.3,
    repeats=6,
    max_repeats=100,
    max_spread=0.05,
    fresh=True,
    precision=0.01,
    max_seconds=60.0,
)
"""Many short repeats that share nothing, until their median is known to 1 % or a minute is over."""

SIDE_BY_SIDE = Protocol(
    name="side by side",
    warmup_s=0.05,
    min_runs=60,
    min_s=0.35,
    repeats=6,
    max_repeats=30,
    max_spread=0.0,
    fresh=True,
    max_seconds=45.0,
    slice_s=0.05,
)
"""For `hwnas check` and `hwnas compare`; six jobs each at a queue can just reach significance."""

CONFIRMING = 4

ONCE = Protocol(name="once", warmup_s=0.0, min_runs=1, min_s=0.0, repeats=1, max_repeats=1, max_spread=0.0)
"""For modelled devices, whose answer never changes."""

PROTOCOLS = {protocol.name: protocol for protocol in (QUICK, SEARCH, REPORT, ADAPTIVE, ONCE)}


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
        raise InputError(
            f"there is no protocol {name_or_path!r}",
            f"{did_you_mean(name_or_path, PROTOCOLS)}take one of {', '.join(protocol_names())}, "
            "or the path of a .toml file",
        )
    return PROTOCOLS[name_or_path]


MOST_REPEATS, LONGEST_S = 100, 60.0
"""Of a protocol that is told to reach a precision and has no limit of its own."""


def protocol_until(name_or_path: str, precision: float | None, max_seconds: float | None) -> Protocol:
    """A protocol that goes on until a precision is reached or a time is up; None leaves either as it is."""
    how = load_protocol(name_or_path)
    if precision is not None:
        how = replace(how, precision=precision, max_repeats=max(how.max_repeats, MOST_REPEATS))
        how = how if how.max_seconds or max_seconds else replace(how, max_seconds=LONGEST_S)
    return how if max_seconds is None else replace(how, max_seconds=max_seconds)


def queued(protocol: Protocol) -> Protocol:
    """A protocol at a queue: repeats are jobs of their own, warm-up and runs within one are the queue's.

    A job costs somebody time or money, so a protocol that would go on to some precision takes its `repeats`.
    """
    return replace(
        protocol,
        name=f"{protocol.name}, queued",
        warmup_s=0.0,
        min_runs=1,
        min_s=0.0,
        cooldown_s=0.0,
        max_repeats=protocol.repeats if protocol.precision or protocol.slice_s else protocol.max_repeats,
        fresh=False,
        precision=0.0,
        max_seconds=0.0,
        slice_s=0.0,
    )


def confirming(protocol: Protocol) -> Protocol:
    """A protocol with four times the repeats: for the few networks that looked best of many.

    Of many noisy figures the lowest are too low.
    """
    repeats = CONFIRMING * protocol.repeats
    return replace(
        protocol,
        name=f"{protocol.name}, confirmed",
        repeats=repeats,
        max_repeats=max(repeats, protocol.max_repeats),
        max_seconds=CONFIRMING * protocol.max_seconds,
    )


def is_enough(protocol: Protocol, medians_ms: Sequence[float], elapsed_s: float) -> bool:
    """Whether repeats with these medians may end, so long after the first one began."""
    if protocol.max_seconds and elapsed_s >= protocol.max_seconds:
        return True
    if not protocol.precision or len(medians_ms) < protocol.repeats:
        return protocol.settled(medians_ms)
    return len(medians_ms) >= protocol.max_repeats or half_width(medians_ms) <= protocol.precision


def is_last(protocol: Protocol, repeats: int, elapsed_s: float) -> bool:
    """Whether repeats, taken in some time, are all that the protocol allows: one more would end too late."""
    is_late = protocol.max_seconds and elapsed_s * (repeats + 1) / repeats > protocol.max_seconds
    return bool(is_late) or repeats >= protocol.max_repeats


def least_seconds(protocol: Protocol) -> float:
    """Return the seconds that runs of one network take at least: warm-up and repeats, not preparing it."""
    warm_ups = protocol.repeats if protocol.fresh else 1
    return warm_ups * protocol.warmup_s + protocol.repeats * protocol.min_s


def ending(protocol: Protocol, medians_ms: Sequence[float]) -> str:
    """Why repeats with these medians ended, for people."""
    count = f"{len(medians_ms)} repeat{'s' if len(medians_ms) > 1 else ''}"
    if protocol.precision and len(medians_ms) >= protocol.repeats:
        width = f"± {half_width(medians_ms):.1%} after {count}"
        if half_width(medians_ms) <= protocol.precision:
            return f"precise enough: {width}"
        if len(medians_ms) >= protocol.max_repeats:
            return f"not as precise as asked for: {width}, the most of the protocol"
        return f"not as precise as asked for: {width}, the time was up"
    if len(medians_ms) < protocol.repeats:
        return f"the time was up after {count}"
    return f"{count}, as the protocol says"


def describe(protocol: Protocol) -> str:
    """One line for people."""
    if protocol.repeats == protocol.max_repeats == protocol.min_runs == 1 and not protocol.min_s:
        return f"{protocol.name}: one run"
    phrases = [f"{protocol.repeats} × at least {protocol.min_runs} runs and {protocol.min_s:g} s"]
    if protocol.min_runs == 1 and not protocol.min_s:
        phrases = [f"{protocol.repeats} repeats"]
    if protocol.warmup_s:
        phrases.insert(0, f"{protocol.warmup_s:g} s of warm-up")
    if protocol.max_repeats > protocol.repeats and not protocol.precision:
        phrases.append(
            f"up to {protocol.max_repeats} × while they differ by more than {protocol.max_spread:.0%}"
        )
    if protocol.fresh:
        phrases.append("each in a session of its own")
    if protocol.slice_s:
        phrases.append(f"in turns of {protocol.slice_s:g} s")
    if protocol.precision:
        phrases[-1] += f", until the median is known to {protocol.precision:.1%}"
    if protocol.max_seconds:
        phrases.append(f"at most {protocol.max_seconds:g} s together")
    if protocol.cooldown_s:
        phrases.append(f"{protocol.cooldown_s:g} s of rest before each")
    return (
        f"{protocol.name}: {', '.join(phrases)}; {protocol.statistic} of the repeats' {protocol.statistic}s"
    )
