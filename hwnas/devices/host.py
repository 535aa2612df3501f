"""This host's CPU, driven by ONNX Runtime."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwnas.devices import machine
from hwnas.devices.base import Device, Handle
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError, PreparationError, first_line
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class _Loaded:
    session: ort.InferenceSession
    binding: ort.IOBinding


class HostDevice(Device):
    """The CPU of the machine that hwnas runs on.

    Options of the profile:
        threads: threads within an operator; 0 takes every core that this process may use.
        batch: images a run; 0 takes those of the network's graph, `--batch` sets it.

    Raises:
        DeviceError: an unknown option, or a power mode that the host is not in.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        options = check_options(profile, "the host CPU", threads=0, batch=0)
        threads, self.batch = int(options["threads"]), int(options["batch"])
        if threads < 0 or self.batch < 0:
            raise DeviceError(
                f"profile {profile.name}: threads is {threads}, batch is {self.batch}; none may be below 0",
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
        batched = network.batched(self.batch) if self.batch else network
        content = batched.onnx(self.profile.precision)
        try:
            session = self._session(content)
            binding = session.io_binding()
            for value in session.get_inputs():
                binding.bind_cpu_input(value.name, _input_array(value))
            for value in session.get_outputs():
                binding.bind_output(value.name, "cpu")
            session.run_with_iobinding(binding)  # allocates, and fails now where it would fail later
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise _refused(network.name, error) from error
        return Handle(
            network_hash=network.hash,
            state=_Loaded(session, binding),
            placement=placement(session),
            metrics={"batch_size": float(batched.input_shape[0])},
        )

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        run, binding = handle.state.session.run_with_iobinding, handle.state.binding
        samples_ms: list[float] = []
        total_ns = 0
        try:
            while len(samples_ms) < runs or total_ns < seconds * 1e9:
                start_ns = time.perf_counter_ns()
                run(binding)
                taken_ns = time.perf_counter_ns() - start_ns
                total_ns += taken_ns
                samples_ms.append(taken_ns / 1e6)
        except Exception as error:
            raise _refused(handle.network_hash[:12], error) from error
        return samples_ms

    def release_impl(self, handle: Handle) -> None:
        handle.state = None  # the session and its thread pool go with the last reference

    def _session(self, content: bytes) -> ort.InferenceSession:
        import onnxruntime as ort

        return ort.InferenceSession(content, self._options(), providers=[PROVIDER])

    def _options(self) -> ort.SessionOptions:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # an error is raised as well: its text goes into the exception
        # Threads spin while a network runs, as in any application. Without this they would spin on for
        # tens of milliseconds after it and take the cores from the next network of the session.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return options


def _input_array(value: ort.NodeArg) -> np.ndarray[Any, Any]:
    """Seeded normal noise for a floating-point input, zeros (a valid index) for any other."""
    import numpy as np

    if not all(isinstance(size, int) for size in value.shape):
        raise ValueError(f"input {value.name!r} has the open shape {value.shape}")
    element = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(element, element))
    array = np.zeros(value.shape, dtype)
    if dtype.kind == "f":
        array[...] = np.random.default_rng(0).standard_normal(value.shape)
    return array


def placement(session: ort.InferenceSession) -> dict[str, dict[str, int]]:
    """Which provider took how many nodes of which operator; empty where ONNX Runtime is too old to tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counter = counts.setdefault(subgraph.ep_name, Counter())
        counter.update(node.op_type for node in subgraph.get_nodes())
    return {provider: dict(sorted(counter.items())) for provider, counter in counts.items()}


def _refused(network: str, error: Exception) -> PreparationError:
    reason = first_line(error)
    return PreparationError(
        f"ONNX Runtime cannot run {network} on this CPU: {reason}",
        "replace the operator that it names, or export the network for an older opset",
    )
