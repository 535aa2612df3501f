"""What every device answers. Public methods validate; a device class overrides the `*_impl` methods."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hwnas.devices.lock import DeviceLock
from hwnas.errors import DeadlineError, DeviceError, PreparationError
from hwnas.extras import missing_package
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint, Kind, Layer
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np

    from hwnas.devices.host.runtime import Arrays
    from hwnas.devices.simulator import Result


@dataclass(kw_only=True)
class Handle:
    """A network that a device holds ready to run.

    Attributes:
        state: whatever the device class needs to run it.
        placement: execution unit → operator type → number of nodes.
        metrics: figures that are known without timing, the unit in the name (`energy_mj`).
        prepared_s: how long the preparation took, which holds at least one run.
    """

    network_hash: str
    state: Any
    placement: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    prepared_s: float = 0.0


class BaseDevice(ABC):
    """What a device that samples and a device with a queue have in common; used as a context manager.

    While it is open a file lock keeps every other process away from the hardware named by `lock_name`.

    Attributes:
        kind: what its latencies are taken for.
        unconfirmed: so many networks may be measured without asking the user; None is any number.
        has_schedules: it can tell which layers of a network it fuses, by `explain`.
        gives_outputs: it tells what a network computes, by `Device.outputs`.
        needs_quiet_host: its latencies change with whatever else this machine does, so a batch measures on it
            while nothing else goes on.
        lock_wait_s: how long entering waits for another process that holds it.

    Raises:
        DeviceError: on entering, when the device cannot be used or another process holds it.
        DeviceLostError: from any method, when the device went away. It ends the session.
    """

    kind: Kind = "measured"
    unconfirmed: int | None = None
    has_schedules: bool = False
    gives_outputs: bool = False
    needs_quiet_host: bool = False
    lock_wait_s: float = 60.0

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        self._lock: DeviceLock | None = None
        self._is_open = False

    @property
    @abstractmethod
    def lock_name(self) -> str | None:
        """The hardware that this device occupies: two profiles of one phone share it; None for none."""

    def open_impl(self) -> None:  # noqa: B027 - there may be nothing to do
        """Reach the device and clean what a killed process left on it."""

    def close_impl(self) -> None:  # noqa: B027 - there may be nothing to do
        """Put the device back into the state that it was found in."""

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """The stable identity that latencies belong to; the same at every call of an open device."""

    def conditions(self) -> Conditions:
        """Clocks, temperatures, load at this moment; unknown ones are left out."""
        return Conditions()

    def explain(self, network: Network) -> Mapping[str, Result]:
        """The schedules of a network, `chosen` among them; none where the device has no schedules."""
        return {}

    def __enter__(self) -> Self:
        try:
            return self._opened()
        except ModuleNotFoundError as error:
            if missing := missing_package(error):
                raise DeviceError(*missing) from error
            raise

    def _opened(self) -> Self:
        name = self.lock_name
        if name is not None:
            lock = DeviceLock(name)
            lock.acquire(self.lock_wait_s)
            self._lock = lock
        self._is_open = True
        try:
            self.open_impl()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as last_to_first:  # each step is taken even when one before it fails
            last_to_first.callback(self._unlock)
            last_to_first.callback(self.close_impl)

    def _unlock(self) -> None:
        self._is_open = False
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _require_open(self) -> None:
        if not self._is_open:
            raise DeviceError(f"device {self.profile.name} is not open", "use it in a with statement")


def check_metrics(device: str, metrics: Mapping[str, float]) -> None:
    """Raise PreparationError for a metric that cannot be: NaN, infinite, negative, or an energy of zero."""
    for name, value in metrics.items():
        if not math.isfinite(value) or value < 0 or (name == "energy_mj" and value == 0):
            raise PreparationError(
                f"device {device} answered {value} as {name}",
                "try a single network: hwnas profile MODEL --device NAME",
            )


def require_outputs(device: BaseDevice) -> None:
    """Refuse a device that does not tell what a network computes. Raises DeviceError."""
    if device.gives_outputs:
        return
    name = device.profile.name
    why = f"hwnas has no outputs of {name}: it brings back times alone"
    if device.kind == "modelled":
        why = f"{name} computes nothing: its latencies are modelled"
    raise DeviceError(why, "take a runtime of this machine, such as --device cpu or openvino")


SLOWER = 10
"""Times that a run may take as long as the preparation, which holds one, before it is past its deadline."""


class Device(BaseDevice):
    """A device that loads a network and runs it: anything but a queue.

    Attributes:
        deadline_s: a preparation and the timing of operators may take this long, and a sampling this long
            beside its runs; None where nothing could end them. A device that sets it overrides
            `interrupt_impl`.
    """

    deadline_s: float | None = None

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        self._handles: dict[int, Handle] = {}

    def convert_impl(self, network: Network) -> None:
        """Make and keep the form of a network that `prepare_impl` loads: what no deadline is for."""

    @abstractmethod
    def prepare_impl(self, network: Network) -> Handle:
        """Load a network. Raises PreparationError or NetworkFormError where this one cannot be run."""

    def prepare_fresh_impl(self, network: Network) -> Handle:
        """The same, in a process of its own where the device has such."""
        return self.prepare_impl(network)

    @abstractmethod
    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        """Run at least `runs` times and at least `seconds` long; milliseconds of each run."""

    def release_impl(self, handle: Handle) -> None:
        """Free what the handle holds."""

    def outputs_impl(self, handle: Handle, runs: Sequence[Arrays]) -> list[list[np.ndarray[Any, Any]]]:
        """Run on other inputs than those that are timed; a device that sets `gives_outputs`."""
        raise NotImplementedError

    def layers_impl(self, network: Network) -> tuple[Layer, ...]:
        """The time of each operator; none where the device does not tell."""
        return ()

    def interrupt_impl(self) -> None:
        """End whatever `*_impl` does at the moment, which then raises; called by another thread."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as last_to_first:
            last_to_first.callback(super().__exit__, kind, value, trace)
            for handle in list(self._handles.values()):
                last_to_first.callback(self.release, handle)

    def stage(self, networks: Sequence[Network]) -> None:
        """Networks that are prepared next, in this order: the device may begin to copy them."""

    def prepare(self, network: Network, *, fresh: bool = False) -> Handle:
        """Load a network and keep it ready.

        Args:
            fresh: in a process of its own where the device has such. What a process does not change while it
                lives, such as where its memory lies, then differs from handle to handle.

        Raises:
            PreparationError, NetworkFormError: this device cannot run this network.
            PreparationError: it answered nonsense as a metric (NaN, infinite, negative, an energy of zero).
            DeadlineError: it took longer than the device's deadline.
        """
        self._require_open()
        self.convert_impl(network)
        start_s = time.monotonic()
        with self._within(f"loading {network.name} and running it once", self.deadline_s):
            handle = self.prepare_fresh_impl(network) if fresh else self.prepare_impl(network)
        handle.prepared_s = time.monotonic() - start_s
        self._handles[id(handle)] = handle
        try:
            check_metrics(self.profile.name, handle.metrics)
        except BaseException:
            self.release(handle)
            raise
        return handle

    def sample(self, handle: Handle, *, runs: int, seconds: float) -> list[float]:
        """Latencies in milliseconds of at least `runs` runs that take at least `seconds` together.

        Raises:
            PreparationError: the network failed while running, or the device answered nonsense
                (no sample, NaN, infinite, zero or negative).
            DeadlineError: it took longer than the device's deadline.
        """
        self._require_held(handle)
        limit_s = None
        if self.deadline_s is not None:
            limit_s = self.deadline_s + seconds + SLOWER * max(runs, 1) * handle.prepared_s
        with self._within(f"{runs} runs that took {handle.prepared_s:.3g} s each at first", limit_s):
            samples_ms = self.sample_impl(handle, runs, seconds)
        if len(samples_ms) == 0 or not all(math.isfinite(sample) and sample > 0 for sample in samples_ms):
            raise PreparationError(
                f"device {self.profile.name} answered {samples_ms[:5]} as latencies in ms",
                "try a single network: hwnas profile MODEL --device NAME",
            )
        return samples_ms

    def outputs(self, handle: Handle, runs: Sequence[Arrays]) -> list[list[np.ndarray[Any, Any]]]:
        """Run a prepared network, as it is timed, on other inputs, one run after the other.

        Args:
            runs: the inputs of each run, in the order of the network's graph.

        Returns:
            The outputs of each run, in the order of the graph.

        Raises:
            DeviceError: the device does not tell outputs.
            PreparationError: the network failed.
            DeadlineError: it took longer than the device's deadline.
        """
        self._require_held(handle)
        require_outputs(self)
        limit_s = (
            None if self.deadline_s is None else self.deadline_s + SLOWER * len(runs) * handle.prepared_s
        )
        with self._within(f"{len(runs)} runs that outputs are asked of", limit_s):
            return self.outputs_impl(handle, runs)

    def layers(self, network: Network) -> tuple[Layer, ...]:
        """The operators of a network with their times in order, from a run of their own: timing each one
        slows the network down. None where the device does not tell.

        Raises:
            PreparationError, NetworkFormError: this device cannot run this network.
            DeadlineError: it took longer than the device's deadline.
        """
        self._require_open()
        self.convert_impl(network)
        with self._within(f"timing the operators of {network.name}", self.deadline_s):
            return self.layers_impl(network)

    def release(self, handle: Handle) -> None:
        """Free a prepared network; a second release does nothing."""
        if self._handles.pop(id(handle), None) is not None:
            self.release_impl(handle)

    def _require_held(self, handle: Handle) -> None:
        self._require_open()
        if id(handle) not in self._handles:
            raise DeviceError("the handle was released or is another device's", "prepare the network first")

    @contextmanager
    def _within(self, what: str, limit_s: float | None) -> Iterator[None]:
        """Interrupt the device, and say so, where this takes longer than its limit."""
        if limit_s is None:
            yield
            return
        is_late = threading.Event()

        def interrupt() -> None:
            is_late.set()
            self.interrupt_impl()

        timer = threading.Timer(limit_s, interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        except PreparationError as error:
            if not is_late.is_set():
                raise
            raise DeadlineError(
                f"{what} took longer than {limit_s:.0f} s on {self.profile.name} and was ended",
                "if it ends at all, give it more time: deadline_s in the options of a profile of your own",
            ) from error
        finally:
            timer.cancel()
