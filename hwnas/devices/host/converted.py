"""What runtimes share that do not read ONNX: a converter is run, and what comes out is compared with ONNX."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.devices.host.runtime import Arrays, noise

if TYPE_CHECKING:
    import numpy as np
    import onnx

LARGEST_DIFFERENCE = 0.01
"""Of an fp32 output, as a share of the largest one; Winograd's convolutions are some 1e-4 off."""
PR_SET_PDEATHSIG = 1


def run_converter(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a converter in a folder; its exit status and what it printed. It ends when this process does."""
    done = subprocess.run(  # noqa: S603 - no shell, and the programs are those of installed packages
        list(command),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        preexec_fn=_end_with_parent(),
    )
    return done.returncode, done.stdout.decode(errors="replace")


def read_graph(content: bytes) -> onnx.GraphProto:
    """The graph of a serialised ONNX model, whose inputs are those that no weight stands for.

    Raises:
        ValueError: it is no such model.
    """
    import onnx

    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:  # protobuf's exceptions have no base class of their own
        raise ValueError("invalid model: it is no ONNX") from error
    weights = {weight.name for weight in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    return graph


def noise_for(graph: onnx.GraphProto) -> list[np.ndarray[Any, Any]]:
    """Seeded noise for each input.

    Raises:
        ValueError: one has an open shape, or is no tensor of float32.
    """
    import numpy as np
    import onnx

    found = []
    for value in graph.input:
        kind = value.type.tensor_type.elem_type
        if kind != onnx.TensorProto.FLOAT:
            name = onnx.TensorProto.DataType.Name(kind).lower()
            raise ValueError(f"input {value.name!r} is {name}, and float alone is fed")
        sizes = value.type.tensor_type.shape.dim
        shape = [size.dim_value if size.HasField("dim_value") else size.dim_param for size in sizes]
        found.append(noise(value.name, shape, np.dtype("float32")))
    return found


def require_same(content: bytes, inputs: Arrays, found: Arrays) -> None:
    """Refuse a network whose outputs are not those that ONNX Runtime computes.

    Raises:
        ValueError: they differ.
    """
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for wanted, given in zip(session.run(None, dict(zip(names, inputs, strict=True))), found, strict=True):
        if wanted.shape != given.shape:
            raise ValueError(f"an output has the shape {given.shape}, and {wanted.shape} in ONNX Runtime")
        largest = max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
        apart = float(np.abs(wanted - given).max(initial=0.0)) / largest
        if not apart <= LARGEST_DIFFERENCE:
            raise ValueError(f"it computes something else than ONNX Runtime: an output is {apart:.1%} off")


def _end_with_parent() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
