"""Network: an ordered tuple of parts, each a content hash, a torch module and an ONNX graph, all lazy.

A stitched graph is never exported: the parts' protobufs are joined. A protobuf message is the merge of its
concatenated serialisations, so joining graphs whose names are already disjoint is joining bytes.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.agreement import disagreement
from hwnas.errors import InputError, NetworkFormError, first_line
from hwnas.files import read_bytes, sha256

if TYPE_CHECKING:
    from typing import TypeVar

    import numpy as np
    import onnx
    from torch import Tensor, nn

    ModuleT = TypeVar("ModuleT", bound=nn.Module)

    from hwnas.measurement import Precision

OPSET = 17
INPUT_NAME, OUTPUT_NAME = "input", "output"


class Part:
    """One piece of a network.

    Args:
        name: its place in the network (`stem`, `block1`, `head`).
        onnx: gives the part's ONNX model (one float input, one output, static shapes) serialised.
        module: gives a new torch module in eval mode; None where there is only a graph.
    """

    def __init__(
        self, name: str, *, onnx: Callable[[], bytes], module: Callable[[], nn.Module] | None = None
    ) -> None:
        self.name = name
        self._onnx = onnx
        self._module = module
        self._fragments: dict[int, _Fragment] = {}

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

    def fragment(self, position: int) -> _Fragment:
        """The part's graph, its names made unique to `position`, ready to be joined; kept for reuse."""
        if position not in self._fragments:
            self._fragments[position] = _make_fragment(self.onnx, position)
        return self._fragments[position]


class Network:
    """A network that can be handed to any device.

    Args:
        name: for people: the model's name, or the architecture's.
        parts: in the order of execution; each one's output is the next one's input.
        calibration: images (N, C, H, W), float32, normalised, from which int8 ranges are taken.
    """

    def __init__(self, name: str, parts: Sequence[Part], calibration: np.ndarray | None = None) -> None:
        self.name = name
        self.parts = tuple(parts)
        self.calibration = calibration
        self._onnx: dict[Precision, bytes] = {}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the parts' hashes."""
        return sha256("".join(part.hash for part in self.parts).encode())

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """(B, C, H, W) that the graph takes."""
        import onnx

        graph = onnx.load_model_from_string(self.parts[0].onnx).graph
        weights = {tensor.name for tensor in graph.initializer}
        value = next(value for value in graph.input if value.name not in weights)
        return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)

    def batched(self, batch: int) -> Network:
        """This network with inputs (batch, C, H, W), exported again from its module; itself where it fits.

        Raises:
            NetworkFormError: it has no torch module, so its graph's batch cannot be changed.
        """
        if batch == self.input_shape[0]:
            return self
        network = Network.from_module(self.name, self.module(), (batch, *self.input_shape[1:]))
        network.calibration = self.calibration
        return network

    def module(self) -> nn.Sequential:
        """The network as a new torch module in eval mode, its parts by name.

        Raises:
            NetworkFormError: a part has no torch module.
        """
        from collections import OrderedDict

        from torch import nn

        named = ((part.name.replace(".", "_"), part.module()) for part in self.parts)  # torch takes no dots
        return in_eval_mode(nn.Sequential(OrderedDict(named)))

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
            return self.parts[0].onnx if len(self.parts) == 1 else stitch(self.parts)
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
        from hwnas.precision import to_int8

        if self.calibration is None:
            raise NetworkFormError(
                f"{self.name}: int8 needs calibration images",
                "give the data, for example --data digits",
            )
        return to_int8(self.onnx(), self.calibration, symmetric=symmetric)

    @staticmethod
    def from_module(name: str, module: nn.Module, input_shape: Sequence[int]) -> Network:
        """A network of one part, exported when its graph is first asked for.

        Args:
            input_shape: (B, C, H, W).
        """
        from copy import deepcopy

        module = in_eval_mode(module)
        part = Part(
            name,
            onnx=lambda: export_onnx(module, input_shape),
            module=lambda: in_eval_mode(deepcopy(module)),
        )
        return Network(name, [part])

    @staticmethod
    def from_onnx(path: Path) -> Network:
        """A network of one part without a torch module, read from an ONNX file.

        A batch dimension that is left open becomes 1.

        Raises:
            InputError: unreadable, not a valid ONNX model, an open dimension that is not the batch,
                or external data outside of the file's own folder.
        """
        content = _read_onnx(path)
        return Network(path.stem, [Part(path.stem, onnx=lambda: content)])


class _Fragment:
    """Serialised pieces of a part's graph: everything but its input and output, and these two."""

    def __init__(self, body: bytes, input_info: bytes, output_info: bytes, opsets: Mapping[str, int]) -> None:
        self.body = body
        self.input_info = input_info
        self.output_info = output_info
        self.opsets = opsets


def stitch(parts: Sequence[Part]) -> bytes:
    """Join the parts' graphs into one ONNX model, without exporting or parsing anything again."""
    import onnx

    fragments = [part.fragment(position) for position, part in enumerate(parts)]
    opsets = {domain: version for fragment in fragments for domain, version in fragment.opsets.items()}
    model = onnx.ModelProto(ir_version=8, producer_name="hwnas")
    for domain, version in sorted(opsets.items()):
        model.opset_import.add(domain=domain, version=version)
    ends = onnx.GraphProto(name="hwnas")
    last = f"{OUTPUT_NAME}.{len(parts) - 1}"
    ends.node.add(op_type="Identity", input=[last], output=[OUTPUT_NAME])
    ends.input.add().ParseFromString(fragments[0].input_info)
    ends.output.add().ParseFromString(fragments[-1].output_info)
    ends.input[0].name, ends.output[0].name = INPUT_NAME, OUTPUT_NAME
    graph = b"".join([*(fragment.body for fragment in fragments), ends.SerializeToString()])
    return bytes(model.SerializeToString()) + _field(_GRAPH_FIELD, graph)


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


def export_onnx(module: nn.Module, input_shape: Sequence[int], name: str = "") -> bytes:
    """Export a torch module in eval mode with static shapes; batch normalisation is folded into weights.

    The TorchScript exporter is used: it takes a tenth of the time of the dynamo exporter. It follows one
    forward pass, and does not see everything that torch does; so the graph is run by ONNX Runtime and
    compared with the module.

    Args:
        name: of the module, for messages; its class where none is given.

    Raises:
        NetworkFormError: the module cannot be exported, the cause is the exporter's first line; or the graph
            computes something else.
    """
    import torch

    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    module, inputs = in_eval_mode(module), random_input((2, *input_shape)).unbind()
    name = name or type(module).__name__
    with warnings.catch_warnings(), _silent(), torch.no_grad(), plain_attention():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                (inputs[0].clone(),),
                buffer,  # type: ignore[arg-type]  # the TorchScript exporter writes into files as well
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=OPSET,
                dynamo=False,
            )
            expected = [module(x.clone()) for x in inputs]
        except Exception as error:
            reason = first_line(error)
            raise NetworkFormError(
                f"{name} cannot be exported to ONNX: {reason}",
                "replace the operation that the exporter names",
            ) from error
    content = buffer.getvalue()
    _require_same(name, content, inputs, expected)
    return content


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the exporter's C++ prints off the standard output, which is for results."""
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


def _require_same(name: str, content: bytes, inputs: Sequence[Tensor], expected: Sequence[object]) -> None:
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
            [torch.from_numpy(output) for output in session.run(None, dict.fromkeys(names, x.numpy()))]
            for x in inputs
        ]
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        raise NetworkFormError(
            f"{name} was exported to a graph that ONNX Runtime cannot run: {first_line(error)}",
            "replace the operation that it names",
        ) from error
    apart = disagreement(expected, found)
    if apart:
        raise NetworkFormError(
            f"{name} was exported to a graph that computes something else: its output differs by {apart:.2%}",
            "write it without changing in place what a view of it is read from later (y = y * 2 for "
            "y.mul_(2)), and without values that change from call to call",
        )


def operators_of(content: bytes) -> tuple[str, ...]:
    """The kinds of operators in an ONNX model, subgraphs included, sorted."""
    import onnx

    def kinds(graph: onnx.GraphProto) -> set[str]:
        found = {node.op_type for node in graph.node}
        for node in graph.node:
            for attribute in node.attribute:
                found.update(*(kinds(inner) for inner in (attribute.g, *attribute.graphs)))
        return found

    return tuple(sorted(kinds(onnx.load_model_from_string(content).graph)))


def has_external_data(content: bytes) -> bool:
    """Whether a serialised ONNX model keeps weights in other files; what is no model does not."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import uses_external_data

    def uses(graph: onnx.GraphProto) -> bool:
        tensors = [*graph.initializer]
        inner = []
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            tensors += [attribute.t, *attribute.tensors]
            inner += [attribute.g, *attribute.graphs]
        return any(map(uses_external_data, tensors)) or any(map(uses, inner))

    try:
        return uses(onnx.load_model_from_string(content).graph)
    except DecodeError:
        return False


_GRAPH_FIELD = 7  # ModelProto.graph


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field: tag, varint length, payload."""
    length, varint = len(payload), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *varint, length]) + payload


def _make_fragment(content: bytes, position: int) -> _Fragment:
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise NetworkFormError(
            f"a part to be stitched has {len(inputs)} inputs and {len(graph.output)} outputs, not one each",
            "cut the network where one tensor passes",
        )
    names = {inputs[0].name: f"{OUTPUT_NAME}.{position - 1}" if position else INPUT_NAME}
    names[graph.output[0].name] = f"{OUTPUT_NAME}.{position}"
    body = onnx.GraphProto()
    body.node.extend(graph.node)
    body.initializer.extend(graph.initializer)
    body.value_info.extend(graph.value_info)
    _rename(body, names, f"{position}/")
    return _Fragment(
        body.SerializeToString(),
        inputs[0].SerializeToString(),
        graph.output[0].SerializeToString(),
        {opset.domain: opset.version for opset in model.opset_import},
    )


def _rename(graph: onnx.GraphProto, names: Mapping[str, str], prefix: str) -> None:
    """Rename every value and node of a graph, subgraphs included; an empty name is an absent input."""

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else name

    for value in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        value.name = new(value.name)
    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename(subgraph, names, prefix)


def _read_onnx(path: Path) -> bytes:
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(path)
    fix = "export the model again, or give another file"
    try:
        model = onnx.load_model_from_string(content)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{path} is not a usable ONNX model: {reason}", fix) from None
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if value.name in weights or dimension.dim_value > 0:
                continue
            if axis:
                raise InputError(
                    f"{path}: axis {axis} of input {value.name!r} has no fixed size",
                    "export the model with a fixed input size",
                )
            dimension.dim_value = 1
    return bytes(model.SerializeToString())
