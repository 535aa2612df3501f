"""A network in ONNX Runtime on this CPU: loaded, and run while a clock looks on."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.measurement import Layer
from hwnas.temporary import temporary_folder

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"
KERNEL = "_kernel_time"


@dataclass(frozen=True)
class Loaded:
    """An ONNX Runtime session with its inputs and outputs bound."""

    session: ort.InferenceSession
    binding: ort.IOBinding


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


def load(content: bytes, options: ort.SessionOptions) -> Loaded:
    """Load a serialised model, bind seeded inputs, run it once. ONNX Runtime's errors pass through."""
    import onnxruntime as ort

    return bind(ort.InferenceSession(content, options, providers=[PROVIDER]))


def bind(session: ort.InferenceSession) -> Loaded:
    """Bind seeded inputs and run once, which allocates and fails now where it would fail later."""
    binding = session.io_binding()
    for value in session.get_inputs():
        binding.bind_cpu_input(value.name, _input_array(value))
    for value in session.get_outputs():
        binding.bind_output(value.name, "cpu")
    session.run_with_iobinding(binding)
    return Loaded(session, binding)


def sample(loaded: Loaded, runs: int, seconds: float) -> list[float]:
    """Run at least `runs` times and at least `seconds` long; milliseconds of each run."""
    run, binding = loaded.session.run_with_iobinding, loaded.binding
    samples_ms: list[float] = []
    total_ns = 0
    while len(samples_ms) < runs or total_ns < seconds * 1e9:
        start_ns = time.perf_counter_ns()
        run(binding)
        taken_ns = time.perf_counter_ns() - start_ns
        total_ns += taken_ns
        samples_ms.append(taken_ns / 1e6)
    return samples_ms


def layers(content: bytes, threads: int, runs: int) -> tuple[Layer, ...]:
    """The median time of each operator over some runs, by ONNX Runtime's profiler, in order."""
    options = session_options(threads)
    with temporary_folder() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        loaded = load(content, options)
        for _ in range(runs):
            loaded.session.run_with_iobinding(loaded.binding)
        events = json.loads(Path(loaded.session.end_profiling()).read_bytes())
    times_us: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            known = event["args"]
            key = (event["name"].removesuffix(KERNEL), known["op_name"], known.get("provider", PROVIDER))
            times_us.setdefault(key, []).append(event["dur"])
    return tuple(
        Layer(name=name, operator=operator, unit=unit, time_ms=statistics.median(taken) / 1000)
        for (name, operator, unit), taken in times_us.items()
    )


def placement(session: ort.InferenceSession) -> dict[str, dict[str, int]]:
    """Which provider took how many nodes of which operator; empty where ONNX Runtime is too old to tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counter = counts.setdefault(subgraph.ep_name, Counter())
        counter.update(node.op_type for node in subgraph.get_nodes())
    return {provider: dict(sorted(counter.items())) for provider, counter in counts.items()}


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
