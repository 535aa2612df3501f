"""Interleaved sampling: networks take turns on a device, so that whatever slows it down meets all alike.

A round is `control, n1, n2, …, control`; the next one goes through the networks in reverse. Where the
protocol asks for slices, the networks of a round are prepared together and take turns within it, `a b b a …`.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hwnas.devices.base import Device, Handle
from hwnas.errors import DeadlineError, HwnasError, NetworkFormError, PreparationError, is_out_of_memory
from hwnas.measurement import Conditions, Fingerprint, Measurement, MeasurementFailure, Protocol
from hwnas.network import Network

THROTTLED_RETRIES = 3
MIN_COOLDOWN_S = 1.0
OUTLIER = 10  # no clock, heat or load moves a device's speed by this factor
RETAKES = 2
QUANTILE = 0.1
SLOWEST = 4

Slices = tuple[tuple[float, ...], ...]
"""The samples of one network in one repeat, slice by slice, in ms."""


def latency_ms(samples_ms: Sequence[float]) -> float:
    """Return the lower decile of the runs of one repeat: the latency where nothing else ran.

    Other work on the device only ever adds time, and to some runs more than to others. The median follows how
    many runs were disturbed, the smallest run is a single one; the decile is near the one and steady as the
    other.
    """
    return sorted(samples_ms)[int(QUANTILE * (len(samples_ms) - 1))]


def without_outliers(take: Callable[[], Sequence[float]], before_ms: Sequence[float]) -> Sequence[float]:
    """Take samples in ms, twice again where their median is far off the medians before, as by a glitch.

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


class Control:
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
        """Return the median of half a repeat: a round's two ends together cost as much as one more network.

        Raises:
            PreparationError: the control fails, so nothing can be compared in this session.
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
class Series:
    """What was taken so far of one network.

    Attributes:
        control_ms: the control's latency where this network stood in each round, had it run there.
        error: why it was given up; None while it runs.
        is_transient: whether the reason may be gone the next time.
    """

    network: Network
    handle: Handle | None = None
    started_at: str = ""
    warmup_ms: tuple[float, ...] = ()
    repeats: list[Slices] = field(default_factory=list)
    control_ms: list[float] = field(default_factory=list)
    error: HwnasError | None = None
    is_transient: bool = True

    @property
    def repeats_ms(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each repeat, in ms."""
        return tuple(tuple(itertools.chain.from_iterable(slices)) for slices in self.repeats)

    @property
    def medians_ms(self) -> list[float]:
        """The median of each repeat, in ms."""
        return [statistics.median(samples_ms) for samples_ms in self.repeats_ms]

    def failure(self) -> MeasurementFailure:
        """Return why it was given up, to be stored."""
        assert self.error is not None
        return MeasurementFailure(
            network_hash=self.network.hash,
            reason=f"{self.error.cause} ({self.error.fix})" if self.error.fix else self.error.cause,
            transient=self.is_transient,
        )

    def measurement(
        self,
        device: Device,
        protocol: Protocol,
        fingerprint: Fingerprint,
        conditions: tuple[Conditions, Conditions],
    ) -> Measurement:
        """Return what was taken, to be stored."""
        assert self.handle is not None
        return Measurement(
            network_hash=self.network.hash,
            kind=device.kind,
            repeats_ms=self.repeats_ms,
            warmup_ms=self.warmup_ms,
            anchor_ms=tuple(self.control_ms),
            metrics=dict(self.handle.metrics),
            placement={unit: dict(counts) for unit, counts in self.handle.placement.items()},
            protocol=protocol,
            fingerprint=fingerprint,
            conditions=conditions,
            started_at=self.started_at,
            network_name=self.network.name,
            device_name=device.profile.name,
        )


@dataclass(kw_only=True, eq=False)
class Round:
    """How things stand after a round.

    Attributes:
        active: networks that have one more repeat; whoever has enough of one takes it out.
        failed: networks that were given up since the round before.
        conditions: of the device, before the first round and after this one.
        elapsed_s: since the first round began.
    """

    active: list[Series]
    failed: list[Series]
    conditions: tuple[Conditions, Conditions] = (Conditions(), Conditions())
    elapsed_s: float = 0.0


def interleave(
    device: Device,
    networks: Sequence[Network],
    protocol: Protocol,
    control: Control | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Round, None, None]:
    """Yield rounds until no network is active; close it to end sooner. Nothing stays prepared.

    Networks that cannot be prepared are told before the first round. A round in which the device throttled is
    taken again; where it always throttles, all networks are given up.

    Args:
        device: entered.
        sleep: pauses for some seconds.
        clock: seconds since any moment.

    Raises:
        DeviceLostError: the device went away.
        PreparationError: the control failed.
    """
    sampling = _Sampling(device, protocol, control, sleep)
    with ExitStack() as held:
        device.stage(networks)
        for network in networks:
            sampling.open(network, held)
        if sampling.failed:
            yield Round(active=sampling.active, failed=sampling.take_failed())
        if not sampling.active:
            return
        sampling.warm_up()
        start_s, before = clock(), device.conditions()
        for number in itertools.count():
            after = sampling.take_round(backwards=number % 2 == 1)
            yield Round(
                active=sampling.active,
                failed=sampling.take_failed(),
                conditions=(before, after),
                elapsed_s=clock() - start_s,
            )
            if not sampling.active:
                return


class _Sampling:
    """The networks of `interleave`, and how a repeat of each is taken."""

    def __init__(
        self, device: Device, protocol: Protocol, control: Control | None, sleep: Callable[[float], None]
    ) -> None:
        self._device = device
        self._protocol = protocol
        self._control = control
        self._sleep = sleep
        self.active: list[Series] = []
        self.failed: list[Series] = []

    def take_failed(self) -> list[Series]:
        """The networks that were given up, each told once."""
        failed, self.failed = self.failed, []
        return failed

    def open(self, network: Network, held: ExitStack) -> None:
        """Prepare a network until `held` closes, unless each repeat prepares it anew."""
        series = Series(network=network, started_at=datetime.now(UTC).isoformat(timespec="seconds"))
        self.active.append(series)
        if not self._protocol.fresh:
            self._prepare(series, held)

    def warm_up(self) -> None:
        """Warm up the control, and what is prepared."""
        if self._control is not None:
            self._control.warm_up()
        if not self._protocol.fresh:
            self._warm_up(list(self.active))

    def take_round(self, *, backwards: bool) -> Conditions:
        """Add a repeat to every network; the conditions after it. One that only throttled adds nothing."""
        after = Conditions()
        for attempt in range(1 + THROTTLED_RETRIES):
            pause_s = max(self._protocol.cooldown_s, MIN_COOLDOWN_S if attempt else 0.0)
            if pause_s:
                self._sleep(pause_s)
            order = self.active[:: -1 if backwards else 1]
            first_ms = self._control.latency_ms() if self._control else None
            taken = self._take(order)
            last_ms = self._control.latency_ms() if self._control else None
            after = self._device.conditions()
            if after.throttled:
                continue
            for place, series in enumerate(order, start=1):
                if series.error is None:
                    series.repeats.append(tuple(taken[place - 1]))
                if first_ms is not None and last_ms is not None:
                    series.control_ms.append(first_ms + (last_ms - first_ms) * place / (len(order) + 1))
            return after
        reason = f"the device throttled in all of {1 + THROTTLED_RETRIES} attempts at a round"
        reason += f": {', '.join(after.limits)}" if after.limits else ""
        fix = "let it cool down, or end what else uses its CPU quota, then give the same command again"
        for series in list(self.active):
            self._give_up(series, PreparationError(reason, fix))
        return after

    def _take(self, order: Sequence[Series]) -> list[list[tuple[float, ...]]]:
        """The slices of one repeat of each network, in the given order."""
        taken: list[list[tuple[float, ...]]] = [[] for _ in order]
        together = [list(range(len(order)))] if self._protocol.slice_s else [[n] for n in range(len(order))]
        for places in together:
            with ExitStack() as held:
                group = [order[place] for place in places]
                if self._protocol.fresh:
                    for series in group:
                        self._prepare(series, held, fresh=True)
                    self._warm_up(group)
                if self._protocol.slice_s:
                    self._take_slices(order, taken)
                elif group[0].error is None:
                    taken[places[0]].append(self._take_whole(group[0]))
        return taken

    def _take_whole(self, series: Series) -> tuple[float, ...]:
        def take() -> Sequence[float]:
            return self._sample(series, self._protocol.min_runs, self._protocol.min_s)

        return tuple(without_outliers(take, series.medians_ms))

    def _take_slices(self, order: Sequence[Series], taken: list[list[tuple[float, ...]]]) -> None:
        turns = list(range(len(order)))
        while running := [place for place in turns if order[place].error is None]:
            if self._is_enough([taken[place] for place in running]):
                return
            for place in running:
                taken[place].append(self._sample(order[place], 1, self._protocol.slice_s))
            turns.reverse()

    def _is_enough(self, taken: Sequence[Sequence[Sequence[float]]]) -> bool:
        taken_s = sum(map(sum, itertools.chain.from_iterable(taken))) / 1000 / len(taken)
        runs = min(sum(map(len, slices)) for slices in taken)
        least_s = self._protocol.min_s * (1 if runs >= self._protocol.min_runs else SLOWEST)
        return runs > 0 and taken_s >= least_s

    def _prepare(self, series: Series, held: ExitStack, *, fresh: bool = False) -> None:
        try:
            series.handle = self._device.prepare(series.network, fresh=fresh)
        except (PreparationError, NetworkFormError) as error:
            # Where memory or time ended, it lies not in the network alone.
            self._give_up(series, error, is_out_of_memory(error) or isinstance(error, DeadlineError))
            return
        held.callback(self._device.release, series.handle)

    def _warm_up(self, group: Iterable[Series]) -> None:
        if self._protocol.warmup_s:
            for series in group:
                if series.error is None:
                    series.warmup_ms += self._sample(series, 1, self._protocol.warmup_s)

    def _sample(self, series: Series, runs: int, seconds: float) -> tuple[float, ...]:
        """Samples in ms; none at all when the network fails, which gives it up."""
        assert series.handle is not None
        try:
            return tuple(self._device.sample(series.handle, runs=runs, seconds=seconds))
        except PreparationError as error:
            self._give_up(series, error)
            return ()

    def _give_up(self, series: Series, error: HwnasError, is_transient: bool = True) -> None:
        series.error, series.is_transient = error, is_transient
        self.active.remove(series)
        self.failed.append(series)
