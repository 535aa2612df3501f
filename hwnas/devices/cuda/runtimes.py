"""How a network is run on a GPU: each runtime gives a function that queues one run and returns at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwnas.devices.cuda.calls import CudaLayer
from hwnas.devices.host.ort_session import Stop, placement
from hwnas.errors import PreparationError
from hwnas.measurement import Precision
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TORCH_RUNTIMES = ("eager", "compile", "cuda-graph")
ONNX_RUNTIMES = ("onnxruntime-cuda", "tensorrt")
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    **dict.fromkeys(TORCH_RUNTIMES, ("fp32", "fp16", "bf16")),
    "onnxruntime-cuda": ("fp32", "fp16"),  # it has no int8 convolutions: QDQ graphs run in fp32 there
    "tensorrt": ("fp32", "fp16", "int8"),
}
WARM_UP_RUNS = (
    3  # compile, choose algorithms and allocate: no CUDA graph and no memory's peak with that in it
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network that is ready to run.

    Attributes:
        run: queues one run and returns at once.
        x: the input on the GPU that each run works on.
        answer: runs once, waits, and gives the outputs in the order of the graph.
        placement, metrics: see `Handle`.
    """

    run: Callable[[], object]
    x: Tensor
    answer: Callable[[], list[np.ndarray[Any, Any]]]
    placement: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Which runtime, and how."""

    name: str
    precision: Precision
    batch: int
    channels_last: bool


def build_run(network: Network, runtime: Runtime, layer: CudaLayer, stream: Any, stop: Stop) -> Built:
    """The network on the GPU, its input too; built and called under `inference_mode`, in the stream.

    Args:
        stop: gets to know ONNX Runtime's runs, which it can end.

    Raises:
        PreparationError: a graph that takes anything but one float32 input.
    """
    if runtime.name in TORCH_RUNTIMES:
        return _torch_run(network, runtime, layer, stream)
    return _onnx_run(network, runtime, layer, stream, stop)


def _torch_run(network: Network, runtime: Runtime, layer: CudaLayer, stream: Any) -> Built:
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[runtime.precision]
    memory = torch.channels_last if runtime.channels_last else torch.contiguous_format
    shape = (runtime.batch, *network.input_shape[1:])
    memory = memory if len(shape) == 4 else torch.contiguous_format
    # torch's `to` takes a memory format for 4-dimensional weights only, and leaves all others alone.
    module = network.module().eval().to(device=layer.place, dtype=dtype)
    module = module.to(memory_format=memory)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(device=layer.place, dtype=dtype, memory_format=memory)
    call = layer.compile(module) if runtime.name == "compile" else module

    def run() -> object:
        return call(x)

    leaves = Counter(type(leaf).__name__ for leaf in module.modules() if not list(leaf.children()))
    where = {runtime.name: dict(sorted(leaves.items()))}
    for _ in range(WARM_UP_RUNS):
        run()
    held_bytes = layer.held_bytes()
    run()
    own = (*module.parameters(), *module.buffers(), x)
    own_bytes = sum(tensor.numel() * tensor.element_size() for tensor in own)
    metrics = {"peak_memory_bytes": float(own_bytes + layer.peak_bytes() - held_bytes)}
    if runtime.name != "cuda-graph":
        return Built(run=run, x=x, answer=lambda: _plain(run()), placement=where, metrics=metrics)
    layer.synchronize()
    output: list[object] = [None]

    def keep() -> None:
        output[0] = run()

    replay = layer.capture(keep, stream)  # the graph works in the weights and the input that `run` holds

    def answer() -> list[np.ndarray[Any, Any]]:
        replay()
        return _plain(output[0])

    return Built(run=replay, x=x, answer=answer, placement=where, metrics=metrics)


def _plain(output: object) -> list[np.ndarray[Any, Any]]:
    """The tensors of what a module gives; copying them waits for the stream."""
    from hwnas.networks.tensors import tensors_of

    return [leaf.float().cpu().contiguous().numpy().copy() for leaf in tensors_of(output)]


def _onnx_run(network: Network, runtime: Runtime, layer: CudaLayer, stream: Any, stop: Stop) -> Built:
    import numpy as np
    import torch

    batched = network.batched(runtime.batch)
    content = batched.int8(symmetric=True) if runtime.precision == "int8" else batched.onnx(runtime.precision)
    session = layer.onnx_session(content, runtime.name, runtime.precision, runtime.channels_last, stream)
    binding = session.io_binding()
    value, *more = session.get_inputs()
    if more or value.type != "tensor(float)":
        found = ", ".join(f"{known.name} {known.type} {known.shape}" for known in (value, *more))
        raise PreparationError(
            f"{network.name} takes {found}; on a GPU hwnas feeds one float32 tensor",
            "measure it with --device cpu, or export it with one such input",
        )
    x = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(layer.place)
    binding.bind_input(value.name, layer.kind, layer.index, np.float32, value.shape, x.data_ptr())
    for output in session.get_outputs():
        binding.bind_output(output.name, layer.kind, layer.index)
    options = stop.running()
    # Otherwise each run would wait for its own end, and the events would time the waiting as well.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run() -> object:
        session.run_with_iobinding(binding, options)
        return x  # the binding holds only its address: it must live on

    def answer() -> list[np.ndarray[Any, Any]]:
        run()
        layer.synchronize()
        return list(binding.copy_outputs_to_cpu())

    return Built(run=run, x=x, answer=answer, placement=placement(session), metrics={})
