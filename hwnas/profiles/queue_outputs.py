"""What a network computes on a device with a queue: jobs that are waited for, one after the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.devices.queue import QueueBusyError, QueueDevice, QueueJob
from hwnas.network import Network
from hwnas.profiles.queue import Patience

if TYPE_CHECKING:
    import numpy as np

    from hwnas.devices.host.runtime import Arrays

    Runs = list[list[np.ndarray[Any, Any]]]


Answer = TypeVar("Answer")


class QueueOutputs:
    """Asks an open queue for the outputs of one network. It is made ready there once.

    Nothing is kept on disk: what is stopped begins anew, and its job runs to no avail.

    Args:
        sleep: pauses for some seconds.
    """

    def __init__(
        self, device: QueueDevice, network: Network, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._device = device
        self._network = network
        self._sleep = sleep
        self._slept_s = 0.0
        self._patience = Patience()
        self._prepared = ""

    def __call__(self, runs: Sequence[Arrays]) -> Runs:
        """Return the outputs of each run.

        Args:
            runs: the inputs of each.

        Raises:
            PreparationError, NetworkFormError: the queue refuses the network, or its job failed.
            DeviceLostError: the queue does not answer for too long.
        """
        inputs = None
        while inputs is None:
            inputs = self._tried(lambda: self._device.bring(self._network, runs))
        job = QueueJob(
            name=f"hwnas-{self._network.hash[:12]}-{secrets.token_hex(4)}",
            network_hash=self._network.hash,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            prepared=self._prepared,
            inputs=inputs,
        )
        is_doubtful = False  # the queue may know more of the job than we do: its answer never arrived
        while True:
            answer = self._tried(partial(self._asked, job, look=is_doubtful))
            was_looked_up, is_doubtful = is_doubtful, answer is None
            if answer is None:
                continue
            if not was_looked_up:  # a queue that finds a job and never tells its outputs is given up
                self._patience.worked()
            if not isinstance(answer, QueueJob):
                return answer
            if answer == job and job.job_id:
                self._pause(self._device.poll_s)
            job, self._prepared = answer, answer.prepared

    def _asked(self, job: QueueJob, *, look: bool) -> QueueJob | Runs:
        if look:
            return self._device.find(job)
        return self._device.collect_outputs(job) if job.job_id else self._device.submit(job, self._network)

    def _tried(self, ask: Callable[[], Answer]) -> Answer | None:
        """What the queue answers; None, after a pause, where it is busy."""
        try:
            return ask()
        except QueueBusyError as error:
            self._patience.refused(self._slept_s, error)
            self._pause(self._patience.ready_s - self._slept_s)
            return None

    def _pause(self, seconds: float) -> None:
        self._sleep(seconds)
        self._slept_s += seconds
