"""OpenVINO on this machine: its CPU, or a GPU or NPU of Intel's where it finds one.

Networks are read as ONNX. int8 is ONNX Runtime's static QDQ graph, whose pairs OpenVINO's CPU plugin turns
into int8 kernels by itself (docs.openvino.ai, "Low Precision Transformations"); the other precisions are its
hint `INFERENCE_PRECISION_HINT` on the fp32 graph, by which fp32 means fp32: by default it takes bf16 where
the CPU has it. `PERFORMANCE_HINT` is LATENCY, so one stream has all threads.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hwnas.devices.host.cpu import CpuDevice
from hwnas.devices.host.runtime import Arrays, LoadedNetwork, Settings, noise
from hwnas.errors import DeviceError, first_line
from hwnas.measurement import DeviceProfile, Fingerprint, Layer, Option
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np
    import openvino

TARGET = re.compile(r"CPU|NPU|GPU(\.\d+)?")
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
"""By precision, in what the operators compute that are not quantised."""
NO_OPERATORS = ("Input", "Output", "Const")
RUNS = 30
BOILERPLATE = re.compile(
    r"Exception from |Check .* failed at |FrontEnd API failed|Model wasn't fully|Summary:"
)
"""How lines of its messages begin that do not say what is wrong."""


class OpenVinoDevice(CpuDevice):
    """This machine by OpenVINO.

    Options of the profile, beside those of every host runtime:
        target: CPU, GPU, GPU.1 or NPU; `--device openvino:GPU` sets it.

    Raises:
        DeviceError: as `CpuDevice`, or no such target.
    """

    runtime = __name__
    runtime_name = "OpenVINO"
    distributions = ("openvino",)
    extra = "openvino"
    own_options: Mapping[str, Option | tuple[str, ...]] = MappingProxyType({"target": "CPU"})

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        self.target = str(self.options["target"]).upper()
        if not TARGET.fullmatch(self.target):
            raise DeviceError(
                f"profile {profile.name}: target is {self.target!r}", "take CPU, GPU, GPU.1 or NPU"
            )

    @property
    def lock_name(self) -> str:
        return super().lock_name if self.target == "CPU" else f"openvino {self.target}"

    def open_impl(self) -> None:
        super().open_impl()
        if self.target == "CPU":
            return
        found = _core().available_devices
        if not any(name == self.target or name.startswith(f"{self.target}.") for name in found):
            raise DeviceError(
                f"OpenVINO finds no {self.target} here, only {', '.join(found)}",
                "install the driver of that device (docs.openvino.ai, System Requirements), "
                "or take the profile openvino",
            )

    def fingerprint(self) -> Fingerprint:
        known = super().fingerprint()
        if self.target == "CPU":
            return known
        return replace(known, chip=f"{_core().get_property(self.target, 'FULL_DEVICE_NAME')}, {known.chip}")

    def runtime_details(self) -> list[str]:
        return [f"{super().runtime_details()[0]} {self.target}", "latency hint"]

    def settings(self) -> Mapping[str, Option]:
        return {"target": self.target, "hint": HINTS[self.profile.precision]}

    def content(self, network: Network) -> bytes:
        return network.onnx("int8" if self.profile.precision == "int8" else "fp32")


class _Network(LoadedNetwork):
    def __init__(self, content: bytes, settings: Settings, *, timed: bool = False) -> None:
        self._compiled = _compile(content, settings, timed=timed)
        self.request = self._compiled.create_infer_request()
        for port in self._compiled.inputs:
            partial_shape = port.get_partial_shape()
            shape = [int(str(size)) if size.is_static else str(size) for size in partial_shape]
            array = noise(port.any_name, shape, port.element_type.to_dtype())
            self.request.set_tensor(port, _openvino().Tensor(array))
        self.request.infer(share_outputs=True)
        unit = ", ".join(self._compiled.get_property("EXECUTION_DEVICES"))
        self.placement = {unit: dict(sorted(self._operators().items()))}

    @property
    def run(self) -> Callable[[], object]:
        return partial(self.request.infer, share_outputs=True)

    def outputs(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        found = self._compiled.create_infer_request().infer(dict(enumerate(inputs)))
        return [found[port].copy() for port in self._compiled.outputs]

    def _operators(self) -> Counter[str]:
        nodes = self._compiled.get_runtime_model().get_ordered_ops()
        kinds = (str(node.rt_info["layerType"].astype(str)) for node in nodes)
        return Counter(kind for kind in kinds if kind not in NO_OPERATORS)


def load_network(content: bytes, settings: Settings) -> LoadedNetwork:
    """See `runtime`."""
    return _Network(content, settings)


def time_operators(content: bytes, settings: Settings, seconds: float) -> tuple[Layer, ...]:
    """The median time of each operator that is executed; those fused into others are within them."""
    network = _Network(content, settings, timed=True)
    unit = next(iter(network.placement))
    first = network.request.profiling_info
    run_s = sum(node.real_time.total_seconds() for node in first)
    runs = []
    for _ in range(max(1, int(min(RUNS, seconds / max(run_s, 1e-6))))):
        network.run()
        runs.append(network.request.profiling_info)
    return tuple(
        Layer(
            name=node.node_name,
            operator=node.node_type,
            unit=f"{unit} {node.exec_type}",
            time_ms=1000 * statistics.median(run[n].real_time.total_seconds() for run in runs),
        )
        for n, node in enumerate(first)
        if node.status == node.Status.EXECUTED
    )


def _compile(content: bytes, settings: Settings, *, timed: bool) -> openvino.CompiledModel:
    target, hint = str(settings["target"]), settings["hint"]
    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": timed}
    if target == "CPU":
        wanted["INFERENCE_NUM_THREADS"] = int(settings["threads"])
    core = _core()
    try:
        compiled = core.compile_model(core.read_model(content), target, wanted)
    except RuntimeError as error:
        raise ValueError(_reason(error)) from error
    taken = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken.get(found, found) != hint:
        raise ValueError(f"{target} does not compute in {hint}, it would take {found}")
    return compiled


def _core() -> openvino.Core:
    return _openvino().Core()


def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import and writes into the user's home.

    Where the package is not there, OpenVINO takes a stub (`openvino/tools/ovc/telemetry_utils.py`).
    """
    hidden = "openvino_telemetry"
    known = hidden in sys.modules
    if not known:
        sys.modules[hidden] = None  # type: ignore[assignment]  # so Python says that a module is not there
    try:
        import openvino
    finally:
        if not known:
            del sys.modules[hidden]
    return openvino


def _reason(error: Exception) -> str:
    """The first line that says what is wrong; those before it say where in OpenVINO's source it was found."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    return next((line for line in lines if line and not BOILERPLATE.match(line)), first_line(error))
