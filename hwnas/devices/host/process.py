"""A network in a process of its own: nothing of an earlier one (memory layout, heap, threads) is left in it.

The process is `python -m hwnas.devices.host.process`. It is sent one line of JSON with the size of the model
and the model itself, and then one line of JSON for each sampling; it answers each with a line of JSON. It
ends when its input does or its parent is no more, so it never outlives whoever started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwnas import processes
from hwnas.devices.host import ort_session
from hwnas.errors import NoSpaceError, first_line
from hwnas.measurement import Layer

END_S = 5.0


class ProcessDiedError(RuntimeError):
    """The process ended by itself or was killed."""


class HostProcess:
    """A process that holds one network. Raises RuntimeError where it fails, ProcessDiedError where it dies.

    Attributes:
        placement: execution provider → operator type → number of nodes.
        peak_memory_bytes: of the process so far, Python and ONNX Runtime included.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and the program is this Python
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.peak_memory_bytes = 0
        self.placement: dict[str, dict[str, int]] = {}

    def load(self, content: bytes, threads: int) -> None:
        """Load a serialised ONNX model and run it once.

        Args:
            threads: within an operator.
        """
        self.placement = self._ask({"do": "load", "threads": threads}, content)["placement"]

    def layers(self, content: bytes, threads: int, seconds: float) -> tuple[Layer, ...]:
        """See `layers.layers`."""
        answer = self._ask({"do": "layers", "threads": threads, "seconds": seconds}, content)
        return tuple(Layer(**plain) for plain in answer["layers"])

    def sample(self, runs: int, seconds: float) -> list[float]:
        """Milliseconds of each run."""
        question = {"do": "sample", "runs": runs, "seconds": seconds}
        samples_ms: list[float] = self._ask(question)["samples_ms"]
        return samples_ms

    def kill(self) -> None:
        """End the process at once, whatever it does; whoever waits for its answer is told that it died."""
        self._process.kill()

    def end(self) -> None:
        """End the process; a second call does nothing."""
        processes.end(self._process, END_S)

    def _ask(self, question: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
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
        return answer


class _Server:
    """What the process does: one answer to each question."""

    def __init__(self) -> None:
        self._loaded: ort_session.Loaded | None = None

    def answer(self, question: dict[str, Any], content: bytes) -> dict[str, Any]:
        if question["do"] == "layers":
            from hwnas.devices.host.layers import layers

            found = layers(content, question["threads"], question["seconds"])
            return {"layers": [asdict(layer) for layer in found]}
        if question["do"] == "load":
            options = ort_session.session_options(question["threads"])
            self._loaded = ort_session.load(content, options)
            return {"placement": ort_session.placement(self._loaded.session)}
        assert self._loaded is not None
        return {"samples_ms": ort_session.sample(self._loaded, question["runs"], question["seconds"])}


def main() -> None:
    """Serve one network until the input ends."""
    processes.confine(processes.usable_memory_bytes())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    server = _Server()
    for line in iter(sys.stdin.buffer.readline, b""):
        question = json.loads(line)
        content = sys.stdin.buffer.read(question["bytes"])
        try:
            answer = server.answer(question, content)
        except NoSpaceError as error:
            answer = {"no_space": [error.cause, error.fix]}
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            answer = {"error": first_line(error)}
        answer["peak_memory_bytes"] = _peak_memory_bytes()
        answers.write(json.dumps(answer).encode() + b"\n")
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
