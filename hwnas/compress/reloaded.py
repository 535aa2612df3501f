"""Stored networks as a user meets them: loaded in a fresh process, from nothing but their files.

The process is `python -m hwnas.compress.reloaded`; one serves all networks of a command. A question is a line
of JSON and the images; the answer is, batch by batch, what the module and what `model.onnx` gives. It ends
when its input does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from hwnas import processes
from hwnas.compress.architecture import ArchitectureSpec
from hwnas.compress.checkpoint import load_module
from hwnas.compress.data import Data
from hwnas.compress.task import Metric, Task
from hwnas.errors import HwnasError, first_line

BATCH = 256
TOLERANCE = 0.005
"""How far the mean over all images may be off, as a share; of a share of images one image more."""
FIX = "please report this with the run directory; nothing of it was emitted"


def confirm_stored(folder: Path, module: nn.Module, data: Data, task: Task, scores: Tensor | None) -> None:
    """Make sure that a stored network is as good as is told of it, loaded by someone who has only its files.

    Args:
        folder: with architecture, weights and graph.
        module: what was stored, in eval mode.
        scores: of the module by the task's metric, for each image of the test part, (N,); None without
            labels, where the share of answers that are the module's own takes their place.

    Raises:
        HwnasError: the module that is loaded, or the graph in ONNX Runtime, is another network.
    """
    metric, pixels = task.metric if scores is not None else task.agreement_metric, data.test.pixels
    found: list[list[Tensor]] = [[], []]
    start = 0
    for outputs in stored_outputs(folder, pixels):
        part = slice(start, start := start + BATCH)
        for kept, output in zip(found, outputs, strict=True):
            if scores is not None and data.test.labels is not None:
                kept.append(task.score(output, data.test.labels[part]))
            else:
                with torch.no_grad():
                    kept.append(task.agreement(output, module(data.normalize(pixels[part]))))
    told = float(scores.double().mean()) if scores is not None else 1.0
    allowed = TOLERANCE + 1 / len(pixels) if metric.share else TOLERANCE * abs(told)
    for what, mean in zip(
        ("hwnas.load", "model.onnx"), (float(torch.cat(each).double().mean()) for each in found), strict=True
    ):
        if not abs(mean - told) <= allowed:
            raise HwnasError(
                f"what was stored in {folder} is not what was trained: in a fresh process {what} gives "
                f"{metric.name} {_value(mean, metric)} instead of {_value(told, metric)}",
                "let the network depend on its weights and its input alone; if it does, report this with "
                "the run directory. It was not emitted",
            )


def _value(mean: float, metric: Metric) -> str:
    return f"{mean * 100:.1f} %" if metric.share else f"{mean:.4g}"


def stored_outputs(folder: Path, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What a stored network gives for images: the module that is loaded, and its graph with one image a run.

    Args:
        pixels: (N, C, H, W) uint8.

    Yields:
        Both outputs for each batch of images in order.

    Raises:
        HwnasError: it cannot be loaded or run.
    """
    sizes = [len(batch) for batch in torch.split(pixels, BATCH)]
    question = {
        "folder": str(folder.absolute()),
        "place": str(Path.cwd()),
        "path": sys.path,
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "shape": list(pixels.shape[1:]),
        "sizes": sizes,
    }
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    try:
        message = json.dumps(question).encode() + b"\n"
        for batch in torch.split(pixels, BATCH):
            with contextlib.suppress(BrokenPipeError):  # it has failed, and may have said why
                process.stdin.write(message + batch.contiguous().numpy().tobytes())
                process.stdin.flush()
            message = b""
            yield _receive(process.stdout), _receive(process.stdout)
    except BaseException as error:
        _end()  # it may be in the middle of an answer
        if isinstance(error, BrokenPipeError):
            raise _died(process) from None
        raise


_running: list[subprocess.Popen[bytes]] = []
"""The process, once it was needed."""


def _process() -> subprocess.Popen[bytes]:
    if not _running:
        _running.append(processes.start(__name__))
    return _running[0]


@atexit.register
def _end() -> None:
    while _running:
        process = _running.pop()
        process.kill()
        processes.end(process)


def _died(process: subprocess.Popen[bytes]) -> HwnasError:
    return HwnasError(
        f"the process that loads a stored network anew ended with exit code {process.returncode}",
        "see its messages above; give the same command again, with more memory free",
    )


def _receive(stream: Any) -> Tensor:
    line = stream.readline()
    if not line:
        raise BrokenPipeError
    header = json.loads(line)
    if "error" in header:
        raise HwnasError(*header["error"])
    content = stream.read(4 * math.prod(header["shape"]))
    return torch.from_numpy(np.frombuffer(content, np.float32).reshape(header["shape"]).copy())


def _send(stream: BinaryIO, output: np.ndarray) -> None:
    stream.write(json.dumps({"shape": output.shape}).encode() + b"\n")
    stream.write(np.ascontiguousarray(output, np.float32).tobytes())
    stream.flush()


def _answer(question: dict[str, Any], images: BinaryIO, answers: BinaryIO) -> None:
    """Load a network and run it on the images that follow."""
    os.environ.clear()
    os.environ.update(question["environment"])
    os.chdir(question["place"])
    sys.path[:] = question["path"]
    torch.set_num_threads(question["threads"])
    folder = Path(question["folder"])
    module = load_module(folder, allow_code=True)  # the parent has built it, and was allowed to
    spec = ArchitectureSpec.read(folder / "architecture.json")
    options = ort.SessionOptions()
    options.intra_op_num_threads = question["threads"]
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    mean, std = (np.array(each, np.float32).reshape(1, -1, 1, 1) for each in (spec.mean, spec.std))
    for size in question["sizes"]:
        shape = (size, *question["shape"])
        pixels = np.frombuffer(images.read(math.prod(shape)), np.uint8).reshape(shape)
        x = (pixels.astype(np.float32) / 255 - mean) / std
        with torch.no_grad():
            _send(answers, module(torch.from_numpy(x)).numpy())
        _send(answers, np.concatenate([session.run(None, {value.name: image[None]})[0] for image in x]))


def main() -> None:
    """Answer questions until the input ends, or one cannot be answered."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    questions = sys.stdin.buffer
    while line := questions.readline():
        try:
            _answer(json.loads(line), questions, answers)
        except Exception as error:
            cause, fix = (
                (error.cause, error.fix) if isinstance(error, HwnasError) else (first_line(error), FIX)
            )
            answers.write(json.dumps({"error": [cause, fix]}).encode() + b"\n")
            answers.flush()
            sys.exit(1)  # the images that are left are no question


if __name__ == "__main__":
    main()
