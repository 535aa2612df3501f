"""The calls of CUDA that `CudaDevice` makes, in one place: tests put a clock of their own there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import onnxruntime as ort
    from torch import nn

NETWORKS = 1_000_000  # more than any process compiles
PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class Event(Protocol):
    """A moment in the GPU's stream."""

    def record(self) -> None: ...

    def elapsed_time(self, end: Any, /) -> float:
        """Milliseconds from this event to another."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What CUDA tells of one GPU; `capability` is (major, minor)."""

    name: str
    uuid: str
    capability: tuple[int, int]
    processors: int
    l2_bytes: int


class CudaLayer:
    """One GPU by PyTorch and ONNX Runtime. Nothing here decides anything."""

    kind = "cuda"

    def __init__(self, index: int) -> None:
        self.index = index
        self.place = f"cuda:{index}"

    def cuda_version(self) -> str | None:
        """The CUDA version that torch was built for; None is a build without CUDA."""
        import torch

        return torch.version.cuda

    def count(self) -> int:
        """GPUs that torch can reach."""
        import torch

        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def architectures(self) -> list[str]:
        """What torch was compiled for: `sm_80`, `compute_90`."""
        import torch

        return torch.cuda.get_arch_list()

    def gpu(self) -> Gpu:
        """The GPU itself."""
        import torch

        found = torch.cuda.get_device_properties(self.index)
        return Gpu(
            name=found.name,
            uuid=str(found.uuid),
            capability=(found.major, found.minor),
            processors=found.multi_processor_count,
            l2_bytes=found.L2_cache_size,
        )

    def torch_version(self) -> str:
        """Torch, and the CUDA that it was built for."""
        import torch

        return f"torch {torch.__version__}, CUDA {torch.version.cuda}"

    def cudnn_version(self) -> str:
        """CuDNN; torch raises a RuntimeError where it is too new for the chip."""
        import torch

        return f"cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]

    def providers(self) -> list[str]:
        """What the installed ONNX Runtime can run on."""
        import onnxruntime as ort

        return list(ort.get_available_providers())

    def configure(self) -> Callable[[], None]:
        """fp32 without TF32, and cuDNN's fastest algorithms; a function that puts back what was set."""
        from torch import backends

        found = (
            backends.cudnn.allow_tf32,
            backends.cuda.matmul.allow_tf32,
            backends.cudnn.benchmark,
        )

        def put(cudnn_tf32: bool, matmul_tf32: bool, benchmark: bool) -> None:
            backends.cudnn.allow_tf32 = cudnn_tf32
            backends.cuda.matmul.allow_tf32 = matmul_tf32
            backends.cudnn.benchmark = benchmark

        put(False, False, True)
        return lambda: put(*found)

    def new_stream(self) -> Any:
        """A stream of our own: ONNX Runtime takes the default stream for none at all."""
        import torch

        return torch.cuda.Stream(self.index)  # type: ignore[no-untyped-call]

    def in_stream(self, stream: Any) -> AbstractContextManager[Any]:
        """Everything inside is queued in this stream."""
        import torch

        return torch.cuda.stream(stream)

    def event(self) -> Event:
        """A new event that keeps the time."""
        import torch

        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        """Wait until the GPU has done everything."""
        import torch

        torch.cuda.synchronize(self.index)

    def held_bytes(self) -> int:
        """Memory in torch's tensors now; the peak is counted from here on."""
        import torch

        torch.cuda.reset_peak_memory_stats(self.index)
        return torch.cuda.memory_allocated(self.index)

    def peak_bytes(self) -> int:
        """The most memory in torch's tensors since `held_bytes`."""
        import torch

        return torch.cuda.max_memory_allocated(self.index)

    def compile(self, module: nn.Module) -> Callable[[Any], Any]:
        """`torch.compile` for the shapes of the first call, which compiles."""
        import torch
        from torch._dynamo import config

        # All networks share the code of a few module classes, and torch compiles the same code eight times
        # at most: from then on it would run networks eagerly and only log that.
        config.recompile_limit = config.accumulated_recompile_limit = NETWORKS
        return torch.compile(module, dynamic=False)

    def capture(self, run: Callable[[], Any], stream: Any) -> Callable[[], Any]:
        """A CUDA graph of `run`, which has been called before; its replay."""
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()
        return graph.replay

    def onnx_session(
        self, content: bytes, runtime: str, precision: str, channels_last: bool, stream: Any
    ) -> ort.InferenceSession:
        """An ONNX Runtime session that runs in our stream, and fails rather than fall back to the CPU."""
        import onnxruntime as ort

        common = {"device_id": str(self.index), "user_compute_stream": str(stream.cuda_stream)}
        cuda = {**common, "use_tf32": "0", "prefer_nhwc": str(int(channels_last))}
        providers = [("CUDAExecutionProvider", cuda)]
        if runtime == "tensorrt":
            # Unlike the CUDA provider, which also knows 1 and 0, this one takes no other words.
            kinds = {f"trt_{kind}_enable": str(precision == kind) for kind in ("fp16", "int8")}
            providers.insert(0, ("TensorrtExecutionProvider", {**common, **kinds}))
        options = ort.SessionOptions()
        options.log_severity_level = 4  # an error is raised as well: its text goes into the exception
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # Otherwise a failure is printed on stdout, and tried again with fewer providers.
        return ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
