"""A session with a device: every network is measured once, and remembered before anybody is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from hwnas.devices.base import BaseDevice, Device
from hwnas.devices.queue import QueueDevice
from hwnas.errors import DeviceError, PreparationError
from hwnas.measurement import (
    Fingerprint,
    Kind,
    Measurement,
    MeasurementFailure,
    MeasurementResult,
    Protocol,
)
from hwnas.network import Network
from hwnas.profiles.interleave import Control, Round, interleave
from hwnas.profiles.job_store import JobStore
from hwnas.profiles.judgement import Finding, judge, sentences
from hwnas.profiles.live import OnRound
from hwnas.profiles.protocols import ONCE, is_enough, is_last, queued
from hwnas.profiles.queue import QueueRun, QueueStatus
from hwnas.profiles.store import MeasurementStore

TOGETHER = 8  # networks held prepared at once: enough to share the control's cost, few enough for any memory


class Session:
    """Measures networks on a device; used as a context manager, which opens and closes the device.

    Args:
        device: not yet entered.
        protocol: how latencies are taken; a modelled device is always asked `once`, a queue by `queued`.
        store: what is already known, and where results go.
        anchor: the reference network, measured in every round as a witness of drift.
        recall: answer from the store what it knows; otherwise everything is measured anew and added.
        max_measurements: networks that the store may come to hold of this fingerprint and protocol, earlier
            sessions included; those beyond are answered with a failure that is not stored. None is no bound.
        sleep: pauses for some seconds.
        clock: seconds since any moment.
        watch: is told how far a device with a queue is, while it is waited for.
        on_round: is told after each round what was taken so far.

    Raises:
        DeviceError: on entering, when the device cannot be used.
        PreparationError, NetworkFormError: the device cannot run the anchor.
    """

    def __init__(
        self,
        device: BaseDevice,
        protocol: Protocol,
        store: MeasurementStore,
        anchor: Network | None = None,
        *,
        recall: bool = True,
        max_measurements: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        watch: Callable[[QueueStatus], None] = lambda _status: None,
        on_round: OnRound = lambda _taken, _protocol, _elapsed_s: None,
    ) -> None:
        self.device = device
        self._protocol = protocol
        self._store = store
        self._anchor_network = anchor
        self._control: Control | None = None
        self._fingerprint: Fingerprint | None = None
        self._recalls = recall
        self._max_measurements = max_measurements
        self._sleep = sleep
        self._clock = clock
        self._watch = watch
        self._on_round = on_round
        self._closing = ExitStack()
        self._judged: list[list[Finding]] = []

    @property
    def protocol(self) -> Protocol:
        """The protocol that this session really uses."""
        if self.device.kind == "modelled":
            return ONCE
        return queued(self._protocol) if isinstance(self.device, QueueDevice) else self._protocol

    @property
    def store(self) -> MeasurementStore:
        """Where its measurements go."""
        return self._store

    @property
    def fingerprint(self) -> Fingerprint:
        """The device's fingerprint, as it was when the session opened."""
        if self._fingerprint is None:
            raise DeviceError("the session is not open", "use it in a with statement")
        return self._fingerprint

    @property
    def judgement(self) -> list[str]:
        """What stands against the measurements that this session took itself, in sentences."""
        return sentences(self._judged)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(self.device)
            self._fingerprint = self.device.fingerprint()
            if self._anchor_network is not None and isinstance(self.device, Device):
                self._control = Control(self.device, self.device.prepare(self._anchor_network), self.protocol)
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, value, trace)

    def measure(self, networks: Iterable[Network]) -> Iterator[tuple[str, MeasurementResult]]:
        """Yield (network hash, result) for every given network, in the given order.

        What the store knows of this fingerprint and protocol is not measured again; a transient failure is
        tried again. Each result is in the store before it is yielded.

        Raises:
            DeviceLostError: the device went away; every result that was final by then is in the store.
            PreparationError: the anchor failed.
        """
        waiting: list[str] = []
        results: dict[str, MeasurementResult] = {}
        pending: dict[str, Network] = {}
        for network in networks:
            waiting.append(network.hash)
            known = self._recall(network.hash)
            if known is None and network.hash not in pending:
                known = self._over_budget(network.hash, pending)
            if known is None:
                pending[network.hash] = network
            else:
                results[network.hash] = known
            if not pending or (len(pending) == TOGETHER and isinstance(self.device, Device)):
                yield from self._answer(waiting, results, pending)
                waiting, results, pending = [], {}, {}
        yield from self._answer(waiting, results, pending)

    def retract(self, measurement: Measurement, reason: str) -> MeasurementFailure:
        """Store that a measurement of this session cannot be right; a later session measures anew."""
        failure = MeasurementFailure(network_hash=measurement.network_hash, reason=reason, transient=True)
        self._store.put(failure, self.fingerprint, self.protocol)
        return failure

    def side_by_side(
        self, networks: Sequence[Network], is_settled: Callable[[Sequence[Measurement]], bool]
    ) -> list[Measurement]:
        """Measure networks against each other; each gets as many repeats as the others.

        Args:
            is_settled: whether what is measured so far is enough; the protocol's `max_repeats` and
                `max_seconds` hold besides. Not asked at a queue.

        Returns:
            One of each network; they are in the store.

        Raises:
            DeviceLostError: the device went away.
            PreparationError, NetworkFormError: a network could not be measured.
        """
        if isinstance(self.device, Device):
            taken = self._take_side_by_side(self.device, networks, is_settled)
            for measurement in taken:
                self._keep(measurement)
            return taken
        results = [result for _, result in self.measure(networks)]
        for result in results:
            if isinstance(result, MeasurementFailure):
                raise PreparationError(result.reason, "see the reason")
        return [result for result in results if isinstance(result, Measurement)]

    def _take_side_by_side(
        self,
        device: Device,
        networks: Sequence[Network],
        is_settled: Callable[[Sequence[Measurement]], bool],
    ) -> list[Measurement]:
        taken: list[Measurement] = []
        protocol = self.protocol
        with self._rounds(device, networks) as rounds:
            for round_ in rounds:
                for series in round_.failed:
                    if taken and round_.conditions[1].throttled:  # the repeats before it stand
                        return taken
                    assert series.error is not None
                    raise series.error
                self._on_round(round_.active, protocol, round_.elapsed_s)
                taken = [
                    series.measurement(device, protocol, self.fingerprint, round_.conditions)
                    for series in round_.active
                ]
                if is_last(protocol, len(taken[0].repeats_ms), round_.elapsed_s) or is_settled(taken):
                    break
        return taken

    def _rounds(self, device: Device, networks: Sequence[Network]) -> closing[Generator[Round, None, None]]:
        return closing(interleave(device, networks, self.protocol, self._control, self._sleep, self._clock))

    def _keep(self, result: MeasurementResult) -> None:
        self._store.put(result, self.fingerprint, self.protocol)
        if isinstance(result, Measurement):
            self._judged.append(judge(result))

    def _answer(
        self, waiting: list[str], results: dict[str, MeasurementResult], pending: dict[str, Network]
    ) -> Iterator[tuple[str, MeasurementResult]]:
        def keep(result: MeasurementResult) -> None:
            self._keep(result)
            results[result.network_hash] = result

        if pending and isinstance(self.device, Device):
            self._measure_now(self.device, list(pending.values()), keep)
        elif pending and isinstance(self.device, QueueDevice):
            with JobStore(self._store, self.fingerprint, self.protocol) as jobs:
                run = QueueRun(
                    self.device,
                    self.protocol,
                    self.fingerprint,
                    jobs,
                    self._queue_anchor(pending),
                    keep,
                    self._sleep,
                    self._watch,
                )
                run.measure(pending)
        for network_hash in waiting:
            yield network_hash, results[network_hash]

    def _measure_now(
        self, device: Device, networks: Sequence[Network], keep: Callable[[MeasurementResult], None]
    ) -> None:
        """Interleave networks; each is kept as soon as its repeats are enough, or it fails."""
        protocol = self.protocol
        with self._rounds(device, networks) as rounds:
            for round_ in rounds:
                for series in round_.failed:
                    keep(series.failure())
                if taken := [series for series in round_.active if series.repeats]:
                    self._on_round(taken, protocol, round_.elapsed_s)
                for series in list(round_.active):
                    if series.repeats and is_enough(protocol, series.medians_ms, round_.elapsed_s):
                        round_.active.remove(series)
                        keep(series.measurement(device, protocol, self.fingerprint, round_.conditions))

    def _queue_anchor(self, pending: dict[str, Network]) -> tuple[str, float | None] | None:
        """The anchor's hash, and its latency where the store knows it; else it is measured first."""
        anchor = self._anchor_network
        if anchor is None:
            return None
        known = self._store.get(anchor.hash, self.fingerprint, self.protocol)
        if isinstance(known, Measurement):
            return anchor.hash, known.latency_ms
        others = {key: network for key, network in pending.items() if key != anchor.hash}
        pending.clear()
        pending.update({anchor.hash: anchor, **others})
        return anchor.hash, None

    def _over_budget(self, network_hash: str, pending: Collection[str]) -> MeasurementFailure | None:
        if self._max_measurements is None:
            return None
        taken = self._store.count(self.fingerprint, self.protocol) + len(pending)
        anchor = self._anchor_network
        if isinstance(self.device, QueueDevice) and anchor is not None:
            # At a queue the anchor is measured as any other network, once.
            known = self._store.get(anchor.hash, self.fingerprint, self.protocol)
            taken += known is None and anchor.hash not in {network_hash, *pending}
        if taken < self._max_measurements:
            return None
        reason = f"not measured: the run's {self._max_measurements} measurements are used up"
        return MeasurementFailure(
            network_hash=network_hash, reason=f"{reason} (raise --max-measurements)", transient=True
        )

    def _recall(self, network_hash: str) -> MeasurementResult | None:
        if not self._recalls:
            return None
        known = self._store.get(network_hash, self.fingerprint, self.protocol)
        return None if isinstance(known, MeasurementFailure) and known.transient else known


def require_kind(device: BaseDevice, accepted: Collection[Kind], purpose: str) -> None:
    """Refuse a device whose latencies do not mean what a purpose needs.

    Args:
        purpose: what they are needed for, as the subject of a sentence: `a search`.

    Raises:
        DeviceError: its kind is not accepted.
    """
    if device.kind not in accepted:
        raise DeviceError(
            f"{purpose} needs latencies that are {' or '.join(sorted(accepted))}; "
            f"those of {device.profile.name} are {device.kind}",
            "take another device: hwnas devices shows what each one's latencies are",
        )
