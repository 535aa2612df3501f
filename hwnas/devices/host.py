"""This host's CPU, driven by ONNX Runtime."""

from __future__ import annotations

from hwnas.devices import host_session, machine
from hwnas.devices.base import Device, Handle
from hwnas.devices.host_process import HostProcess, ProcessDiedError
from hwnas.devices.host_session import PROVIDER, Loaded
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError, NoSpaceError, PreparationError, first_line
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint, Layer
from hwnas.network import Network
from hwnas.ranges import LARGEST_THREADS

PROFILED_RUNS = 30


class HostDevice(Device):
    """The CPU of the machine that hwnas runs on.

    Options of the profile:
        threads: threads within an operator; 0 takes every core that this process may use.
        batch: images a run; 0 takes those of the network's graph, `--batch` sets it.

    Raises:
        DeviceError: an unknown option, or a power mode that the host is not in.
    """

    needs_quiet_host = True

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        options = check_options(profile, "the host CPU", threads=0, batch=0)
        threads, self.batch = int(options["threads"]), int(options["batch"])
        if not 0 <= threads <= LARGEST_THREADS or self.batch < 0:
            raise DeviceError(
                f"profile {profile.name}: threads is {threads}, batch is {self.batch}; none may be below 0, "
                f"and threads not above {LARGEST_THREADS}",
                "correct them in the profile's options",
            )
        self.threads = threads or machine.usable_cores()
        self._throttle_count: int | None = None

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
        self._throttle_count = machine.throttle_count()

    def fingerprint(self) -> Fingerprint:
        import onnxruntime as ort

        details = [f"onnxruntime {ort.__version__} {PROVIDER}", f"{self.threads} threads"]
        details += [f"batch {self.batch}"] * (self.batch > 0)
        return Fingerprint(
            chip=machine.chip(),
            os_build=machine.os_build(),
            driver="none",
            runtime=", ".join(details),
            precision=self.profile.precision,
            power_mode=machine.governor() or self.profile.power_mode,
        )

    def conditions(self) -> Conditions:
        """`throttled` tells whether a core was throttled since the last look."""
        last, self._throttle_count = self._throttle_count, machine.throttle_count()
        known = last is not None and self._throttle_count is not None
        return Conditions(
            clocks_mhz=machine.clocks_mhz(),
            temperatures_c=machine.temperatures_c(),
            throttled=self._throttle_count != last if known else None,
            load=machine.load(),
            governor=machine.governor(),
        )

    def prepare_impl(self, network: Network) -> Handle:
        batched = self._batched(network)
        content = batched.onnx(self.profile.precision)
        try:
            loaded = self._load(content)
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise _refused(network.name, error) from error
        return Handle(
            network_hash=network.hash,
            state=loaded,
            placement=host_session.placement(loaded.session),
            metrics={"batch_size": float(batched.input_shape[0])},
        )

    def prepare_fresh_impl(self, network: Network) -> Handle:
        batched = self._batched(network)
        content = batched.onnx(self.profile.precision)
        try:
            process = HostProcess(content, self.threads)
        except RuntimeError as error:
            raise _refused(network.name, error) from error
        return Handle(
            network_hash=network.hash,
            state=process,
            placement=process.placement,
            metrics={"batch_size": float(batched.input_shape[0])},
        )

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        state: Loaded | HostProcess = handle.state
        try:
            if isinstance(state, Loaded):
                return host_session.sample(state, runs, seconds)
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
        try:
            return host_session.layers(content, self.threads, PROFILED_RUNS)
        except NoSpaceError:
            raise
        except Exception as error:
            raise _refused(network.name, error) from error

    def _load(self, content: bytes) -> Loaded:
        return host_session.load(content, host_session.session_options(self.threads))

    def _batched(self, network: Network) -> Network:
        return network.batched(self.batch) if self.batch else network


def _refused(network: str, error: Exception) -> PreparationError:
    fix = "replace the operator that it names, or export the network for an older opset"
    if isinstance(error, ProcessDiedError):
        fix = "free memory if it was killed for want of it (exit code -9), and give the same command again"
    return PreparationError(f"ONNX Runtime cannot run {network} on this CPU: {first_line(error)}", fix)
