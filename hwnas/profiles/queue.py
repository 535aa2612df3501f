"""A session's work at a device with a queue: a few jobs in flight, each remembered before anybody waits.

Jobs of a queue run on different pieces of the same hardware at different times, so an anchor beside each of
them would cancel nothing. The anchor is measured once and is the unit of all ratios. Each repeat is a job.
"""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hwnas.devices.queue import QueueBusyError, QueueDevice, QueueJob, QueueResult
from hwnas.errors import DeviceLostError, NetworkFormError, PreparationError
from hwnas.measurement import (
    Conditions,
    Fingerprint,
    Measurement,
    MeasurementFailure,
    MeasurementResult,
    Protocol,
)
from hwnas.network import Network
from hwnas.profiles.job_store import JobStore
from hwnas.progress import Progress

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
GIVE_UP_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """How far a queue is with what it was given.

    Attributes:
        done: networks that have their result.
        networks: all that were asked for.
        jobs: in the queue now.
        waited_s: since the first one was asked for.
        trouble: why the queue does not answer at the moment; empty where it does.
    """

    done: int
    networks: int
    jobs: int
    waited_s: float
    trouble: str = ""

    def describe(self) -> str:
        """A short remark for people; `done` and `networks` are left to whoever draws a bar of them."""
        text = f"jobs in the queue: {self.jobs}, waited {timedelta(seconds=round(self.waited_s))}"
        return f"{text}; {self.trouble}" if self.trouble else text


class Patience:
    """Waits twice as long after each refusal, and gives up when nothing else came for an hour."""

    def __init__(self) -> None:
        self.ready_s = 0.0
        self.trouble = ""
        self._pause_s = 0.0
        self._refused_since_s: float | None = None

    def refused(self, now_s: float, error: QueueBusyError) -> None:
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        if now_s - self._refused_since_s > GIVE_UP_S:
            raise DeviceLostError(
                f"{error.cause}; so it goes for {GIVE_UP_S / 60:.0f} minutes",
                "give the same command again later: jobs that are in the queue are picked up then",
            ) from error
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self.ready_s = now_s + self._pause_s
        self.trouble = f"{error.cause}; trying again after {self._pause_s:.0f} s"

    def worked(self) -> None:
        self._pause_s, self._refused_since_s, self.trouble = 0.0, None, ""


@dataclass(kw_only=True, eq=False)
class _Series:
    """The jobs of one network, one after the other.

    Attributes:
        doubtful: the queue may know more of the job than we do: its answer never arrived.
    """

    network: Network
    job: QueueJob
    results: list[QueueResult]
    doubtful: bool

    @property
    def medians_ms(self) -> list[float]:
        return [statistics.median(result.samples_ms) for result in self.results]


class QueueRun:
    """Measures networks by jobs; what an earlier process left in the queue is picked up.

    Args:
        anchor: hash of the network whose latency is the unit, and that latency in ms where it is known
            already; None without an anchor.
        keep: called with each result as soon as it is final.
        sleep: pauses for some seconds.
        watch: is told how far the queue is, whenever that changes and at every pause.
    """

    def __init__(
        self,
        device: QueueDevice,
        protocol: Protocol,
        fingerprint: Fingerprint,
        jobs: JobStore,
        anchor: tuple[str, float | None] | None,
        keep: Callable[[MeasurementResult], None],
        sleep: Callable[[float], None],
        watch: Callable[[QueueStatus], None],
    ) -> None:
        self._device = device
        self._protocol = protocol
        self._fingerprint = fingerprint
        self._jobs = jobs
        self._anchor_hash: str | None = None
        self._anchor_ms: float | None = None
        if anchor is not None:
            self._anchor_hash, self._anchor_ms = anchor
        self._keep = keep
        self._sleep = sleep
        self._watch = watch
        self._slept_s = 0.0
        self._submitting, self._collecting = Patience(), Patience()
        self._running: list[_Series] = []
        self._held: list[_Series] = []
        self._before = device.conditions()

    def measure(self, networks: dict[str, Network]) -> None:
        """Measure the networks, given by hash; each is taken out, and so freed, when its turn comes.

        Raises:
            DeviceLostError: the queue is gone; its jobs and what they found out so far are on disk.
            PreparationError: the anchor failed.
        """
        total = len(networks)
        while networks or self._running:
            while networks and len(self._running) < self._device.max_in_flight:
                self._running.append(self._open(networks.pop(next(iter(networks)))))
            moved = [self._step(series) for series in list(self._running)]
            self._watch(self._status(total, len(networks)))
            if self._running and not any(moved):
                self._sleep(self._device.poll_s)
                self._slept_s += self._device.poll_s

    def _status(self, networks: int, waiting: int) -> QueueStatus:
        return QueueStatus(
            done=networks - waiting - len(self._running),
            networks=networks,
            jobs=sum(bool(series.job.job_id) for series in self._running),
            waited_s=self._slept_s,
            trouble=self._collecting.trouble or self._submitting.trouble,
        )

    def _open(self, network: Network) -> _Series:
        known = self._jobs.open_jobs(network.hash)
        results = [result for _, result in known if result is not None]
        if known and known[-1][1] is None:
            return _Series(network=network, job=known[-1][0], results=results, doubtful=True)
        if known and self._protocol.settled([statistics.median(r.samples_ms) for r in results]):
            return _Series(network=network, job=known[-1][0], results=results, doubtful=False)
        prepared = known[-1][0].prepared if known else ""
        return _Series(network=network, job=self._new_job(network, prepared), results=results, doubtful=False)

    def _new_job(self, network: Network, prepared: str) -> QueueJob:
        job = QueueJob(
            name=f"hwnas-{network.hash[:12]}-{secrets.token_hex(4)}",
            network_hash=network.hash,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            prepared=prepared,
        )
        self._jobs.save(job)
        return job

    def _step(self, series: _Series) -> bool:
        """Take a series one step on; whether anything happened."""
        if self._protocol.settled(series.medians_ms):
            self._finish(series)
            return True
        patience = self._collecting if series.job.job_id or series.doubtful else self._submitting
        if self._slept_s < patience.ready_s:
            return False
        try:
            moved = self._ask(series)
        except QueueBusyError as error:
            series.doubtful = True
            patience.refused(self._slept_s, error)
            return False
        except (PreparationError, NetworkFormError) as error:
            self._fail(series, error)
            return True
        patience.worked()
        return moved

    def _ask(self, series: _Series) -> bool:
        if series.doubtful:
            answer: QueueJob | QueueResult = self._device.find(series.job)
            series.doubtful = False
        elif series.job.job_id:
            answer = self._device.collect(series.job)
        else:
            answer = self._device.submit(series.job, series.network)
        if isinstance(answer, QueueResult):
            self._jobs.finish(series.job, answer)
            series.results.append(answer)
            if not self._protocol.settled(series.medians_ms):
                series.job = self._new_job(series.network, series.job.prepared)
            return True
        if answer == series.job:
            # A job that is still without an id can be submitted at once; any other must be waited for.
            return not answer.job_id
        self._jobs.save(answer)
        series.job = answer
        # The id was news; a look at the job itself would be too early.
        return not answer.job_id

    def _finish(self, series: _Series) -> None:
        self._running.remove(series)
        network_hash = series.job.network_hash
        if network_hash == self._anchor_hash:
            self._anchor_ms = statistics.median(series.medians_ms)
        elif self._anchor_hash is not None and self._anchor_ms is None:
            self._held.append(series)  # its jobs are on disk; only the unit of its ratio is missing
            return
        for ready in [series, *self._held]:
            self._keep(self._measurement(ready))
        self._held = []

    def _fail(self, series: _Series, error: PreparationError | NetworkFormError) -> None:
        network_hash = series.job.network_hash
        self._running.remove(series)
        if network_hash == self._anchor_hash:
            self._jobs.forget(network_hash)
            raise error
        # What was refused before any job ran may be the account's fault, and cost nothing: it is tried again.
        transient = isinstance(error, PreparationError) and not series.job.job_id
        reason = f"{error.cause} ({error.fix})"
        self._keep(MeasurementFailure(network_hash=network_hash, reason=reason, transient=transient))

    def _measurement(self, series: _Series) -> Measurement:
        last = series.results[-1]
        conditions: tuple[Conditions, Conditions] = (self._before, self._device.conditions())
        return Measurement(
            network_hash=series.job.network_hash,
            kind=self._device.kind,
            repeats_ms=tuple(result.samples_ms for result in series.results),
            warmup_ms=(),
            anchor_ms=() if self._anchor_ms is None else (self._anchor_ms,) * len(series.results),
            metrics={
                key: statistics.median(result.metrics[key] for result in series.results)
                for key in last.metrics
                if all(key in result.metrics for result in series.results)
            },
            placement=last.placement,
            protocol=self._protocol,
            fingerprint=self._fingerprint,
            conditions=conditions,
            started_at=series.job.created_at,
            layers=last.layers,
            network_name=series.network.name,
            device_name=self._device.profile.name,
        )


def watch_queue(progress: Progress) -> Callable[[QueueStatus], None]:
    """Show how far a device with a queue is as a step of its own."""
    return lambda status: progress.advance("jobs", status.done, status.networks, status.describe())
