"""The check itself: each network beside its baseline on one device, and one line on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from hwnas.devices.queue import QueueDevice
from hwnas.errors import DeviceLostError, NetworkFormError, PreparationError
from hwnas.files import encode, sha256_of_plain
from hwnas.measurement import Fingerprint, Measurement
from hwnas.network import Network
from hwnas.profiles.gate.baseline import Recorded
from hwnas.profiles.gate.decision import (
    Decision,
    decide_modelled,
    decide_paired,
    decide_recorded,
    fewest_repeats,
    is_settled,
)
from hwnas.profiles.gate.open_check import OpenCheck
from hwnas.profiles.gate.report import Checked, How, Report
from hwnas.profiles.interleave import latency_ms
from hwnas.profiles.judgement import judge_conditions
from hwnas.profiles.session import Session, require_kind

RECORDED_REPEATS = 16
"""Of each network in a baseline file."""
BEFORE = "measured before the check was stopped"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network to be checked.

    Attributes:
        baseline: the network that it is compared with; None where it is not at hand.
        recorded: what the baseline file knows of it; None without a baseline file.
    """

    model: str
    network: Network
    baseline: Network | None = None
    recorded: Recorded | None = None

    @property
    def is_unchanged(self) -> bool:
        """Whether the baseline network is at hand and is the same, so that nothing is measured."""
        return self.baseline is not None and self.baseline.hash == self.network.hash


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for all networks of a check.

    Attributes:
        threshold: the fraction by which a network may be slower.
        baseline: what the user named as the baseline.
        accept: the command that makes what is measured now the baseline.
        recorded_on: the fingerprint of the recorded samples; None without any.
    """

    threshold: float
    baseline: str
    accept: str
    recorded_on: Fingerprint | None = None


def check(
    session: Session,
    entries: Sequence[Entry],
    terms: Terms,
    on_result: Callable[[Checked], None] = lambda checked: None,
) -> Report:
    """Check networks one after the other.

    What is decided is kept: where a check ends midway, the same one goes on from there.

    Args:
        session: not yet entered; it takes `SIDE_BY_SIDE` and recalls nothing.
        on_result: called with each result as soon as it is there.

    Raises:
        DeviceError: the device cannot be used, or its latencies mean nothing. One that is lost in the middle
            is no exception: what was decided by then is kept, the other networks are `failed`.
    """
    device = session.device
    require_kind(device, {"measured", "modelled"}, "a check")
    done: list[Checked] = []
    with session:
        before = device.conditions()
        lost: DeviceLostError | None = None
        changed = sum(not entry.is_unchanged for entry in entries)
        with OpenCheck(session.store, _check_id(session, entries, terms)) as opened:
            decided = opened.decided()
            for n, entry in enumerate(entries):
                try:
                    if n in decided:
                        checked = replace(decided[n], reason=f"{decided[n].reason} ({BEFORE})")
                    elif lost is not None:
                        raise lost
                    else:
                        checked = _check_one(session, entry, terms, changed)
                        opened.keep(n, checked)
                except (PreparationError, NetworkFormError, DeviceLostError) as error:
                    lost = error if isinstance(error, DeviceLostError) else lost
                    reason = f"{error.cause}; {error.fix}"
                    checked = Checked(model=entry.model, verdict="failed", how="not measured", reason=reason)
                done.append(checked)
                on_result(checked)
            if lost is None:
                opened.end()
        judged = () if lost is not None else judge_conditions((before, device.conditions()))
        fingerprint = session.fingerprint
    return Report(
        device=device.profile.name,
        fingerprint=fingerprint,
        baseline=terms.baseline,
        threshold=terms.threshold,
        networks=tuple(done),
        judgement=tuple(finding.text for finding in judged),
    )


def record(
    session: Session,
    networks: Sequence[tuple[Network, str]],
    shape: Sequence[int],
    on_result: Callable[[Recorded], None] = lambda recorded: None,
) -> list[Recorded]:
    """Measure networks one after the other for a baseline file.

    Args:
        session: entered; it takes `SIDE_BY_SIDE` with `RECORDED_REPEATS` and recalls nothing.
        networks: by the names under which they are recorded, each with the commit that holds its file.
        shape: of the inputs, where it was asked for.
        on_result: called with each network as soon as it is measured.
    """
    found = []
    for network, commit in networks:
        (taken,) = session.side_by_side([network], lambda taken: False)
        recorded = Recorded(
            model=network.name,
            network_hash=network.hash,
            commit=commit,
            repeats_ms=lower_deciles_ms(taken),
            medians_ms=taken.medians_ms,
            input_shape=tuple(shape),
        )
        on_result(recorded)
        found.append(recorded)
    return found


def lower_deciles_ms(measurement: Measurement) -> tuple[float, ...]:
    """Return `latency_ms` of each repeat."""
    return tuple(map(latency_ms, measurement.repeats_ms))


def log_ratios(first: Measurement, second: Measurement) -> list[float]:
    """Return the logarithm of the second network's latency over the first one's, repeat by repeat."""
    pairs = zip(lower_deciles_ms(first), lower_deciles_ms(second), strict=True)
    return [math.log(now / then) for then, now in pairs]


def _check_id(session: Session, entries: Sequence[Entry], terms: Terms) -> str:
    """The hash of everything that decisions depend on."""
    asked = [
        [entry.model, entry.network.hash, entry.baseline and entry.baseline.hash, encode(entry.recorded)]
        for entry in entries
    ]
    how = [session.device.profile.name, session.fingerprint.id, session.protocol.id]
    return sha256_of_plain([asked, how, encode(terms)])


def _check_one(session: Session, entry: Entry, terms: Terms, networks: int) -> Checked:
    threshold = terms.threshold
    if entry.is_unchanged:
        reason = (
            f"the same structure and weights as in {terms.baseline}, so there is nothing to compare; "
            "--recorded compares with what was measured then"
        )
        return Checked(model=entry.model, verdict="unchanged", how="not measured", reason=reason)
    if entry.baseline is None:
        return _check_recorded(session, entry, terms, networks)

    def settled(taken: Sequence[Measurement]) -> bool:
        return is_settled(log_ratios(*taken), threshold, networks)

    old, new = session.side_by_side([entry.baseline, entry.network], settled)
    old_ms, new_ms = lower_deciles_ms(old), lower_deciles_ms(new)
    how: How
    if session.device.kind == "modelled":
        how, decision = "modelled", decide_modelled(old_ms[0], new_ms[0], threshold)
    elif isinstance(session.device, QueueDevice):
        how, decision = "jobs", decide_recorded(old_ms, new_ms, threshold, networks)
    else:
        how, decision = "interleaved", decide_paired(log_ratios(old, new), threshold, networks)
    return Checked(
        model=entry.model,
        verdict=decision.verdict,
        how=how,
        reason=explain(decision, terms),
        decision=decision,
        baseline_ms=old_ms,
        now_ms=new_ms,
        baseline_median_ms=old.medians_ms,
        now_median_ms=new.medians_ms,
    )


def _check_recorded(session: Session, entry: Entry, terms: Terms, networks: int) -> Checked:
    recorded = entry.recorded
    assert recorded is not None, "an entry has a baseline network, recorded samples, or both"
    if terms.recorded_on != session.fingerprint:
        assert terms.recorded_on is not None
        difference = _difference(terms.recorded_on, session.fingerprint)
        reason = (
            f"recorded elsewhere ({difference}), and latencies of two fingerprints are never compared: check "
            f"against a git revision (--baseline REF), or record here: {terms.accept}"
        )
        return Checked(model=entry.model, verdict="inconclusive", how="not measured", reason=reason)
    # Nothing is interleaved, so the repeats are as many as those that were recorded.
    enough = max(len(recorded.repeats_ms), fewest_repeats(networks))
    (new,) = session.side_by_side([entry.network], lambda taken: len(taken[0].repeats_ms) >= enough)
    new_ms = lower_deciles_ms(new)
    if session.device.kind == "modelled":
        decision = decide_modelled(recorded.repeats_ms[0], new_ms[0], terms.threshold)
    else:
        decision = decide_recorded(recorded.repeats_ms, new_ms, terms.threshold, networks)
    return Checked(
        model=entry.model,
        verdict=decision.verdict,
        how="recorded",
        reason=explain(decision, terms),
        decision=decision,
        baseline_ms=recorded.repeats_ms,
        now_ms=new_ms,
        baseline_median_ms=recorded.medians_ms,
        now_median_ms=new.medians_ms,
    )


def explain(decision: Decision, terms: Terms) -> str:
    """Why, and what to do, in one line."""
    size = f"{abs(decision.effect):.1%} {'slower' if decision.effect > 0 else 'faster'}{_range(decision)}"
    limit = f"threshold {decision.threshold:.1%}, noise floor {decision.noise_floor or 0:.1%}"
    match decision.verdict:
        case "regression":
            return f"{size}, {limit}: make it faster again, or accept it: {terms.accept}"
        case "improvement":
            return f"{size}, {limit}: accept the new baseline: {terms.accept}"
        case "pass":
            return f"{size}, {limit}: nothing to do"
    if decision.noise_floor is None:
        few = f"repeats are too few to tell ({decision.repeats})"
        return f"{size}, but {few}: check again with more --max-seconds"
    return (
        f"{size}, {limit}: the noise hides what is asked for; check again on a quieter machine, with more "
        f"--max-seconds, or with a higher --threshold"
    )


def _range(decision: Decision) -> str:
    if decision.low is None or decision.high is None:
        return ""
    return f" [{100 * decision.low:+.1f}, {100 * decision.high:+.1f}]"


def _difference(then: Fingerprint, now: Fingerprint) -> str:
    return "; ".join(
        f"{part.name} was {getattr(then, part.name)!r}, is {getattr(now, part.name)!r}"
        for part in fields(Fingerprint)
        if getattr(then, part.name) != getattr(now, part.name)
    )
