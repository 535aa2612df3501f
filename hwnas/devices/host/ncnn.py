"""ncnn on this machine's CPU, for networks that pnnx converts from ONNX; fp32, one image a run."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.devices.host.converted import noise_for, read_graph, require_same, run_converter
from hwnas.devices.host.cpu import CpuDevice
from hwnas.devices.host.runtime import Arrays, LoadedNetwork, Settings
from hwnas.measurement import Layer
from hwnas.temporary import temporary_folder

if TYPE_CHECKING:
    import ncnn
    import numpy as np

UNIT = "CPU"
RUNS = 30
HALF = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed")
"""Options by which it would compute fp32 networks in less."""


class NcnnDevice(CpuDevice):
    """This machine's CPU by ncnn, the runtime of many phone apps; convolutions by Winograd's algorithm and
    packed layouts as it chooses them. Options are those of every host runtime.
    """

    runtime = __name__
    runtime_name = "ncnn"
    distributions = ("ncnn", "pnnx")
    extra = "ncnn"
    precisions = ("fp32",)


class _Network(LoadedNetwork):
    def __init__(self, content: bytes, settings: Settings) -> None:
        import ncnn

        graph = read_graph(content)
        inputs = noise_for(graph)
        for value, array in zip(graph.input, inputs, strict=True):
            if array.shape[:1] != (1,):
                raise ValueError(f"input {value.name!r} is {array.shape}, and ncnn runs one image at a time")
        outputs = (value.type.tensor_type.shape.dim for value in graph.output)
        self._shapes = [tuple(int(size.dim_value) for size in sizes) for sizes in outputs]
        self._net = ncnn.Net()
        self._held = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()  # as ncnn's own benchmark has them
        options = self._net.opt
        options.blob_allocator, options.workspace_allocator = self._held
        options.num_threads = int(settings["threads"])
        for name in HALF:
            setattr(options, f"use_{name}", False)
        self.layers = list(_load(self._net, content, [array.shape for array in inputs]))
        self.placement = {UNIT: dict(sorted(Counter(kind for kind, _, _ in self.layers).items()))}
        self._mats = _mats(inputs)
        require_same(content, inputs, self.outputs(inputs))

    @property
    def run(self) -> Callable[[], object]:
        return lambda: self._extract(self._mats)

    def outputs(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        import numpy as np

        found = self._extract(_mats(inputs))
        return [np.array(mat).reshape(shape) for mat, shape in zip(found, self._shapes, strict=True)]

    def times_s(self) -> list[float]:
        """Seconds of each layer in one run, each extracted by itself: earlier ones are kept."""
        extractor, times = self._started(self._mats), []
        for _, _, blobs in self.layers:
            start_s = time.perf_counter()
            for blob in blobs:
                extractor.extract(blob)
            times.append(time.perf_counter() - start_s)
        return times

    def _started(self, mats: list[ncnn.Mat]) -> ncnn.Extractor:
        extractor = self._net.create_extractor()
        for name, mat in zip(self._net.input_names(), mats, strict=True):
            extractor.input(name, mat)
        return extractor

    def _extract(self, mats: list[ncnn.Mat]) -> list[ncnn.Mat]:
        extractor, found = self._started(mats), []
        for name in self._net.output_names():
            failed, mat = extractor.extract(name)
            if failed:
                raise ValueError(f"ncnn could not compute {name}: {failed}")
            found.append(mat)
        return found


def load_network(content: bytes, settings: Settings) -> LoadedNetwork:
    """See `runtime`."""
    return _Network(content, settings)


def time_operators(content: bytes, settings: Settings, seconds: float) -> tuple[Layer, ...]:
    """The median time of each layer, with what ncnn takes to give out its result."""
    network = _Network(content, settings)
    first = sum(network.times_s())
    runs = [network.times_s() for _ in range(max(1, int(min(RUNS, seconds / max(first, 1e-6)))))]
    return tuple(
        Layer(name=name, operator=kind, unit=UNIT, time_ms=1000 * statistics.median(run[n] for run in runs))
        for n, (kind, name, _) in enumerate(network.layers)
    )


def _load(
    net: ncnn.Net, content: bytes, shapes: list[tuple[int, ...]]
) -> Iterator[tuple[str, str, list[str]]]:
    """Convert and load; kind, name and outputs of each layer, inputs and mere copies left out."""
    import ncnn

    (package,) = importlib.util.find_spec("pnnx").submodule_search_locations  # type: ignore[union-attr,misc]
    given = ",".join(f"[{','.join(map(str, shape))}]" for shape in shapes)
    with temporary_folder() as folder:
        path = Path(folder)
        (path / "m.onnx").write_bytes(content)
        status, said = run_converter([f"{package}/pnnx", "m.onnx", f"inputshape={given}", "fp16=0"], path)
        if status or not (path / "m.ncnn.param").exists():
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise ValueError(f"pnnx cannot convert it: {lines[-1] if lines else f'exit code {status}'}")
        layers = list(_layers((path / "m.ncnn.param").read_text()))
        unknown = sorted({kind for kind, _, _ in layers if ncnn.layer_to_index(kind) < 0})
        if unknown:
            raise ValueError(f"ncnn has no layer for {', '.join(unknown)}")
        if net.load_param(f"{path}/m.ncnn.param") or net.load_model(f"{path}/m.ncnn.bin"):
            raise ValueError("ncnn cannot load what pnnx made of it")
    yield from (layer for layer in layers if layer[0] not in ("Input", "Split", "Noop"))


def _layers(param: str) -> Iterator[tuple[str, str, list[str]]]:
    """The lines of a .param file behind its magic number and its counts.

    Each is the layer's kind, its name, how many blobs go in and out, and these (ncnn's wiki,
    "param and model file structure").
    """
    for line in param.splitlines()[2:]:
        kind, name, entering, leaving, *rest = line.split()
        yield kind, name, rest[int(entering) : int(entering) + int(leaving)]


def _mats(inputs: Arrays) -> list[ncnn.Mat]:
    import ncnn
    import numpy as np

    return [ncnn.Mat(np.ascontiguousarray(array[0])).clone() for array in inputs]
