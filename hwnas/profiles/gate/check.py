"""The check itself: each network beside its baseline on one device, and one line on each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial

from hwnas.devices.base import BaseDevice, Device
from hwnas.devices.queue import QueueDevice
from hwnas.errors import DeviceLostError, NetworkFormError, PreparationError
from hwnas.files import hwnas_home
from hwnas.measurement import Fingerprint, Measurement, MeasurementResult, Protocol
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
from hwnas.profiles.gate.report import Checked, How, Report
from hwnas.profiles.job_store import JobStore
from hwnas.profiles.judgement import judge_conditions
from hwnas.profiles.queue import QueueRun
from hwnas.profiles.session import require_kind
from hwnas.profiles.sitting import Pace, Repeat, Slices, latency_ms, log_ratio, median_ms, repeats
from hwnas.profiles.store import MeasurementStore

RECORDED_REPEATS = 16
"""Of each network in a baseline file."""

JOBS = Protocol(name="check", warmup_s=0, min_runs=1, min_s=0, repeats=6, max_repeats=6, max_spread=0)
"""At a queue: so many jobs each of the network and its baseline can just reach significance."""


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
        pace: of each network's repeats.
    """

    threshold: float
    baseline: str
    accept: str
    recorded_on: Fingerprint | None = None
    pace: Pace = field(default_factory=Pace)


def check(
    device: BaseDevice,
    entries: Sequence[Entry],
    terms: Terms,
    told: Callable[[Checked], None] = lambda checked: None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Check networks one after the other.

    Args:
        device: not yet entered.
        told: called with each result as soon as it is there.

    Raises:
        DeviceError: the device cannot be used, or its latencies mean nothing. One that is lost in the middle
            is
            no exception: what was decided by then is kept, the other networks are `failed`.
    """
    require_kind(device, {"measured", "modelled"}, "a check")
    done: list[Checked] = []
    with device:
        fingerprint, before = device.fingerprint(), device.conditions()
        lost: DeviceLostError | None = None
        changed = sum(not entry.is_unchanged for entry in entries)
        for entry in entries:
            try:
                if lost is not None:
                    raise lost
                checked = _check_one(device, fingerprint, entry, terms, changed, clock)
            except (PreparationError, NetworkFormError, DeviceLostError) as error:
                lost = error if isinstance(error, DeviceLostError) else lost
                reason = f"{error.cause}; {error.fix}"
                checked = Checked(model=entry.model, verdict="failed", how="not measured", reason=reason)
            done.append(checked)
            told(checked)
        judged = () if lost is not None else judge_conditions((before, device.conditions()))
    return Report(
        device=device.profile.name,
        fingerprint=fingerprint,
        baseline=terms.baseline,
        threshold=terms.threshold,
        networks=tuple(done),
        judgement=tuple(finding.text for finding in judged),
    )


def measure_repeats(
    device: BaseDevice,
    networks: Sequence[Network],
    pace: Pace,
    is_settled: Callable[[Sequence[float]], bool] = lambda log_ratios: False,
    clock: Callable[[], float] = time.monotonic,
) -> list[list[Slices]]:
    """The repeats of one network, or of two interleaved ones, on an open device.

    Args:
        is_settled: of the two's logarithms of the ratio so far, whether they are enough.

    Returns:
        For each network its repeats.

    Raises:
        PreparationError, NetworkFormError, DeviceLostError: a network could not be measured.
    """
    if isinstance(device, QueueDevice):
        return [_measure_jobs(device, network) for network in networks]
    assert isinstance(device, Device)
    if device.kind == "modelled":  # its answer never changes
        pace = replace(pace, warmup_s=0, slice_s=0, repeat_s=0, repeat_runs=1, max_repeats=1)
    taken: list[Repeat] = []
    for repeat in repeats(device, networks, pace, clock):
        taken.append(repeat)
        if len(networks) == 2 and is_settled([log_ratio(earlier) for earlier in taken]):
            break
    if not taken:
        raise PreparationError(
            f"device {device.profile.name} throttled in every repeat",
            "let it cool down, or end what else uses its CPU quota, then give the same command again",
        )
    return [list(of_network) for of_network in zip(*taken, strict=True)]


def _check_one(
    device: BaseDevice,
    fingerprint: Fingerprint,
    entry: Entry,
    terms: Terms,
    networks: int,
    clock: Callable[[], float],
) -> Checked:
    threshold = terms.threshold
    if entry.is_unchanged:
        reason = (
            f"the same structure and weights as in {terms.baseline}, so there is nothing to compare; "
            "--recorded compares with what was measured then"
        )
        return Checked(model=entry.model, verdict="unchanged", how="not measured", reason=reason)
    if entry.baseline is None:
        return _check_recorded(device, fingerprint, entry, terms, networks)
    both = [entry.baseline, entry.network]
    settled = partial(is_settled, threshold=threshold, networks=networks)
    old, new = measure_repeats(device, both, terms.pace, settled, clock)
    old_ms, new_ms = (tuple(map(latency_ms, taken)) for taken in (old, new))
    how: How
    if device.kind == "modelled":
        how, decision = "modelled", decide_modelled(old_ms[0], new_ms[0], threshold)
    elif isinstance(device, QueueDevice):
        how, decision = "jobs", decide_recorded(old_ms, new_ms, threshold, networks)
    else:
        log_ratios = [math.log(now / then) for then, now in zip(old_ms, new_ms, strict=True)]
        how, decision = "interleaved", decide_paired(log_ratios, threshold, networks)
    return Checked(
        model=entry.model,
        verdict=decision.verdict,
        how=how,
        reason=explain(decision, terms),
        decision=decision,
        baseline_ms=old_ms,
        now_ms=new_ms,
        baseline_median_ms=tuple(map(median_ms, old)),
        now_median_ms=tuple(map(median_ms, new)),
    )


def _check_recorded(
    device: BaseDevice, fingerprint: Fingerprint, entry: Entry, terms: Terms, networks: int
) -> Checked:
    recorded = entry.recorded
    assert recorded is not None, "an entry has a baseline network, recorded samples, or both"
    if terms.recorded_on != fingerprint:
        assert terms.recorded_on is not None
        difference = _difference(terms.recorded_on, fingerprint)
        reason = (
            f"recorded elsewhere ({difference}), and latencies of two fingerprints are never compared: check "
            f"against a git revision (--baseline REF), or record here: {terms.accept}"
        )
        return Checked(model=entry.model, verdict="inconclusive", how="not measured", reason=reason)
    # Nothing is interleaved, so the repeats are as many as those that were recorded.
    pace = replace(terms.pace, max_repeats=max(len(recorded.repeats_ms), fewest_repeats(networks)))
    (new,) = measure_repeats(device, [entry.network], pace)
    new_ms = tuple(map(latency_ms, new))
    if device.kind == "modelled":
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
        now_median_ms=tuple(map(median_ms, new)),
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


def _measure_jobs(device: QueueDevice, network: Network) -> list[Slices]:
    found: list[MeasurementResult] = []
    fingerprint = device.fingerprint()
    with (
        MeasurementStore(hwnas_home() / "history.db") as store,
        JobStore(store, fingerprint, JOBS) as jobs,
    ):

        def keep(result: MeasurementResult) -> None:
            store.put(result, fingerprint, JOBS)  # which closes its jobs
            found.append(result)

        run = QueueRun(device, JOBS, fingerprint, jobs, None, keep, time.sleep, lambda _status: None)
        run.measure({network.hash: network})
    (result,) = found
    if not isinstance(result, Measurement):
        raise PreparationError(result.reason, "see the reason")
    return [(samples_ms,) for samples_ms in result.repeats_ms]


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
