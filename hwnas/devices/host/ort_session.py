"""A network in ONNX Runtime on this CPU: loaded, and run while a clock looks on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hwnas.devices.host import runtime
from hwnas.devices.host.runtime import Arrays

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"


class Stop:
    """Ends a network's loading and first run from another thread: between two operators, not within one."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []

    def __call__(self) -> None:
        for end in self._ends:
            end()

    def loading(self, options: ort.SessionOptions) -> None:
        """Take part in a session that is going to be loaded."""
        if hasattr(options, "set_load_cancellation_flag"):
            self._ends.append(lambda: options.set_load_cancellation_flag(True))

    def running(self) -> ort.RunOptions:
        """Options of runs that this ends."""
        import onnxruntime as ort

        options = ort.RunOptions()

        def end() -> None:
            options.terminate = True

        self._ends.append(end)
        return options


@dataclass(frozen=True)
class Loaded:
    """An ONNX Runtime session with its inputs and outputs bound."""

    session: ort.InferenceSession
    binding: ort.IOBinding
    held: tuple[Any, ...]  # inputs whose memory the binding knows and does not keep

    def run(self) -> None:
        """Run once."""
        self.session.run_with_iobinding(self.binding)


def session_options(threads: int) -> ort.SessionOptions:
    """The settings under which every network runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # an error is raised as well: its text goes into the exception
    # Threads spin while a network runs, as in any application. Without this they would spin on for
    # tens of milliseconds after it and take the cores from the next network of the session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def load(content: bytes, options: ort.SessionOptions, stop: Stop | None = None) -> Loaded:
    """Load a serialised model, bind seeded inputs, run it once. ONNX Runtime's errors pass through."""
    import onnxruntime as ort

    stop = stop or Stop()
    stop.loading(options)
    return bind(ort.InferenceSession(content, options, providers=[PROVIDER]), stop)


def bind(session: ort.InferenceSession, stop: Stop) -> Loaded:
    """Bind seeded inputs and run once, which allocates and fails now where it would fail later."""
    import onnxruntime as ort

    binding, held = session.io_binding(), []
    for value in session.get_inputs():
        array, kind = _input_array(value)
        if kind is None:
            binding.bind_cpu_input(value.name, array)
        else:
            held.append(ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind))
            binding.bind_ortvalue_input(value.name, held[-1])
    for value in session.get_outputs():
        binding.bind_output(value.name, "cpu")
    # Here alone: options make each run 40 µs slower, which later ones would be measured with.
    session.run_with_iobinding(binding, stop.running())
    return Loaded(session, binding, tuple(held))


def sample(loaded: Loaded, runs: int, seconds: float) -> list[float]:
    """Run at least `runs` times and at least `seconds` long; milliseconds of each run."""
    return runtime.take_samples(partial(loaded.session.run_with_iobinding, loaded.binding), runs, seconds)


def outputs(loaded: Loaded, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
    """Run once on other inputs, in the graph's order; outputs in that order."""
    names = [value.name for value in loaded.session.get_inputs()]
    return list(loaded.session.run(None, dict(zip(names, inputs, strict=True))))


def placement(session: ort.InferenceSession) -> dict[str, dict[str, int]]:
    """Which provider took how many nodes of which operator; empty where ONNX Runtime is too old to tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counter = counts.setdefault(subgraph.ep_name, Counter())
        counter.update(node.op_type for node in subgraph.get_nodes())
    return {provider: dict(sorted(counter.items())) for provider, counter in counts.items()}


def _input_array(value: ort.NodeArg) -> tuple[np.ndarray[Any, Any], int | None]:
    """Seeded normal noise for a floating-point input, zeros (a valid index) for any other.

    Returns:
        The numbers, and the ONNX type of those that numpy itself does not know.
    """
    import numpy as np

    element = value.type.removeprefix("tensor(").removesuffix(")")
    kind = None
    try:
        dtype = np.dtype({"float": "float32", "double": "float64"}.get(element, element))
    except TypeError:
        kind, dtype = _uncommon(value.name, element)
    return runtime.noise(value.name, value.shape, dtype), kind


def _uncommon(name: str, element: str) -> tuple[int, np.dtype[Any]]:
    """The ONNX type of this name, as bfloat16, and what numpy holds it as."""
    from onnx import TensorProto, helper  # half a second, which the processes of most networks can save

    kind = getattr(TensorProto, element.upper(), TensorProto.STRING)
    if kind == TensorProto.STRING:
        raise ValueError(f"input {name!r} is a {element}, and hwnas feeds tensors of numbers")
    return kind, helper.tensor_dtype_to_np_dtype(kind)
