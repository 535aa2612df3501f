"""What every runtime on this host's CPU has in common: options, fingerprint, conditions, processes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hwnas.devices.base import Device, Handle
from hwnas.devices.host import chip, machine
from hwnas.devices.host.process import HostProcess, ProcessDiedError
from hwnas.devices.host.runtime import Arrays
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError, PreparationError, first_line
from hwnas.extras import install
from hwnas.measurement import Conditions, CpuTimes, DeviceProfile, Fingerprint, Layer, Option, Precision
from hwnas.network import Network
from hwnas.processes import usable_memory_bytes
from hwnas.ranges import LARGEST_THREADS

if TYPE_CHECKING:
    import numpy as np

NO_MEMORY = ("allocate memory", "bad_alloc", "bad allocation", "could not create a primitive")
OPERATOR, ASKED = re.compile(r"running (\w+) node"), re.compile(r"buffer of size (\d+)")
DEADLINE_S = 60.0
PROFILED = 0.25
"""Of the deadline, that the timed runs of operators take at most."""
STOPPED = 0.01
"""Share of the time for which a CPU quota may stop a repeat that it has threads enough for."""


class CpuDevice(Device):
    """The CPU of the machine that hwnas runs on, by a runtime in processes of its own.

    Each network has a process, which is ended at its deadline and is refused more memory than there is.

    Options of every profile:
        threads: threads within an operator; 0 takes as many as affinity and CPU quota let run at once, or
            `OMP_NUM_THREADS` where that is less.
        batch: images a run; 0 takes those of the network's graph, `--batch` sets it.
        deadline_s: loading a network and running it once may take this long.

    Attributes:
        runtime: the module that loads networks, as `hwnas.devices.host.runtime` describes.
        runtime_name: for people.
        distributions: packages that the runtime needs; the first one's version is told.
        extra: of hwnas, that brings them.
        precisions: that it has here.
        own_options: of the profile, beside those above: name → default, or its choices.

    Raises:
        DeviceError: an unknown option, a precision that the runtime does not have, a power mode that the
            host is not in, or a runtime that is not installed.
    """

    needs_quiet_host = True
    gives_outputs = True
    runtime: str
    runtime_name: str
    distributions: tuple[str, ...] = ()
    extra = ""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    own_options: Mapping[str, Option | tuple[str, ...]] = MappingProxyType({})

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        common = {"threads": 0, "batch": 0, "deadline_s": DEADLINE_S}
        self.options = check_options(
            profile, f"{self.runtime_name} on this CPU", **common, **self.own_options
        )
        if profile.precision not in self.precisions:
            raise DeviceError(
                f"profile {profile.name}: {self.runtime_name} has no {profile.precision} here",
                f"take {' or '.join(self.precisions)}",
            )
        threads, self.batch = int(self.options["threads"]), int(self.options["batch"])
        if not 0 <= threads <= LARGEST_THREADS or self.batch < 0:
            raise DeviceError(
                f"profile {profile.name}: threads is {threads}, batch is {self.batch}; none may be below 0, "
                f"and threads not above {LARGEST_THREADS}",
                "correct them in the profile's options",
            )
        self.deadline_s = float(self.options["deadline_s"])
        if not 0 < self.deadline_s <= threading.TIMEOUT_MAX / 2:
            raise DeviceError(
                f"profile {profile.name}: deadline_s is {self.deadline_s:g}", "give seconds, such as 600"
            )
        self.threads = threads or machine.usable_cores()
        self._interrupt: Callable[[], None] = lambda: None
        self._throttle_count: int | None = None
        self._cpu: CpuTimes | None = None

    @property
    def lock_name(self) -> str:
        return "host-cpu"

    def runtime_details(self) -> list[str]:
        """What the runtime is, for the fingerprint: its version first."""
        return [f"{self.distributions[0]} {version(self.distributions[0])}"]

    def settings(self) -> Mapping[str, Option]:
        """What the runtime's functions are given beside the threads."""
        return {}

    def content(self, network: Network) -> bytes:
        """The ONNX model that the runtime is given."""
        return network.onnx(self.profile.precision)

    def open_impl(self) -> None:
        for name in self.distributions:
            try:
                version(name)
            except PackageNotFoundError:
                raise DeviceError(
                    f"profile {self.profile.name} needs the package {name}, which is not installed",
                    install(self.extra),
                ) from None
        wanted, found = self.profile.power_mode, machine.governor()
        if wanted != "default" and found is not None and wanted != found:
            raise DeviceError(
                f"profile {self.profile.name} asks for power mode {wanted}, the CPU is in {found}",
                f"sudo cpupower frequency-set --governor {wanted}",
            )
        self._throttle_count, self._cpu = machine.throttle_count(), machine.cpu_times()

    def fingerprint(self) -> Fingerprint:
        details = [*self.runtime_details(), f"{self.threads} threads"]
        details += machine.limits()
        details += [f"batch {self.batch}"] * (self.batch > 0)
        return Fingerprint(
            chip=chip.chip(),
            os_build=machine.os_build(),
            driver="none",
            runtime=", ".join(details),
            precision=self.profile.precision,
            power_mode=machine.governor() or self.profile.power_mode,
        )

    def conditions(self) -> Conditions:
        """`throttled` tells whether a core was, or this process by its CPU quota, since the last look."""
        last, self._throttle_count = self._throttle_count, machine.throttle_count()
        last_cpu, self._cpu = self._cpu, machine.cpu_times()
        hot = self._throttle_count != last if last is not None and self._throttle_count is not None else None
        stopped = last_cpu is not None and self._cpu is not None and self._was_stopped(last_cpu, self._cpu)
        return Conditions(
            clocks_mhz=machine.clocks_mhz(),
            temperatures_c=machine.temperatures_c(),
            throttled=stopped or hot,
            load=machine.load(),
            limits=(f"CPU quota {self._cpu.quota_cpus:.3g}",) if stopped and self._cpu else (),
            governor=machine.governor(),
            cpu=self._cpu,
        )

    def interrupt_impl(self) -> None:
        self._interrupt()

    def convert_impl(self, network: Network) -> None:
        self._interrupt = lambda: None
        self.content(self._batched(network))

    def _was_stopped(self, before: CpuTimes, after: CpuTimes) -> bool:
        """Whether the CPU quota stopped this process though it has threads enough for what it may use.

        With a quota below its threads that is how it runs, and nothing comes of measuring again.
        """
        enough = after.quota_cpus is not None and self.threads <= after.quota_cpus
        stopped_s = after.throttled_s - before.throttled_s
        return enough and stopped_s > STOPPED * (after.clock_s - before.clock_s)

    def prepare_impl(self, network: Network) -> Handle:
        batched = self._batched(network)
        content = self.content(batched)
        process = HostProcess(self.runtime)
        self._interrupt = process.kill
        try:
            process.load(content, self.threads, **self.settings())
        except BaseException as error:
            process.end()
            if isinstance(error, RuntimeError):
                raise self._refused(network.name, error) from error
            raise
        return Handle(
            network_hash=network.hash,
            state=process,
            placement=process.placement,
            metrics={"batch_size": float(batched.batch_size)},
        )

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        process: HostProcess = handle.state
        self._interrupt = process.kill
        try:
            samples_ms = process.sample(runs, seconds)
        except RuntimeError as error:
            raise self._refused(handle.network_hash[:12], error) from error
        if process.peak_memory_bytes:
            handle.metrics = {**handle.metrics, "peak_memory_bytes": process.peak_memory_bytes}
        return samples_ms

    def outputs_impl(self, handle: Handle, runs: Sequence[Arrays]) -> list[list[np.ndarray[Any, Any]]]:
        process: HostProcess = handle.state
        self._interrupt = process.kill
        try:
            return [process.outputs(inputs) for inputs in runs]
        except RuntimeError as error:
            raise self._refused(handle.network_hash[:12], error) from error

    def release_impl(self, handle: Handle) -> None:
        handle.state.end()
        handle.state = None

    def layers_impl(self, network: Network) -> tuple[Layer, ...]:
        content = self.content(self._batched(network))
        assert self.deadline_s is not None
        process = HostProcess(self.runtime)
        self._interrupt = process.kill
        try:
            return process.layers(content, self.threads, PROFILED * self.deadline_s, **self.settings())
        except RuntimeError as error:
            raise self._refused(network.name, error) from error
        finally:
            process.end()

    def _batched(self, network: Network) -> Network:
        return network.batched(self.batch) if self.batch else network

    def _refused(self, network: str, error: Exception) -> PreparationError:
        reason = first_line(error)
        fix = "replace the operator that it names, or export the network for an older opset"
        if isinstance(error, ProcessDiedError):
            fix = (
                "free memory if it was killed for want of it (exit code -9), and give the same command again"
            )
        elif any(text in reason for text in NO_MEMORY):
            where, asked = OPERATOR.search(reason), ASKED.search(reason)
            reason = (
                f"{where[1] if where else 'it'} asks for "
                f"{f'{int(asked[1]) / 2**30:,.1f} GiB of' if asked else 'more'} memory, "
                f"and {usable_memory_bytes() / 2**30:,.1f} GiB are free"
            )
            fix = "free memory, or give smaller sizes: --input-shape, --batch"
        elif "invalid model" in reason.lower():
            fix = "the graph itself is wrong: mend what it names, or export the network again"
        return PreparationError(f"{self.runtime_name} cannot run {network} on this CPU: {reason}", fix)
