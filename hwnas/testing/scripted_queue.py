"""A device with a queue that does as it is told, faults included."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hwnas.devices.queue import QueueBusyError, QueueDevice, QueueJob, QueueResult
from hwnas.errors import PreparationError
from hwnas.measurement import DeviceProfile, Fingerprint, Layer
from hwnas.network import Network
from hwnas.testing.scripted import DEFAULT_MS, PROFILE, scripted_fingerprint


@dataclass(eq=False)
class ScriptedHub:
    """The far end of the queue: it lives on when the device that talks to it is gone.

    Args:
        latencies_ms: network name → the latency of each successive run, the last one for all further runs.
        looks: so many looks at a job find it unfinished.
        refused: names of networks whose job fails.
        busy: numbers of calls, from 1, that are answered by a rate limit; the call has no effect.
        unanswered: numbers of calls that have their effect, but whose answer is lost.

    Attributes:
        calls: `submit a`, `collect a`, `find a`, in order.
        most_in_flight: unfinished jobs at once.
    """

    latencies_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    looks: int = 0
    refused: Collection[str] = ()
    busy: Collection[int] = ()
    unanswered: Collection[int] = ()
    calls: list[str] = field(default_factory=list)
    most_in_flight: int = 0
    _names: dict[str, str] = field(default_factory=dict)
    _looks_left: dict[str, int] = field(default_factory=dict)
    _runs: dict[str, int] = field(default_factory=dict)

    def call(self, verb: str, job: QueueJob, network: str | None = None) -> QueueJob | QueueResult:
        """Do what a device asks for, or misbehave as the script says."""
        network = network or self._names.get(job.name, "unknown")
        self.calls.append(f"{verb} {network}")
        if len(self.calls) in self.busy:
            raise QueueBusyError("the script limits the rate", "wait")
        answer = getattr(self, f"_{verb}")(job, network)
        if len(self.calls) in self.unanswered:
            raise QueueBusyError("the script swallows the answer", "wait")
        assert isinstance(answer, QueueJob | QueueResult)
        return answer

    def _submit(self, job: QueueJob, network: str) -> QueueJob:
        self._names[job.name] = network
        self._looks_left[job.name] = self.looks
        self.most_in_flight = max(self.most_in_flight, len(self._looks_left))
        return self._known(job)

    def _collect(self, job: QueueJob, network: str) -> QueueJob | QueueResult:
        if self._looks_left.get(job.name, 0) > 0:
            self._looks_left[job.name] -= 1
            return job
        self._looks_left.pop(job.name, None)
        if network in self.refused:
            raise PreparationError(f"the script refuses {network}", f"see {job.url}")
        script = self.latencies_ms.get(network, [DEFAULT_MS])
        run = self._runs.get(network, 0)
        self._runs[network] = run + 1
        layers = (Layer(name="conv1", operator="Conv", unit="script", time_ms=1.0),)
        return QueueResult(
            samples_ms=(script[min(run, len(script) - 1)],) * 3,
            metrics={"first_load_ms": 100.0 + run},
            placement={"script": {"Conv": 1}},
            layers=layers,
        )

    def _find(self, job: QueueJob, _network: str) -> QueueJob:
        return self._known(job) if job.name in self._names else replace(job, job_id="", url="")

    def _known(self, job: QueueJob) -> QueueJob:
        return replace(job, job_id=f"j-{job.name}", url=f"script://{job.name}", prepared=job.network_hash)


class ScriptedQueueDevice(QueueDevice):
    """Answers by the script of a `ScriptedHub`.

    Args:
        hub: shared by the devices that stand for the same queue.
    """

    poll_s = 1.0

    def __init__(self, hub: ScriptedHub, profile: DeviceProfile = PROFILE, *, max_in_flight: int = 5) -> None:
        super().__init__(profile)
        self.hub = hub
        self.max_in_flight = max_in_flight

    @property
    def lock_name(self) -> str:
        return f"scripted queue {self.profile.name}"

    def fingerprint(self) -> Fingerprint:
        return scripted_fingerprint(self.profile)

    def submit_impl(self, job: QueueJob, network: Network) -> QueueJob:
        answer = self.hub.call("submit", job, network.name)
        assert isinstance(answer, QueueJob)
        return answer

    def collect_impl(self, job: QueueJob) -> QueueJob | QueueResult:
        return self.hub.call("collect", job)

    def find_impl(self, job: QueueJob) -> QueueJob:
        answer = self.hub.call("find", job)
        assert isinstance(answer, QueueJob)
        return answer
