"""Devices with a queue, such as a cloud: networks are submitted as jobs and results are collected later."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwnas.devices.base import BaseDevice, check_metrics, require_outputs
from hwnas.errors import DeviceError, PreparationError
from hwnas.measurement import STRICT, Layer
from hwnas.network import Network
from hwnas.ranges import Count, Figure, Milliseconds

if TYPE_CHECKING:
    import numpy as np

    from hwnas.devices.host.runtime import Arrays


class QueueBusyError(DeviceError):
    """The queue does not answer as it should at the moment: a rate limit, an outage. Later it may."""


@dataclass(frozen=True, kw_only=True)
class QueueJob:
    """One sampling of one network in a queue: plain data with which any later process can go on.

    Attributes:
        name: unique, chosen before anything is submitted, so that a job whose id never arrived can be found.
        prepared: what the queue calls the network once it is ready to run; a later job of the same network
            starts from there.
        job_id: of the step under way; empty before the first one.
        url: where a person can look at it.
        created_at: UTC, ISO 8601.
        inputs: what the queue calls the inputs for which the network's outputs are wanted; empty where its
            latency is.
    """

    __pydantic_config__ = STRICT
    name: str
    network_hash: str
    created_at: str
    prepared: str = ""
    job_id: str = ""
    url: str = ""
    inputs: str = ""


@dataclass(frozen=True, kw_only=True)
class QueueResult:
    """What one job found out; see `Measurement` for the fields."""

    __pydantic_config__ = STRICT
    samples_ms: tuple[Milliseconds, ...]
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    placement: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()


class QueueDevice(BaseDevice):
    """A device that is not at hand: each sampling is a job that costs somebody time or money.

    Public methods validate; a device class overrides the `*_impl` methods. None of them waits for a job.

    Attributes:
        max_in_flight: jobs that may be in the queue at once.
        poll_s: seconds between two looks at a job.
        preparation_jobs: that the queue runs to make a network ready before its first repeat.

    Raises:
        QueueBusyError: from any method; the same call may be repeated later.
    """

    unconfirmed = 50
    max_in_flight: int = 5
    poll_s: float = 10.0
    preparation_jobs: int = 0

    @abstractmethod
    def submit_impl(self, job: QueueJob, network: Network) -> QueueJob:
        """Start the job under its name, from `job.prepared` where that is set; `job` with its id and url."""

    @abstractmethod
    def collect_impl(self, job: QueueJob) -> QueueJob | QueueResult:
        """Look at a job: its result, or the job as it is now, which may have gone on to another step."""

    def bring_impl(self, network: Network, runs: Sequence[Arrays]) -> str:
        """Store inputs at the queue, and tell what it calls them; a device that sets `gives_outputs`."""
        raise NotImplementedError

    def outputs_impl(self, job: QueueJob) -> QueueJob | list[list[np.ndarray[Any, Any]]]:
        """The same as `collect_impl` for a job with inputs: the outputs of each run."""
        raise NotImplementedError

    @abstractmethod
    def find_impl(self, job: QueueJob) -> QueueJob:
        """The job as the queue knows it, by id or by name; without an id where it does not know it."""

    def submit(self, job: QueueJob, network: Network) -> QueueJob:
        """Put a job into the queue.

        Raises:
            PreparationError, NetworkFormError: the queue refuses this network.
        """
        self._require_open()
        return self.submit_impl(job, network)

    def collect(self, job: QueueJob) -> QueueJob | QueueResult:
        """Look at a job without waiting.

        Returns:
            The result; or the job, to be looked at again.

        Raises:
            PreparationError: the job failed, or its latencies or metrics are nonsense (NaN, zero, negative).
        """
        self._require_open()
        self._require_submitted(job)
        answer = self.collect_impl(job)
        if isinstance(answer, QueueResult):
            samples_ms = answer.samples_ms
            if not samples_ms or not all(math.isfinite(sample) and sample > 0 for sample in samples_ms):
                raise PreparationError(
                    f"device {self.profile.name} answered {list(samples_ms[:5])} as latencies in ms",
                    f"see {job.url}",
                )
            check_metrics(self.profile.name, answer.metrics)
        return answer

    def bring(self, network: Network, runs: Sequence[Arrays]) -> str:
        """Store inputs at the queue, and return what it calls them: `QueueJob.inputs`.

        Args:
            runs: the inputs of each run, in the order of the network's graph.

        Raises:
            DeviceError: the device does not tell outputs.
            PreparationError: the queue refuses them.
        """
        self._require_open()
        require_outputs(self)
        return self.bring_impl(network, runs)

    def collect_outputs(self, job: QueueJob) -> QueueJob | list[list[np.ndarray[Any, Any]]]:
        """Look at a job with inputs without waiting.

        Returns:
            The outputs of each run, in the order of the graph; or the job, to be looked at again.

        Raises:
            DeviceError: the device does not tell outputs, or the job is not in the queue.
            PreparationError: the job failed.
        """
        self._require_open()
        require_outputs(self)
        self._require_submitted(job)
        return self.outputs_impl(job)

    def find(self, job: QueueJob) -> QueueJob:
        """Look a job up, after a process was killed or a submission was not answered.

        Returns:
            The job; without an id where the queue does not know it, so that it must be submitted (again).
        """
        self._require_open()
        return self.find_impl(job)

    def _require_submitted(self, job: QueueJob) -> None:
        if not job.job_id:
            raise DeviceError(f"job {job.name} is not in the queue", "submit it first")
