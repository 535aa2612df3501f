"""This host's CPU, driven by ONNX Runtime."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from hwnas.devices.base import Device, Handle
from hwnas.devices.host import chip, machine, ort_session
from hwnas.devices.host.ort_session import PROVIDER, Loaded, Stop
from hwnas.devices.host.process import HostProcess, ProcessDiedError
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError, PreparationError, first_line
from hwnas.measurement import Conditions, CpuTimes, DeviceProfile, Fingerprint, Layer
from hwnas.network import Network
from hwnas.processes import usable_memory_bytes
from hwnas.ranges import LARGEST_THREADS

NO_MEMORY = ("allocate memory", "bad_alloc", "bad allocation", "could not create a primitive")
OPERATOR, ASKED = re.compile(r"running (\w+) node"), re.compile(r"buffer of size (\d+)")
DEADLINE_S = 60.0
PROFILED = 0.25
"""Of the deadline, that the timed runs of operators take at most."""
STOPPED = 0.01
"""Share of the time for which a CPU quota may stop a repeat that it has threads enough for."""


class HostDevice(Device):
    """The CPU of the machine that hwnas runs on.

    Options of the profile:
        threads: threads within an operator; 0 takes as many as affinity and CPU quota let run at once, or
            `OMP_NUM_THREADS` where that is less.
        batch: images a run; 0 takes those of the network's graph, `--batch` sets it.
        deadline_s: loading a network and running it once may take this long.

    A graph that somebody else made is run in a process of its own, which is ended at its deadline and is
    refused more memory than there is. A network that was made from a torch module is run here: its first run
    is ended between two operators.

    Raises:
        DeviceError: an unknown option, or a power mode that the host is not in.
    """

    needs_quiet_host = True

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        options = check_options(profile, "the host CPU", threads=0, batch=0, deadline_s=DEADLINE_S)
        threads, self.batch = int(options["threads"]), int(options["batch"])
        if not 0 <= threads <= LARGEST_THREADS or self.batch < 0:
            raise DeviceError(
                f"profile {profile.name}: threads is {threads}, batch is {self.batch}; none may be below 0, "
                f"and threads not above {LARGEST_THREADS}",
                "correct them in the profile's options",
            )
        self.deadline_s = float(options["deadline_s"])
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

    def open_impl(self) -> None:
        wanted, found = self.profile.power_mode, machine.governor()
        if wanted != "default" and found is not None and wanted != found:
            raise DeviceError(
                f"profile {self.profile.name} asks for power mode {wanted}, the CPU is in {found}",
                f"sudo cpupower frequency-set --governor {wanted}",
            )
        self._throttle_count, self._cpu = machine.throttle_count(), machine.cpu_times()

    def fingerprint(self) -> Fingerprint:
        import onnxruntime as ort

        details = [f"onnxruntime {ort.__version__} {PROVIDER}", f"{self.threads} threads"]
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
        self._batched(network).onnx(self.profile.precision)

    def _was_stopped(self, before: CpuTimes, after: CpuTimes) -> bool:
        """Whether the CPU quota stopped this process though it has threads enough for what it may use.

        With a quota below its threads that is how it runs, and nothing comes of measuring again.
        """
        enough = after.quota_cpus is not None and self.threads <= after.quota_cpus
        stopped_s = after.throttled_s - before.throttled_s
        return enough and stopped_s > STOPPED * (after.clock_s - before.clock_s)

    def prepare_impl(self, network: Network) -> Handle:
        return self._prepare_apart(network) if network.is_foreign else self._prepare_here(network)

    def prepare_fresh_impl(self, network: Network) -> Handle:
        return self._prepare_apart(network)

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        state: Loaded | HostProcess = handle.state
        try:
            if isinstance(state, Loaded):
                self._interrupt = lambda: None  # it has ended once, and its input is the same
                return ort_session.sample(state, runs, seconds)
            self._interrupt = state.kill
            samples_ms = state.sample(runs, seconds)
        except Exception as error:
            raise _refused(handle.network_hash[:12], error) from error
        if state.peak_memory_bytes:
            handle.metrics = {**handle.metrics, "peak_memory_bytes": state.peak_memory_bytes}
        return samples_ms

    def release_impl(self, handle: Handle) -> None:
        if isinstance(handle.state, HostProcess):
            handle.state.end()
        handle.state = None  # the session and its thread pool go with the last reference

    def layers_impl(self, network: Network) -> tuple[Layer, ...]:
        content = self._batched(network).onnx(self.profile.precision)
        assert self.deadline_s is not None
        process = HostProcess()
        self._interrupt = process.kill
        try:
            return process.layers(content, self.threads, PROFILED * self.deadline_s)
        except RuntimeError as error:
            raise _refused(network.name, error) from error
        finally:
            process.end()

    def _prepare_here(self, network: Network) -> Handle:
        batched = self._batched(network)
        content = batched.onnx(self.profile.precision)
        stop = Stop()
        self._interrupt = stop
        try:
            loaded = self._load(content, stop)
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise _refused(network.name, error) from error
        return Handle(
            network_hash=network.hash,
            state=loaded,
            placement=ort_session.placement(loaded.session),
            metrics={"batch_size": float(batched.batch_size)},
        )

    def _prepare_apart(self, network: Network) -> Handle:
        batched = self._batched(network)
        content = batched.onnx(self.profile.precision)
        process = HostProcess()
        self._interrupt = process.kill
        try:
            process.load(content, self.threads)
        except BaseException as error:
            process.end()
            if isinstance(error, RuntimeError):
                raise _refused(network.name, error) from error
            raise
        return Handle(
            network_hash=network.hash,
            state=process,
            placement=process.placement,
            metrics={"batch_size": float(batched.batch_size)},
        )

    def _load(self, content: bytes, stop: Stop) -> Loaded:
        return ort_session.load(content, ort_session.session_options(self.threads), stop)

    def _batched(self, network: Network) -> Network:
        return network.batched(self.batch) if self.batch else network


def _refused(network: str, error: Exception) -> PreparationError:
    reason = first_line(error)
    fix = "replace the operator that it names, or export the network for an older opset"
    if isinstance(error, ProcessDiedError):
        fix = "free memory if it was killed for want of it (exit code -9), and give the same command again"
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
    return PreparationError(f"ONNX Runtime cannot run {network} on this CPU: {reason}", fix)
