"""A network in a process of its own: nothing of an earlier one (memory layout, heap, threads) is left in it.

The process is `python -m hwnas.devices.host.process RUNTIME`, a module as `runtime` describes. It is sent one
line of JSON with the size of the model and the model itself, and then one line of JSON for each sampling; it
answers each with a line of JSON. Arrays follow such a line as .npz. It ends when its input does or its parent
is no more, so it never outlives whoever started it.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas import processes
from hwnas.devices.host.runtime import Arrays, LoadedNetwork, take_samples
from hwnas.errors import NoSpaceError, first_line
from hwnas.measurement import Layer, Option

if TYPE_CHECKING:
    import numpy as np

END_S = 5.0
ONNX_RUNTIME = "hwnas.devices.host.onnx_runtime"


class ProcessDiedError(RuntimeError):
    """The process ended by itself or was killed."""


class HostProcess:
    """A process that holds one network. Raises RuntimeError where it fails, ProcessDiedError where it dies.

    Args:
        runtime: the module that loads the network.

    Attributes:
        placement: execution unit (of ONNX Runtime the provider) → operator type → number of nodes.
        peak_memory_bytes: of the process so far, Python and the runtime included.
    """

    def __init__(self, runtime: str = ONNX_RUNTIME) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and the program is this Python
            [sys.executable, "-P", "-m", __name__, runtime],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.peak_memory_bytes = 0
        self.placement: dict[str, dict[str, int]] = {}

    def load(self, content: bytes, threads: int, **more: Option) -> None:
        """Load a serialised ONNX model and run it once.

        Args:
            threads: within an operator.
            more: further settings of the runtime.
        """
        question = {"do": "load", "settings": {"threads": threads, **more}}
        self.placement = self._ask(question, content)[0]["placement"]

    def layers(self, content: bytes, threads: int, seconds: float, **more: Option) -> tuple[Layer, ...]:
        """The time of each operator of a serialised ONNX model, from runs of about so many seconds."""
        question = {"do": "layers", "settings": {"threads": threads, **more}, "seconds": seconds}
        answer, _ = self._ask(question, content)
        return tuple(Layer(**plain) for plain in answer["layers"])

    def outputs(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        """Run the network once on these inputs, in the graph's order; its outputs in that order."""
        return _arrays(self._ask({"do": "outputs"}, _bytes(inputs))[1])

    def sample(self, runs: int, seconds: float) -> list[float]:
        """Milliseconds of each run."""
        question = {"do": "sample", "runs": runs, "seconds": seconds}
        samples_ms: list[float] = self._ask(question)[0]["samples_ms"]
        return samples_ms

    def kill(self) -> None:
        """End the process at once, whatever it does; whoever waits for its answer is told that it died."""
        self._process.kill()

    def end(self) -> None:
        """End the process; a second call does nothing."""
        processes.end(self._process, END_S)

    def _ask(self, question: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**question, "bytes": len(payload)}).encode() + b"\n" + payload)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise ProcessDiedError(f"its process ended with exit code {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "no_space" in answer:
            raise NoSpaceError(*answer["no_space"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        self.peak_memory_bytes = answer["peak_memory_bytes"]
        return answer, process.stdout.read(answer.get("bytes", 0))


class _Server:
    """What the process does: one answer to each question, and the arrays that follow it."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._loaded: LoadedNetwork | None = None

    def answer(self, question: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        if question["do"] in ("layers", "load"):
            return self._load(question, content), b""
        assert self._loaded is not None
        if question["do"] == "outputs":
            found = _bytes(self._loaded.outputs(_arrays(content)))
            return {"bytes": len(found)}, found
        return {"samples_ms": take_samples(self._loaded.run, question["runs"], question["seconds"])}, b""

    def _load(self, question: dict[str, Any], content: bytes) -> dict[str, Any]:
        runtime = importlib.import_module(self._runtime)
        if question["do"] == "layers":
            found = runtime.time_operators(content, question["settings"], question["seconds"])
            return {"layers": [asdict(layer) for layer in found]}
        loaded: LoadedNetwork = runtime.load_network(content, question["settings"])
        self._loaded = loaded
        return {"placement": loaded.placement}


def _bytes(arrays: Arrays) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue()


def _arrays(content: bytes) -> list[np.ndarray[Any, Any]]:
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return [found[f"arr_{n}"] for n in range(len(found))]


def main() -> None:
    """Serve one network until the input ends."""
    processes.confine(processes.usable_memory_bytes())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    server = _Server(sys.argv[1])
    for line in iter(sys.stdin.buffer.readline, b""):
        question = json.loads(line)
        content = sys.stdin.buffer.read(question["bytes"])
        answer: dict[str, Any]
        more = b""
        try:
            answer, more = server.answer(question, content)
        except NoSpaceError as error:
            answer = {"no_space": [error.cause, error.fix]}
        except Exception as error:  # runtimes' exceptions have no base class of their own
            answer = {"error": first_line(error)}
        answer["peak_memory_bytes"] = _peak_memory_bytes()
        answers.write(json.dumps(answer).encode() + b"\n" + more)
        answers.flush()


def _peak_memory_bytes() -> int:
    """The largest resident set of this process. `ru_maxrss` would begin with that of the one it came from."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
