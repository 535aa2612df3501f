"""Lower-precision forms of an ONNX graph, made with ONNX Runtime's own tools."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import NetworkFormError, first_line
from hwnas.temporary import temporary_folder

if TYPE_CHECKING:
    import numpy as np


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
        NetworkFormError: an operator could not be converted.
    """
    import numpy as np
    import onnx
    from onnxruntime import quantization

    model = onnx.load_model_from_string(content)
    name = model.graph.input[0].name
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
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
    logging.getLogger("onnxruntime.quantization").setLevel(logging.CRITICAL)
    # The quantizer warns on the root logger of every layer normalisation, which has no channels of its own.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = first_line(error)
        raise NetworkFormError(
            f"the network could not be converted to {precision}: {reason}", "use a profile with fp32"
        ) from error
    finally:
        root.setLevel(level)
