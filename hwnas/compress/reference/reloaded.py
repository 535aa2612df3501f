"""Stored networks as a user meets them: loaded in a fresh process, from nothing but their files.

The process is `python -m hwnas.compress.reference.reloaded`; one serves all networks of a command. A question
is a line of JSON and the images; the answer is, batch by batch, what the module and what `model.onnx` gives.
It ends when its input does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from hwnas import processes
from hwnas.agreement import disagreement
from hwnas.compress.data import Data, Images
from hwnas.compress.data.dataset import at_shape
from hwnas.compress.training.placement import channels_last
from hwnas.errors import HwnasError, first_line
from hwnas.files import decode, encode, write_bytes, write_signed
from hwnas.measurement import STRICT
from hwnas.network import in_eval_mode
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.build import assemble
from hwnas.networks.exported import network_of
from hwnas.networks.intact import REFERENCE_RECORD, REFERENCE_SCHEMA, reference_hashes
from hwnas.networks.partition import Partition
from hwnas.networks.serialize import load_module, save_module
from hwnas.networks.tensors import by_image, tensors_of
from hwnas.ranges import Size
from hwnas.temporary import temporary_folder

BATCH = 256
REHEARSED = 16  # images
STEP = 0.01
"""Of the weights' size: so far a rehearsed network is from where it began."""

FIX = "please report this with the run directory; nothing of it was emitted"


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A stored network, the surroundings in which it is loaded, and the batches that follow.

    Attributes:
        place: the working folder.
        path: of modules.
        shape: of an image.
        bytes_a_value: 1 of uint8, 4 of float32 in 0 … 1.
        sizes: of the batches.
    """

    __pydantic_config__ = STRICT
    folder: str
    place: str
    path: tuple[str, ...]
    environment: dict[str, str]
    threads: Size
    shape: tuple[Size, ...]
    bytes_a_value: Size
    sizes: tuple[Size, ...]


def confirm_stored(
    folder: Path,
    module: nn.Module,
    data: Data,
    images: Images | None = None,
    *,
    shape: Sequence[int] | None = None,
) -> None:
    """Make sure that whoever has only the files of a stored network gets the answers of what was stored.

    Args:
        folder: with architecture, weights and graph.
        module: what was stored, in eval mode; what is told of it is told of this.
        images: on which both answer; where none are named all of the test part, or of val where the images of
            the test part have several sizes.
        shape: (C, H, W) that the graph takes, where it is another one than the data's. Some of the images are
            scaled to it.

    Raises:
        HwnasError: the module that is loaded, or the graph in ONNX Runtime, answers otherwise.
    """
    images = images or (data.test if data.test.sizes == data.train.sizes else data.val)
    shape = tuple(shape or data.image_shape)
    if shape != data.image_shape:
        images = images.first(REHEARSED)
    apart = [0.0, 0.0]
    for part, outputs in zip(_parts(images), stored_outputs(folder, data, images, shape), strict=True):
        with torch.no_grad():
            inputs = at_shape(data.plain_inputs(images, part), shape)
            own = by_image(module(data.normalize(inputs)), len(inputs))
        apart = [max(was, disagreement(own, now)) for was, now in zip(apart, outputs, strict=True)]
    for what, share in zip(("hwnas.load", "model.onnx in ONNX Runtime"), apart, strict=True):
        if share:
            raise HwnasError(
                f"what was stored in {folder} is another network: in a fresh process {what} answers "
                f"otherwise, by {share:.1%} of the largest output",
                "let its answer depend on its weights and its input alone: on no attribute that training "
                "changes, nothing drawn or read when it is built or imported, no view of what is changed in "
                "place. It was not emitted",
            )


def rehearse(parts: Partition, measured: Partition, architecture: ArchitectureSpec, data: Data) -> None:
    """Store a network as if it had been trained, and confirm it, before anything is trained.

    What a copy learns in one pass in train mode has to be stored as well.

    Args:
        parts, measured: at the sizes at which it is trained and measured.
        architecture: of the reference.

    Raises:
        HwnasError: as `confirm_stored`.
    """
    modules, joints = deepcopy((parts.modules, parts.joints))
    module = assemble(parts, modules, joints)
    images = data.train.first(REHEARSED)
    x = data.normalize(data.plain_inputs(images, slice(None)))
    module.train()
    output = module(x)
    learning = [leaf.square().mean() for leaf in tensors_of(output) if leaf.requires_grad]
    if learning:
        sum(learning, torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in module.parameters():
                if weight.grad is not None:
                    weight.sub_(STEP * weight.abs().mean() * weight.grad.sign())
    channels_last(in_eval_mode(module))
    with temporary_folder() as folder:
        save_module(module, folder / "model.safetensors")
        architecture.save(folder / "architecture.json")
        write_bytes(folder / "model.onnx", network_of(module, measured, "rehearsed").onnx())
        write_signed(folder / REFERENCE_RECORD, {"schema": REFERENCE_SCHEMA, **reference_hashes(folder)})
        confirm_stored(folder, module, data, images, shape=measured.image_shape)


def _parts(images: Images) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]


def stored_outputs(
    folder: Path, data: Data, images: Images, shape: Sequence[int] | None = None
) -> Iterator[tuple[list[list[Tensor]], list[list[Tensor]]]]:
    """What a stored network gives for images: the module that is loaded, and its graph with one image a run.

    Args:
        shape: (C, H, W) to which images are scaled; None leaves them as they are.

    Yields:
        Both outputs for each batch of images in order: the tensors of each image.

    Raises:
        HwnasError: it cannot be loaded or run.
    """
    shape = tuple(shape or data.image_shape)
    first = at_shape(data.plain_inputs(images, slice(1)), shape)
    question = _Question(
        folder=str(folder.absolute()),
        place=str(Path.cwd()),
        path=tuple(sys.path),
        environment=dict(os.environ),
        threads=torch.get_num_threads(),
        shape=tuple(first.shape[1:]),
        bytes_a_value=first.element_size(),
        sizes=tuple(len(range(len(images))[part]) for part in _parts(images)),
    )
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    try:
        message = json.dumps(encode(question)).encode() + b"\n"
        for part in _parts(images):
            batch = at_shape(data.plain_inputs(images, part), shape)
            with contextlib.suppress(BrokenPipeError):  # it has failed, and may have said why
                process.stdin.write(message + batch.contiguous().numpy().tobytes())
                process.stdin.flush()
            message = b""
            outputs = [_receive(process.stdout), _receive(process.stdout)]
            yield by_image(outputs[0], len(batch)), by_image(outputs[1], len(batch))
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


def _receive(stream: Any) -> list[Tensor]:
    line = stream.readline()
    if not line:
        raise BrokenPipeError
    header = json.loads(line)
    if "error" in header:
        raise HwnasError(*header["error"])
    outputs = []
    for shape in header["shapes"]:
        content = np.frombuffer(stream.read(4 * math.prod(shape)), np.float32)
        outputs.append(torch.from_numpy(content.reshape(shape).copy()))
    return outputs


def _send(stream: BinaryIO, outputs: Sequence[np.ndarray]) -> None:
    stream.write(json.dumps({"shapes": [output.shape for output in outputs]}).encode() + b"\n")
    for output in outputs:
        stream.write(np.ascontiguousarray(output, np.float32).tobytes())
    stream.flush()


def _answer(question: _Question, images: BinaryIO, answers: BinaryIO) -> None:
    """Load a network and run it on the images that follow."""
    os.environ.clear()
    os.environ.update(question.environment)
    os.chdir(question.place)
    sys.path[:] = question.path
    torch.set_num_threads(question.threads)
    folder = Path(question.folder)
    module = load_module(folder, allow_code=True)  # the parent has built it, and was allowed to
    spec = ArchitectureSpec.read(folder / "architecture.json")
    options = ort.SessionOptions()
    options.intra_op_num_threads = question.threads
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    mean, std = (np.array(each, np.float32).reshape(1, -1, 1, 1) for each in (spec.mean, spec.std))
    for size in question.sizes:
        shape = (size, *question.shape)
        content = images.read(math.prod(shape) * question.bytes_a_value)
        pixels = np.frombuffer(content, np.uint8 if question.bytes_a_value == 1 else np.float32)
        x = (pixels.reshape(shape).astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1) - mean) / std
        with torch.no_grad():
            _send(answers, [leaf.numpy() for leaf in tensors_of(module(torch.from_numpy(x)))])
        of_image = [session.run(None, {value.name: image[None]}) for image in x]
        _send(answers, [np.concatenate(each) for each in zip(*of_image, strict=True)])


def main() -> None:
    """Answer questions until the input ends, or one cannot be answered."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    questions = sys.stdin.buffer
    while line := questions.readline():
        try:
            _answer(decode(_Question, json.loads(line), "the question"), questions, answers)
        except Exception as error:
            cause, fix = (
                (error.cause, error.fix) if isinstance(error, HwnasError) else (first_line(error), FIX)
            )
            answers.write(json.dumps({"error": [cause, fix]}).encode() + b"\n")
            answers.flush()
            sys.exit(1)  # the images that are left are no question


if __name__ == "__main__":
    main()
