"""NVIDIA GPUs, timed by CUDA events: a pair of them around every run, one synchronisation a block of runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from hwnas.devices.base import Device, Handle
from hwnas.devices.cuda.calls import PROVIDERS, CudaLayer, Gpu
from hwnas.devices.cuda.kernels import check_kernels
from hwnas.devices.cuda.nvml import Nvml
from hwnas.devices.cuda.runtimes import ONNX_RUNTIMES, PRECISIONS, Built, Runtime, build_run
from hwnas.devices.host import machine
from hwnas.devices.host.ort_session import Stop
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError, DeviceLostError, HwnasError, PreparationError, first_line
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np

    from hwnas.devices.host.runtime import Arrays

DEADLINE_S = 600.0  # TensorRT builds an engine for minutes
BLOCK = 1000  # runs between two synchronisations: about what CUDA's queue holds

_log = logging.getLogger(__name__)


class CudaDevice(Device):
    """An NVIDIA GPU of this machine.

    Options of the profile:
        target: the GPU's index; `--device cuda:1` sets it.
        chip: a part of the chip's name; another chip is refused.
        any_gpu: do not refuse it; `--device-option any_gpu=true` sets it.
        runtime: eager, compile, cuda-graph, onnxruntime-cuda or tensorrt.
        batch: images a run; `--batch` sets it.
        channels_last: keep activations and weights in NHWC.
        cold_l2: overwrite the L2 cache before each run, outside of the timed part.

    Raises:
        DeviceError: an unknown option, a precision that the runtime does not have, no such GPU, another chip
            than `chip`, one that the installed torch has no kernels for, or a runtime that is not installed.
    """

    gives_outputs = True
    layer_class = CudaLayer

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        options = check_options(
            profile,
            "an NVIDIA GPU",
            target="0",
            chip="",
            any_gpu=False,
            runtime=tuple(PRECISIONS),
            batch=1,
            channels_last=False,
            cold_l2=False,
        )
        self.runtime = Runtime(
            name=str(options["runtime"]),
            precision=profile.precision,
            batch=int(options["batch"]),
            channels_last=bool(options["channels_last"]),
        )
        self.cold_l2 = bool(options["cold_l2"])
        self._chip = "" if options["any_gpu"] else str(options["chip"])
        if self.runtime.batch < 1:
            raise DeviceError(f"profile {profile.name}: batch is {self.runtime.batch}", "take 1 or more")
        if profile.precision not in PRECISIONS[self.runtime.name]:
            raise DeviceError(
                f"profile {profile.name}: runtime {self.runtime.name} has no {profile.precision}",
                f"take one of {', '.join(PRECISIONS[self.runtime.name])}, or another runtime",
            )
        if not str(options["target"]).isdecimal():
            raise DeviceError(
                f"profile {profile.name}: {options['target']!r} is no index of a GPU", "--device cuda:0"
            )
        self.layer = self.layer_class(int(str(options["target"])))
        self._nvml: Nvml | None = None
        self.deadline_s = DEADLINE_S if self.runtime.name in ONNX_RUNTIMES else None
        self._stop = Stop()
        self._stream: Any = None
        self._flush: Callable[[], object] = lambda: None
        self._restore: Callable[[], None] = lambda: None

    @property
    def lock_name(self) -> str:
        """By UUID: an index means another GPU under another CUDA_VISIBLE_DEVICES."""
        with self._reaching():
            self._require_gpu()
            return f"cuda {self.layer.gpu().uuid}"

    def open_impl(self) -> None:
        with self._reaching(), ExitStack() as failed:
            failed.callback(self.close_impl)
            self._open(self.layer.gpu())
            failed.pop_all()

    def _open(self, gpu: Gpu) -> None:
        if self._chip.lower() not in gpu.name.lower():
            raise DeviceError(
                f"profile {self.profile.name} is for {self._chip}, GPU {self.layer.index} is {gpu.name}",
                "--device-option any_gpu=true measures on it nevertheless; --device cuda is for any GPU",
            )
        check_kernels(gpu, self.layer.architectures(), self.layer.torch_version())
        self._check_provider()
        self._nvml = Nvml(gpu.uuid)
        self._check_power_mode(gpu, self._nvml.power_limit())
        self._stream = self.layer.new_stream()
        self._restore = self.layer.configure()
        if self.cold_l2:
            import torch

            # Twice its size, since a replacement strategy need not evict everything in one pass.
            buffer = torch.empty(max(1, 2 * gpu.l2_bytes), dtype=torch.uint8, device=self.layer.place)
            self._flush = buffer.zero_
        others = self._nvml.other_processes()
        if others:
            _log.warning("%d other processes use %s: latencies will suffer", others, gpu.name)

    def close_impl(self) -> None:
        self._restore()
        self._restore = self._flush = lambda: None
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    def fingerprint(self) -> Fingerprint:
        gpu, runtime = self.layer.gpu(), self.runtime
        major, minor = gpu.capability
        versions = f"{self.layer.torch_version()}, {self.layer.cudnn_version()}"
        if runtime.name in ONNX_RUNTIMES:
            import onnxruntime as ort

            versions = f"onnxruntime {ort.__version__}, {versions}"
        details = [runtime.name, versions, f"batch {runtime.batch}"]
        details += ["channels last"] * runtime.channels_last + ["cold L2"] * self.cold_l2
        return Fingerprint(
            chip=f"{gpu.name}, sm_{major}{minor}, {gpu.processors} SMs",
            os_build=machine.os_build(),
            driver=self._opened_nvml.driver(),
            runtime=", ".join(details),
            precision=self.profile.precision,
            power_mode=self._opened_nvml.power_limit() or self.profile.power_mode,
        )

    def conditions(self) -> Conditions:
        return self._opened_nvml.conditions()

    def prepare_impl(self, network: Network) -> Handle:
        self._stop = Stop()
        with self._running(network.name):
            built = build_run(network, self.runtime, self.layer, self._stream, self._stop)
            built.run()  # fails now where it would fail later
            self.layer.synchronize()
        return Handle(
            network_hash=network.hash,
            state=built,
            placement=built.placement,
            metrics={**built.metrics, "batch_size": float(self.runtime.batch)},
        )

    def interrupt_impl(self) -> None:
        self._stop()

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        samples_ms: list[float] = []
        self._stop = Stop()  # the network has ended once, and its input is the same
        with self._running(handle.network_hash[:12]):
            while len(samples_ms) < runs or sum(samples_ms) < seconds * 1000:
                samples_ms += self._block(handle.state.run, self._next_count(samples_ms, runs, seconds))
        return samples_ms

    def outputs_impl(self, handle: Handle, runs: Sequence[Arrays]) -> list[list[np.ndarray[Any, Any]]]:
        import torch

        built: Built = handle.state
        found = []
        self._stop = Stop()
        with self._running(handle.network_hash[:12]):
            noise = built.x.clone()
            try:
                for (images,) in runs:
                    if images.shape != built.x.shape:
                        raise PreparationError(
                            f"the network takes {tuple(built.x.shape)}, and {images.shape} was given",
                            "give images of that shape",
                        )
                    built.x.copy_(torch.from_numpy(images))
                    found.append(built.answer())
            finally:
                built.x.copy_(noise)
        return found

    def release_impl(self, handle: Handle) -> None:
        handle.state = None  # the module and its memory go with the last reference

    def _block(self, run: Callable[[], object], count: int) -> list[float]:
        pairs = [(self.layer.event(), self.layer.event()) for _ in range(count)]
        for start, end in pairs:
            self._flush()
            start.record()
            run()
            end.record()
        self.layer.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]

    def _next_count(self, samples_ms: Sequence[float], runs: int, seconds: float) -> int:
        missing = runs - len(samples_ms)
        if samples_ms and sum(samples_ms) > 0:
            mean_ms = sum(samples_ms) / len(samples_ms)
            missing = max(missing, math.ceil((seconds * 1000 - sum(samples_ms)) / mean_ms))
        return min(max(missing, 1), BLOCK)

    @contextmanager
    def _running(self, network: str) -> Iterator[None]:
        """Inference in our stream, failures explained."""
        import torch

        try:
            with torch.inference_mode(), self.layer.in_stream(self._stream):
                yield
        except HwnasError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            reason = first_line(error)
            if isinstance(error, torch.OutOfMemoryError):
                raise PreparationError(
                    f"{network} does not fit into the GPU's memory", "take a smaller --batch"
                ) from error
            if "CUDA error" in reason:
                # Such errors stay: every later call in this process would fail with the same one.
                raise DeviceLostError(
                    f"the GPU failed while it ran {network}: {reason}", "give the same command again"
                ) from error
            raise PreparationError(
                f"{self.runtime.name} cannot run {network} on this GPU: {reason}",
                "replace what it names, or take another runtime",
            ) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Failures explained while the GPU is opened."""
        try:
            yield
        except (HwnasError, ModuleNotFoundError):
            raise
        except Exception as error:  # CUDA's own are RuntimeErrors of several classes
            raise DeviceError(
                f"GPU {self.layer.index} cannot be used: {first_line(error)}",
                "see what nvidia-smi says: another process may hold the GPU or its memory",
            ) from error

    def _require_gpu(self) -> None:
        if self.layer.cuda_version() is None:
            raise DeviceError(
                "the installed torch is built without CUDA", "pip install --force-reinstall torch"
            )
        count = self.layer.count()
        if count == 0:
            raise DeviceError(
                "there is no NVIDIA GPU that torch can reach",
                "see what nvidia-smi says, and what CUDA_VISIBLE_DEVICES is set to",
            )
        if self.layer.index >= count:
            raise DeviceError(
                f"there is no GPU {self.layer.index}, only 0 to {count - 1}", f"--device cuda:{count - 1}"
            )

    def _check_provider(self) -> None:
        provider = PROVIDERS.get(self.runtime.name)
        if provider is not None and provider not in self.layer.providers():
            package = "onnxruntime-gpu tensorrt" if self.runtime.name == "tensorrt" else "onnxruntime-gpu"
            raise DeviceError(
                f"runtime {self.runtime.name} is not installed: ONNX Runtime has no {provider}",
                f"pip uninstall --yes onnxruntime && pip install {package}",
            )

    def _check_power_mode(self, gpu: Gpu, limit: str | None) -> None:
        wanted = self.profile.power_mode
        if wanted != "default" and limit is not None and wanted != limit:
            raise DeviceError(
                f"profile {self.profile.name} asks for power mode {wanted}, the GPU's limit is {limit}",
                f"sudo nvidia-smi --id=GPU-{gpu.uuid} --power-limit={wanted.removesuffix(' W')}",
            )

    @property
    def _opened_nvml(self) -> Nvml:
        if self._nvml is None:
            raise DeviceError(f"device {self.profile.name} is not open", "use it in a with statement")
        return self._nvml
