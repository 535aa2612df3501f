"""Lower-precision forms of an ONNX graph, made with ONNX Runtime's own tools."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas import processes
from hwnas.errors import NetworkFormError, first_line
from hwnas.global_state import log_level
from hwnas.onnx_sizes import inputs_of, shape_of
from hwnas.temporary import temporary_folder

if TYPE_CHECKING:
    import numpy as np
    import onnx

DEADLINE_S = 300.0
OPSET = 13  # the first in which QuantizeLinear has an axis
FLOAT32 = "use a profile with fp32"
DONE = b"int8:"  # how the answer of a process begins that has converted a graph


def to_fp16(content: bytes) -> bytes:
    """Weights and operators in float16; the graph's inputs and outputs stay float32.

    Raises:
        NetworkFormError: an operator could not be converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _explained("fp16"):
        model = convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True)
        return bytes(model.SerializeToString())


def to_int8(content: bytes, images: np.ndarray, *, symmetric: bool = False) -> bytes:
    """Static QDQ quantisation: int8 weights per channel, uint8 activations.

    Args:
        images: (N, C, H, W), float32, normalised; their ranges calibrate the activations. Too few for one
            batch of the graph are repeated.
        symmetric: int8 activations with zero points of 0, and biases in float, as TensorRT wants them.

    Raises:
        NetworkFormError: an operator could not be converted, the graph is of an old opset, or takes
            anything but such images.
    """
    import numpy as np
    import onnx
    from onnxruntime import quantization

    model = onnx.load_model_from_string(content)
    opset = next((known.version for known in model.opset_import if known.domain in ("", "ai.onnx")), OPSET)
    if opset < OPSET:
        raise NetworkFormError(
            f"int8 per channel needs opset {OPSET}, and the graph is of opset {opset}",
            f"export it for opset {OPSET} or a newer one, or use a profile with fp32",
        )
    name, batch = _image_input(model, images.shape[1:])
    images = np.resize(images, (max(batch, len(images)), *images.shape[1:]))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            last = len(images) - batch
            self.batches = ({name: images[start : start + batch]} for start in range(0, last + 1, batch))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with temporary_folder() as folder, _libraries_in(folder), _explained("int8"):
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quantization.shape_inference.quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"ActivationSymmetric": symmetric, "QuantizeBias": not symmetric},
        )
        return quantized.read_bytes()


def to_int8_apart(content: bytes, images: np.ndarray, *, symmetric: bool = False) -> bytes:
    """The same in a process of its own, since calibration runs a graph that may never end.

    Raises:
        NetworkFormError: it could not be converted, or not in `DEADLINE_S`.
    """
    header = {"bytes": len(content), "shape": images.shape, "symmetric": symmetric}
    question = json.dumps(header).encode() + b"\n" + content + images.astype("float32").tobytes()
    try:
        answer = processes.ask(__name__, question, DEADLINE_S)
    except TimeoutError:
        raise NetworkFormError(
            f"calibration for int8 took longer than {DEADLINE_S:g} s and was ended", FLOAT32
        ) from None
    if not answer.startswith(DONE):
        reason = answer.decode(errors="replace") or "its process ended, maybe for want of memory"
        raise NetworkFormError(reason, FLOAT32)
    return answer.removeprefix(DONE)


def _image_input(model: onnx.ModelProto, image_shape: Sequence[int]) -> tuple[str, int]:
    """The input that takes the images, and how many at once."""
    import onnx

    inputs = inputs_of(model)
    (value, *more) = inputs
    is_float = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if more or not is_float or shape_of(value)[1:] != tuple(image_shape):
        kinds = onnx.TensorProto.DataType
        found = ", ".join(
            f"{value.name} {kinds.Name(value.type.tensor_type.elem_type).lower()} {shape_of(value)}"
            for value in inputs
        )
        raise NetworkFormError(
            f"int8 is calibrated with images as the one float input, and the graph takes {found}", FLOAT32
        )
    return str(value.name), shape_of(value)[0]


@contextlib.contextmanager
def _libraries_in(folder: Path) -> Iterator[None]:
    """The quantizer's own temporary files go into a folder that is removed whatever happens."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _explained(precision: str) -> Iterator[None]:
    quantizer = log_level("onnxruntime.quantization", logging.CRITICAL)
    # It warns on the root logger of every layer normalisation, which has no channels of its own.
    root = log_level("", logging.CRITICAL)
    try:
        with quantizer, root, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = first_line(error)
        raise NetworkFormError(
            f"the network could not be converted to {precision}: {reason}", FLOAT32
        ) from error


def main() -> None:
    """Convert the graph that comes in to int8; the answer is the graph, or the reason why there is none."""
    import numpy as np

    processes.confine(processes.usable_memory_bytes())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    header = json.loads(sys.stdin.buffer.readline())
    content = sys.stdin.buffer.read(header["bytes"])
    images = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(header["shape"])
    try:
        answers.write(DONE + to_int8(content, images, symmetric=header["symmetric"]))
    except NetworkFormError as error:
        answers.write(error.cause.encode())
    answers.flush()


if __name__ == "__main__":
    main()
