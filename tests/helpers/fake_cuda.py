"""A GPU that is this CPU, and a clock that moves by a fixed step at each event."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import onnxruntime as ort
from torch import nn

from hwnas.devices.cuda.calls import CudaLayer, Gpu
from hwnas.devices.cuda.device import CudaDevice
from hwnas.measurement import DeviceProfile

V100 = Gpu(name="Tesla V100-SXM2-16GB", uuid="0-1", capability=(7, 0), processors=80, l2_bytes=6 * 2**20)
A100 = Gpu(name="NVIDIA A100", uuid="0-2", capability=(8, 0), processors=108, l2_bytes=40 * 2**20)
LISTED = ["sm_75", "sm_80", "sm_90", "compute_90"]


class FakeEvent:
    def __init__(self, layer: FakeLayer) -> None:
        self.layer = layer

    def record(self) -> None:
        self.layer.now_ms += self.layer.step_ms
        self.layer.log.append("event")
        self.at_ms = self.layer.now_ms

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.layer.log[-1] == "synchronize"
        return end.at_ms - self.at_ms


class FakeLayer(CudaLayer):
    """A GPU that is this CPU, with a clock that moves by `step_ms` at each event."""

    kind = "cpu"
    found = A100
    architectures_found = LISTED
    step_ms = 1.25

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.place = "cpu"
        self.now_ms = 0.0
        self.log: list[str] = []
        self.broken: Exception | None = None
        self.bytes = 1000

    def cuda_version(self) -> str | None:
        return "13.2"

    def count(self) -> int:
        return 1

    def architectures(self) -> list[str]:
        return list(self.architectures_found)

    def gpu(self) -> Gpu:
        return self.found

    def providers(self) -> list[str]:
        return ["CUDAExecutionProvider"]

    def new_stream(self) -> Any:
        return None

    def in_stream(self, stream: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def event(self) -> FakeEvent:
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.log.append("synchronize")
        if self.broken is not None:
            raise self.broken

    def held_bytes(self) -> int:
        return self.bytes

    def peak_bytes(self) -> int:
        return self.bytes + 234

    def compile(self, module: nn.Module) -> Callable[[Any], Any]:
        return module

    def capture(self, run: Callable[[], Any], stream: Any) -> Callable[[], Any]:
        return run

    def onnx_session(self, content: bytes, *_: Any) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class FakeCudaDevice(CudaDevice):
    layer_class = FakeLayer
    layer: FakeLayer


def make_cuda(precision: Any = "fp32", power_mode: str = "default", **options: Any) -> FakeCudaDevice:
    return FakeCudaDevice(
        DeviceProfile(
            name="cuda",
            device="cuda",
            description="a GPU",
            precision=precision,
            power_mode=power_mode,
            options=options,
        )
    )
