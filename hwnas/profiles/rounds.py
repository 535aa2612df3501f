"""Interleaved rounds over a few prepared networks: the part of a session that makes latencies comparable.

A round is `anchor, n1, n2, …, anchor`; the next one goes through the networks in reverse. A device whose
speed drifts thus moves the networks and the anchor alike, and no network is always the one that runs last.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hwnas.devices.base import Device, Handle
from hwnas.errors import DeadlineError, HwnasError, NetworkFormError, PreparationError, is_out_of_memory
from hwnas.measurement import (
    Conditions,
    Fingerprint,
    Measurement,
    MeasurementFailure,
    MeasurementResult,
    Protocol,
)
from hwnas.network import Network
from hwnas.profiles.protocols import is_enough

THROTTLED_RETRIES = 3
MIN_COOLDOWN_S = 1.0
OUTLIER = 10  # no clock, heat or load moves a device's speed by this factor
RETAKES = 2


def without_outliers(take: Callable[[], Sequence[float]], before_ms: Sequence[float]) -> Sequence[float]:
    """Samples in ms, taken twice again where their median is far off the medians before, as by a glitch.

    Of the three the one in the middle stands: it may have been those before that were off, or the device has
    changed.
    """
    takes_ms = [take()]
    if takes_ms[0] and before_ms:
        factor = statistics.median(takes_ms[0]) / statistics.median(before_ms)
        while takes_ms[-1] and len(takes_ms) <= RETAKES and not 1 / OUTLIER < factor < OUTLIER:
            takes_ms.append(take())
    if not takes_ms[-1]:
        return ()
    return sorted(takes_ms, key=statistics.median)[len(takes_ms) // 2]


class Anchor:
    """The reference network, sampled at both ends of every round to see the device's speed drift."""

    def __init__(self, device: Device, handle: Handle, protocol: Protocol) -> None:
        self._device = device
        self._handle = handle
        self._protocol = protocol
        self._modelled_ms: float | None = None
        self._before_ms: list[float] = []

    def warm_up(self) -> None:
        """Run as long as any network's warm-up."""
        if self._protocol.warmup_s:
            self._device.sample(self._handle, runs=1, seconds=self._protocol.warmup_s)

    def latency_ms(self) -> float:
        """Median of half a repeat: a round's two ends together cost as much as one more network.

        Raises:
            PreparationError: the anchor fails, so nothing can be compared in this session.
        """
        if self._modelled_ms is not None:
            return self._modelled_ms
        protocol = self._protocol
        half = math.ceil(protocol.min_runs / 2)

        def take() -> Sequence[float]:
            return self._device.sample(self._handle, runs=half, seconds=protocol.min_s / 2)

        median_ms = statistics.median(without_outliers(take, self._before_ms))
        self._before_ms.append(median_ms)
        if self._device.kind == "modelled":  # a model's answer never changes and may take minutes
            self._modelled_ms = median_ms
        return median_ms


@dataclass(kw_only=True, eq=False)
class _Series:
    """What was taken so far of one network."""

    network: Network
    handle: Handle | None
    started_at: str
    warmup_ms: tuple[float, ...] = ()
    repeats_ms: list[tuple[float, ...]] = field(default_factory=list)
    anchor_ms: list[float] = field(default_factory=list)


class Chunk:
    """A few networks that are held prepared at once and measured in rounds.

    Args:
        keep: called with each result as soon as it is final.
        sleep: pauses for some seconds.
        clock: seconds since any moment.
    """

    def __init__(
        self,
        device: Device,
        protocol: Protocol,
        fingerprint: Fingerprint,
        anchor: Anchor | None,
        keep: Callable[[MeasurementResult], None],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._device = device
        self._protocol = protocol
        self._fingerprint = fingerprint
        self._anchor = anchor
        self._keep = keep
        self._sleep = sleep
        self._clock = clock
        self._active: list[_Series] = []

    def measure(self, networks: list[Network]) -> None:
        """Prepare, warm up and measure the networks; one that fails is kept as a failure.

        Whatever happens, no network stays prepared.
        """
        with ExitStack() as held:
            self._device.stage(networks)
            for network in networks:
                self._prepare(network, held)
            if self._active:
                self._warm_up()
                self._take_rounds()

    def _prepare(self, network: Network, held: ExitStack) -> None:
        handle = None
        if not self._protocol.fresh:
            try:
                handle = self._device.prepare(network)
            except (PreparationError, NetworkFormError) as error:
                self._keep(_refusal(network, error))
                return
            held.callback(self._device.release, handle)
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._active.append(_Series(network=network, handle=handle, started_at=started_at))

    def _warm_up(self) -> None:
        if not self._protocol.warmup_s:
            return
        if self._anchor is not None:
            self._anchor.warm_up()
        if not self._protocol.fresh:
            for series in list(self._active):
                series.warmup_ms = self._sample(series, 1, self._protocol.warmup_s)

    def _take_rounds(self) -> None:
        start_s = self._clock()
        before = self._device.conditions()
        backwards = False
        while self._active:
            after = self._take_round(self._active[:: -1 if backwards else 1])
            if after.throttled:
                reason = f"the device throttled in all of {1 + THROTTLED_RETRIES} attempts at a round"
                reason += f": {', '.join(after.limits)}" if after.limits else ""
                for series in list(self._active):
                    self._fail(series, reason, transient=True)
                return
            for series in list(self._active):
                medians_ms = [statistics.median(samples) for samples in series.repeats_ms]
                if is_enough(self._protocol, medians_ms, self._clock() - start_s):
                    self._active.remove(series)
                    self._keep(self._measurement(series, (before, after)))
            backwards = not backwards

    def _take_round(self, order: list[_Series]) -> Conditions:
        """Add a repeat to every network; the conditions after it. One that only throttled adds nothing."""
        after = Conditions()
        for attempt in range(1 + THROTTLED_RETRIES):
            pause_s = max(self._protocol.cooldown_s, MIN_COOLDOWN_S if attempt else 0.0)
            if pause_s:
                self._sleep(pause_s)
            running = [series for series in order if series in self._active]
            first_ms = self._anchor.latency_ms() if self._anchor else None
            take = self._take_fresh if self._protocol.fresh else self._take
            taken_ms = [take(series) for series in running]
            last_ms = self._anchor.latency_ms() if self._anchor else None
            after = self._device.conditions()
            if after.throttled:
                continue
            for place, (series, samples_ms) in enumerate(zip(running, taken_ms, strict=True), start=1):
                series.repeats_ms.append(samples_ms)
                if first_ms is not None and last_ms is not None:
                    # The anchor's latency where this network stood in the round, had it run there.
                    series.anchor_ms.append(first_ms + (last_ms - first_ms) * place / (len(running) + 1))
            break
        return after

    def _take(self, series: _Series) -> tuple[float, ...]:
        def take() -> Sequence[float]:
            return self._sample(series, self._protocol.min_runs, self._protocol.min_s)

        before_ms = [statistics.median(samples_ms) for samples_ms in series.repeats_ms]
        return tuple(without_outliers(take, before_ms))

    def _take_fresh(self, series: _Series) -> tuple[float, ...]:
        """Prepare the network for this repeat alone, warm it up, sample it."""
        try:
            series.handle = self._device.prepare(series.network, fresh=True)
        except (PreparationError, NetworkFormError) as error:
            self._active.remove(series)
            self._keep(_refusal(series.network, error))
            return ()
        try:
            if self._protocol.warmup_s:
                series.warmup_ms += self._sample(series, 1, self._protocol.warmup_s)
            return self._take(series) if series in self._active else ()
        finally:
            self._device.release(series.handle)

    def _sample(self, series: _Series, runs: int, seconds: float) -> tuple[float, ...]:
        """Samples in ms; none at all when the network fails, which takes it out of the chunk."""
        assert series.handle is not None
        try:
            return tuple(self._device.sample(series.handle, runs=runs, seconds=seconds))
        except PreparationError as error:
            self._fail(series, _reason(error), transient=True)
            return ()

    def _fail(self, series: _Series, reason: str, transient: bool = False) -> None:
        self._active.remove(series)
        self._keep(MeasurementFailure(network_hash=series.network.hash, reason=reason, transient=transient))

    def _measurement(self, series: _Series, conditions: tuple[Conditions, Conditions]) -> Measurement:
        assert series.handle is not None
        return Measurement(
            network_hash=series.network.hash,
            kind=self._device.kind,
            repeats_ms=tuple(series.repeats_ms),
            warmup_ms=series.warmup_ms,
            anchor_ms=tuple(series.anchor_ms),
            metrics=dict(series.handle.metrics),
            placement={unit: dict(counts) for unit, counts in series.handle.placement.items()},
            protocol=self._protocol,
            fingerprint=self._fingerprint,
            conditions=conditions,
            started_at=series.started_at,
            network_name=series.network.name,
            device_name=self._device.profile.name,
        )


def _refusal(network: Network, error: HwnasError) -> MeasurementFailure:
    """A network that could not be prepared; where memory or time ended, it lies not in the network alone."""
    transient = is_out_of_memory(error) or isinstance(error, DeadlineError)
    return MeasurementFailure(network_hash=network.hash, reason=_reason(error), transient=transient)


def _reason(error: HwnasError) -> str:
    return f"{error.cause} ({error.fix})"
