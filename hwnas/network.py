"""Network: parts in order, each a content hash, a torch module and an ONNX graph, all lazy."""

from __future__ import annotations

import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.agreement import disagreement
from hwnas.errors import NetworkFormError, first_line
from hwnas.files import sha256
from hwnas.global_state import log_level
from hwnas.onnx_decisions import require_no_decisions
from hwnas.onnx_file import check_model, read_model
from hwnas.onnx_join import INPUT_NAME, OUTPUT_NAME, Fragment, join, make_fragment
from hwnas.onnx_sizes import inputs_of, require_bytes, set_batch, set_sizes, shape_of
from hwnas.wiring import Wiring, chain

if TYPE_CHECKING:
    from typing import TypeVar

    import numpy as np
    from torch import Tensor, nn

    ModuleT = TypeVar("ModuleT", bound=nn.Module)

    from hwnas.measurement import Precision

OPSET = 17
LARGE = 10.0
"""Times the values of normalised images."""


class Part:
    """One piece of a network.

    Args:
        name: its place in the network (`stem`, `block1`, `head`).
        onnx: gives the part's ONNX model (float inputs, static shapes) serialised.
        module: gives a new torch module in eval mode; None where there is only a graph.
        rebatch: of a graph that somebody else made, gives its ONNX model for another batch.

    Attributes:
        is_foreign: whether somebody else made the graph: it may run for ever, or ask for any memory.
    """

    def __init__(
        self,
        name: str,
        *,
        onnx: Callable[[], bytes],
        module: Callable[[], nn.Module] | None = None,
        rebatch: Callable[[int], bytes] | None = None,
    ) -> None:
        self.name = name
        self.is_foreign = rebatch is not None
        self._onnx = onnx
        self._module = module
        self._rebatch = rebatch
        self._fragments: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Fragment] = {}

    @cached_property
    def onnx(self) -> bytes:
        """The part's own ONNX model, serialised."""
        return self._onnx()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the part's ONNX model: structure and weights."""
        return sha256(self.onnx)

    def module(self) -> nn.Module:
        """A new torch module in eval mode.

        Raises:
            NetworkFormError: the part came from an ONNX file.
        """
        if self._module is None:
            raise NetworkFormError(
                f"part {self.name!r} has an ONNX graph but no torch module",
                "give the network as a timm name, module:function or checkpoint",
            )
        return self._module()

    def rebatched(self, batch: int) -> Part | None:
        """A foreign part for another batch; None for any other.

        Raises:
            NetworkFormError: its file fixes the batch.
        """
        if self._rebatch is None:
            return None
        content = self._rebatch(batch)
        return Part(self.name, onnx=lambda: content, rebatch=self._rebatch)

    def fragment(self, position: int, reads: tuple[int, ...], gives: tuple[int, ...]) -> Fragment:
        """The part's graph, ready to be joined; see `make_fragment`. It is kept for reuse."""
        key = position, reads, gives
        if key not in self._fragments:
            self._fragments[key] = make_fragment(self.onnx, *key)
        return self._fragments[key]


class Network:
    """A network that can be handed to any device.

    Args:
        name: for people: the model's name, or the architecture's.
        parts: in the order of execution.
        calibration: images (N, C, H, W), float32, normalised, from which int8 ranges are taken.
        wiring: which values the parts read and give; None where each one's output is the next one's input.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        calibration: np.ndarray | None = None,
        wiring: Wiring | None = None,
    ) -> None:
        self._name = name
        self.parts = tuple(parts)
        self.wiring = wiring or chain(len(self.parts))
        self._calibration = calibration
        self._onnx: dict[Precision, bytes] = {}
        self._batch: int | None = None
        self._of_batch: dict[int, Network] = {}

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @property
    def calibration(self) -> np.ndarray | None:
        """Images (N, C, H, W), from which int8 ranges are taken."""
        return self._calibration

    def named(self, name: str) -> Network:
        """Return the same network by another name."""
        return self._like(name, self.calibration)

    def calibrated(self, images: np.ndarray) -> Network:
        """Return the same network with images (N, C, H, W), float32, from which int8 ranges are taken."""
        return self._like(self.name, images)

    def _like(self, name: str, calibration: np.ndarray | None) -> Network:
        network = Network(name, self.parts, calibration, self.wiring)
        network._batch = self._batch
        return network

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else made a part's graph: it may run for ever, or ask for any memory."""
        return any(part.is_foreign for part in self.parts)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the parts' hashes, and of the wiring where it is no chain."""
        hashes = "".join(part.hash for part in self.parts)
        wired = (
            "" if self.wiring.is_chain else repr((self.wiring.reads, self.wiring.gives, self.wiring.outputs))
        )
        return sha256((hashes + wired).encode())

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """(B, C, H, W) that the graph takes; of several inputs the first one's sizes, () for a number."""
        import onnx

        return shape_of(inputs_of(onnx.load_model_from_string(self.parts[0].onnx))[0])

    @property
    def batch_size(self) -> int:
        """Images a run; 1 for a file's graph whose first axis is not known to be a batch."""
        if self._batch is not None:
            return self._batch
        return self.input_shape[0] if len(self.input_shape) == 4 or not self.is_foreign else 1

    def batched(self, batch: int) -> Network:
        """This network with inputs (batch, C, H, W), exported again from its module; itself where it fits.

        Raises:
            NetworkFormError: it has no torch module, and its graph's batch is fixed; or so many images do not
                fit into memory.
        """
        if self.input_shape[:1] == (batch,):
            self._batch = batch
            return self
        if batch not in self._of_batch:
            made = self._rebatched(batch)
            self._of_batch[batch] = made._like(made.name, self.calibration)
        return self._of_batch[batch]

    def _rebatched(self, batch: int) -> Network:
        part = self.parts[0].rebatched(batch) if len(self.parts) == 1 else None
        if part is not None:
            network = Network(self.name, [part])
            network._batch = batch
            return network
        shape = (batch, *self.input_shape[1:])
        require_bytes(f"{batch} images of {self.name}", 4 * math.prod(shape))
        return Network.from_module(self.name, self.module(), shape)

    def module(self) -> nn.Module:
        """The network as a new torch module in eval mode, its parts by name.

        Raises:
            NetworkFormError: a part has no torch module.
        """
        from hwnas.composed import Composed

        named: dict[str, nn.Module] = {}
        for number, part in enumerate(self.parts):
            name = part.name.replace(".", "_")  # torch takes no dots
            named[f"{name}_{number}" if name in named else name] = part.module()
        return in_eval_mode(Composed(named, self.wiring))

    def onnx(self, precision: Precision = "fp32") -> bytes:
        """The whole graph, serialised; fp16 keeps float32 inputs and outputs, int8 is static QDQ.

        Raises:
            NetworkFormError: int8 without calibration images, bf16, or a conversion that failed.
        """
        if precision not in self._onnx:
            self._onnx[precision] = self._convert(precision)
        return self._onnx[precision]

    def _convert(self, precision: Precision) -> bytes:
        from hwnas import precision as conversion

        if precision == "fp32":
            if len(self.parts) == 1:
                return self.parts[0].onnx
            wired = zip(self.parts, self.wiring.reads, self.wiring.gives, strict=True)
            fragments = [part.fragment(n, reads, gives) for n, (part, reads, gives) in enumerate(wired)]
            return join(fragments, self.wiring.outputs)
        if precision == "fp16":
            return conversion.to_fp16(self.onnx())
        if precision == "bf16":
            raise NetworkFormError(
                f"{self.name}: there is no ONNX form in bf16", "use a profile with fp16, or a torch runtime"
            )
        return self.int8()

    def int8(self, *, symmetric: bool = False) -> bytes:
        """The whole graph in static QDQ; `symmetric` as TensorRT wants it.

        Raises:
            NetworkFormError: there are no calibration images, or a conversion that failed.
        """
        from hwnas import precision as conversion

        if self.calibration is None and self.is_foreign:
            raise NetworkFormError(
                f"{self.name}: int8 is calibrated with images, and its input is none: {self.input_shape}",
                "measure it in fp32 or fp16",
            )
        if self.calibration is None:
            raise NetworkFormError(
                f"{self.name}: int8 needs calibration images",
                "give the data, for example --data digits",
            )
        convert = conversion.to_int8_apart if self.is_foreign else conversion.to_int8
        return convert(self.onnx(), self.calibration, symmetric=symmetric)

    @staticmethod
    def from_module(name: str, module: nn.Module, *input_shapes: Sequence[int]) -> Network:
        """A network of one part, exported when its graph is first asked for.

        Args:
            input_shapes: of each input, (B, C, H, W) of images.
        """
        from copy import deepcopy

        module = in_eval_mode(module)
        part = Part(
            name,
            onnx=lambda: export_onnx(module, *input_shapes),
            module=lambda: in_eval_mode(deepcopy(module)),
        )
        return Network(name, [part])

    @staticmethod
    def from_onnx(path: Path, shape: Sequence[int] | None = None, *, has_batch: bool = False) -> Network:
        """A network of one part without a torch module, read from an ONNX file.

        An open first axis becomes 1 where it is that of a batch of images; no other one is guessed.

        Args:
            shape: sizes of the input, with or without the first one, where the file leaves them open.
            has_batch: the first axis of the inputs is a batch.

        Raises:
            InputError: unreadable, not a valid ONNX model, no input, sizes that are open or fixed to others,
                external data outside of the file's own folder, or a branch or loop that depends on the
                inputs' values.
            NetworkFormError: inputs that are too large for this machine.
        """
        import onnx

        model = read_model(path)
        batches = set_sizes(path, model, shape, has_batch=has_batch)
        check_model(path, model)
        require_no_decisions(path, model)
        content = bytes(model.SerializeToString())

        def rebatch(batch: int) -> bytes:
            again = onnx.load_model_from_string(content)
            set_batch(str(path), again, batch, batches)
            return bytes(again.SerializeToString())

        return Network(path.stem, [Part(path.stem, onnx=lambda: content, rebatch=rebatch)])


def in_eval_mode(module: ModuleT) -> ModuleT:
    """Put a module into eval mode and return it; a `train()` of the user's own may return nothing."""
    module.eval()
    return module


def random_input(input_shape: Sequence[int]) -> Tensor:
    """Draw the input by which networks are tried: standard normal values, the same at every call.

    Args:
        input_shape: (B, C, H, W), or that of any other tensor.
    """
    import torch

    return torch.randn(*input_shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Let torch's attention layers compute by matrix products, not by one kernel that nothing else knows.

    Neither the exporter nor torch's counter of operations knows that kernel, which is used in eval mode
    (`torch.nn.MultiheadAttention`, section "Fast path").
    """
    import torch

    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def export_onnx(module: nn.Module, *input_shapes: Sequence[int], name: str = "") -> bytes:
    """Export a torch module in eval mode with static shapes; batch normalisation is folded into weights.

    The TorchScript exporter is used: it takes a tenth of the time of the dynamo exporter. It follows one
    forward pass, and does not see everything that torch does; so the graph is run by ONNX Runtime and
    compared with the module.

    Args:
        input_shapes: of each input, the batch included. Several are called `input.0`, `input.1`, … in the
            graph; one of which only the size is read is not in it.
        name: of the module, for messages; its class where none is given.

    Raises:
        NetworkFormError: the module cannot be exported, the cause is the exporter's first line; or the graph
            computes something else.
    """
    import torch

    buffer = io.BytesIO()
    module = in_eval_mode(module)
    noises = [random_input((4, *shape)) for shape in input_shapes]
    # Large and positive values too: a limit or a root does nothing, or nothing else, on small noise.
    of_input = [(*noise[:2], *(LARGE * noise[2:].abs())) for noise in noises]
    inputs = list(zip(*of_input, strict=True))
    several = len(input_shapes) > 1
    input_names = [f"{INPUT_NAME}.{n}" if several else INPUT_NAME for n in range(len(input_shapes))]
    name = name or type(module).__name__
    quiet = log_level("torch.onnx", logging.ERROR)
    with quiet, warnings.catch_warnings(), _silent(), torch.no_grad(), plain_attention():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                tuple(x.clone() for x in inputs[0]),
                buffer,  # type: ignore[arg-type]  # the TorchScript exporter writes into files as well
                input_names=input_names,
                output_names=[OUTPUT_NAME],
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:
            reason = first_line(error)
            raise NetworkFormError(
                f"{name} cannot be exported to ONNX: {reason}",
                "replace the operation that the exporter names",
            ) from error
    with torch.no_grad():
        expected = [module(*(x.clone() for x in each)) for each in inputs]
    content = buffer.getvalue()
    _require_same(name, content, [dict(zip(input_names, each, strict=True)) for each in inputs], expected)
    return content


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the exporter's C++ prints off the standard output, which is for results."""
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _require_same(
    name: str, content: bytes, inputs: Sequence[Mapping[str, Tensor]], expected: Sequence[object]
) -> None:
    """Refuse a graph that ONNX Runtime cannot run, or that computes something else than its module."""
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        found = [
            [torch.from_numpy(output) for output in session.run(None, {key: x[key].numpy() for key in names})]
            for x in inputs
        ]
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        raise NetworkFormError(
            f"{name} was exported to a graph that ONNX Runtime cannot run: {first_line(error)}",
            "replace the operation that it names",
        ) from error
    apart = max(disagreement(expected[:2], found[:2]), disagreement(expected[2:], found[2:]))
    if apart:
        raise NetworkFormError(
            f"{name} was exported to a graph that computes something else: its output differs by {apart:.2%}",
            "write it without changing in place what a view of it is read from later (y = y * 2 for "
            "y.mul_(2)), and without values that change from call to call",
        )
