"""MNN on this machine's CPU, for networks that its own converter brings from ONNX; fp32.

MNN's Python tools (`MNN.tools`, `mnnconvert`) install a package with pip and call their maker's cloud when
they are imported. They never are: the converter is called as they call it, in the extension module `_tools`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.devices.host.converted import noise_for, read_graph, require_same, run_converter
from hwnas.devices.host.cpu import CpuDevice
from hwnas.devices.host.runtime import Arrays, LoadedNetwork, Settings
from hwnas.measurement import Layer
from hwnas.temporary import temporary_folder

if TYPE_CHECKING:
    import MNN
    import numpy as np

UNIT = "CPU"
RUNS = 30
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
UNSUPPORTED = "Not Support: "


class MnnDevice(CpuDevice):
    """This machine's CPU by MNN, precision `high`. Options are those of every host runtime."""

    runtime = __name__
    runtime_name = "MNN"
    distributions = ("MNN",)
    extra = "mnn"
    precisions = ("fp32",)


class _Network(LoadedNetwork):
    def __init__(self, content: bytes, settings: Settings) -> None:
        graph = read_graph(content)
        inputs = noise_for(graph)
        self._names = [value.name for value in graph.input], [value.name for value in graph.output]
        self._interpreter = _interpreter(content)
        self._session = self._interpreter.createSession(
            {"backend": UNIT, "numThread": int(settings["threads"]), "precision": "high"}
        )
        self._noise = [_host_tensor(array) for array in inputs]
        entering = self._interpreter.getSessionInputAll(self._session)
        self._entering = [entering[name] for name in self._names[0]]
        require_same(content, inputs, self.outputs(inputs))
        kinds = Counter(kind for _, kind, _ in self.timed())
        self.placement = {UNIT: dict(sorted(kinds.items()))}

    @property
    def run(self) -> Callable[[], object]:
        return partial(self._run, self._noise)

    def outputs(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        import numpy as np

        self._run([_host_tensor(np.ascontiguousarray(array)) for array in inputs])
        return self.last_outputs()

    def _run(self, inputs: list[MNN.Tensor]) -> None:
        self._fill(inputs)
        failed = self._interpreter.runSession(self._session)
        if failed:
            raise ValueError(f"MNN could not run it: {failed}")

    def _fill(self, inputs: list[MNN.Tensor]) -> None:
        """Copy the inputs in, which every run needs: MNN lays results over them."""
        for entering, given in zip(self._entering, inputs, strict=True):
            entering.copyFrom(given)

    def last_outputs(self) -> list[np.ndarray[Any, Any]]:
        """What the last run has left, in the order of the graph."""
        import MNN
        import numpy as np

        leaving = self._interpreter.getSessionOutputAll(self._session)
        found = []
        for name in self._names[1]:
            if leaving[name].getDataType() != MNN.Halide_Type_Float:
                raise ValueError(f"output {name!r} is not of floats, and those alone are compared")
            host = _host_tensor(np.zeros(leaving[name].getShape(), np.float32))
            leaving[name].copyToHostTensor(host)
            found.append(np.array(host.getNumpyData()).reshape(leaving[name].getShape()))
        return found

    def timed(self) -> list[tuple[str, str, float]]:
        """Name, kind and seconds of each operator in one run."""
        found: list[tuple[str, str, float]] = []
        start_s = [0.0]

        def before(_: object, info: object) -> bool:
            start_s[0] = time.perf_counter()
            return True

        def after(_: object, info: Any) -> bool:
            found.append((info.getName(), info.getType(), time.perf_counter() - start_s[0]))
            return True

        self._fill(self._noise)
        self._interpreter.runSessionWithCallBackInfo(self._session, before, after)
        return found


def load_network(content: bytes, settings: Settings) -> LoadedNetwork:
    """See `runtime`."""
    return _Network(content, settings)


def time_operators(content: bytes, settings: Settings, seconds: float) -> tuple[Layer, ...]:
    """The median time of each operator, by MNN's callbacks before and after it."""
    network = _Network(content, settings)
    first = network.timed()
    run_s = sum(taken_s for *_, taken_s in first)
    runs = [network.timed() for _ in range(max(1, int(min(RUNS, seconds / max(run_s, 1e-6)))))]
    return tuple(
        Layer(
            name=name, operator=kind, unit=UNIT, time_ms=1000 * statistics.median(run[n][2] for run in runs)
        )
        for n, (name, kind, _) in enumerate(first)
    )


def _interpreter(content: bytes) -> MNN.Interpreter:
    import MNN

    with temporary_folder() as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(content)
        options = ["-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn"]
        status, said = run_converter([sys.executable, "-P", "-c", CONVERT, *options], path)
        if status or not (path / "m.mnn").exists():
            lines = [line for line in said.splitlines() if line.strip()] or [f"exit code {status}"]
            reason = next((line.partition(UNSUPPORTED)[2] for line in lines if UNSUPPORTED in line), "")
            raise ValueError(f"MNN has no operator for {reason}" if reason else f"not converted: {lines[-1]}")
        return MNN.Interpreter(f"{path}/m.mnn")


def _host_tensor(array: np.ndarray[Any, Any]) -> MNN.Tensor:
    import MNN

    return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
