"""What the layer builder needs to know about an ONNX graph's tensors: shapes and small constants."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from hwnas.devices.simulator.onnx.attributes import SMALLER, label, not_taken
from hwnas.devices.simulator.onnx.operators import has_body, inlined, is_known, read_by
from hwnas.errors import InputError

Shape = tuple[int, ...]

# Constants larger than this are weights; their values are never needed, only their shapes.
SMALL = 4096
# Their results are no larger than their inputs; shapes are known only from values, or have a size of zero.
SELECTING = frozenset(["NonZero", "Compress", "Unique", "Slice"])
# Numbers of one tensor beyond this are no network's.
LARGEST_TENSOR = 1 << 34


def load_model(model: onnx.ModelProto | Path | str | bytes) -> onnx.ModelProto:
    """An ONNX model from a file, bytes or an object, with inferred shapes.

    Raises:
        InputError: the file cannot be read as ONNX.
    """
    try:
        if isinstance(model, (str, Path)):
            model = onnx.load(str(model), load_external_data=False)
        elif isinstance(model, bytes):
            model = onnx.load_from_string(model)
    except Exception as error:  # protobuf raises its own, undocumented classes
        raise InputError(
            f"{model!s:.200} cannot be read as an ONNX model: {error}", "give the path of an .onnx file"
        ) from error
    try:
        inferred = _inferred(inlined(model))
        # Known shapes make further ones known; each round leaves fewer nodes or unknown shapes, so it ends.
        while (changed := _folded(inferred) or _assumed(inferred)) is not None:
            inferred = _inferred(changed)
        return inferred
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the shapes of the ONNX graph cannot be inferred: {error}",
            "check the model with onnx.checker.check_model(path, full_check=True)",
        ) from error


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes that follow from those it states.

    Values of constants are propagated by _folded, which bounds them; ONNX's own propagation writes out a
    Range of 10^12.

    Raises:
        InputError: a tensor is larger than any network's.
    """
    inferred = shape_inference.infer_shapes(model, strict_mode=False)
    tensors = Tensors(inferred.graph)
    for node in inferred.graph.node:
        tensors.check_size(node)
    return inferred


def _folded(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with its shape arithmetic replaced by constants, or None where all shapes are known already.

    Some exporters compute shapes with operators that shape inference does not follow; once they are
    constants it gets further.
    """
    tensors = Tensors(model.graph)
    if all(o in tensors.shapes for node in model.graph.node for o in node.output if o):
        return None
    kept = [
        node
        for node in model.graph.node
        if not tensors.absorb(node) or any(o not in tensors.values for o in node.output)
    ]
    if len(kept) == len(model.graph.node):
        return None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(kept)
    # What was inferred in part would stay so.
    settled = [
        i for i in model.graph.value_info if all(d.dim_value > 0 for d in i.type.tensor_type.shape.dim)
    ]
    del result.graph.value_info[:]
    result.graph.value_info.extend(settled)
    have = {t.name for t in model.graph.initializer}
    needed = {i for node in kept for i in read_by(node)} - have
    for name in sorted(needed & set(tensors.values)):
        result.graph.initializer.append(numpy_helper.from_array(np.asarray(tensors.values[name]), name))
    return result


def _assumed(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with the first unknown operator's outputs given its input's shape, or None.

    Shape inference stops at an operator that ONNX does not define.
    """
    shapes = Tensors(model.graph).shapes
    for node in model.graph.node:
        missing = [o for o in node.output if o and o not in shapes]
        known = next((shapes[i] for i in node.input if i in shapes), None)
        if missing and known is not None and not onnx.defs.has(node.op_type, node.domain):
            result = onnx.ModelProto()
            result.CopyFrom(model)
            result.graph.value_info.extend(
                helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, known) for o in missing
            )
            return result
    return None


class Tensors:
    """Shapes and small constants of a graph; folds the arithmetic that exporters put around shapes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.shapes: dict[str, Shape] = {}
        self.values: dict[str, NDArray[np.generic]] = {}
        self.static: set[str] = {""}
        for tensor in graph.initializer:
            self.static.add(tensor.name)
            self.shapes[tensor.name] = tuple(tensor.dims)
            if prod(tensor.dims) <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
                self.values[tensor.name] = numpy_helper.to_array(tensor)
        for info in [*graph.input, *graph.value_info, *graph.output]:
            kind = info.type.tensor_type
            if kind.HasField("shape") and info.name not in self.shapes:
                dims = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
                if all(d > 0 for d in dims):
                    self.shapes[info.name] = tuple(dims)

    def shape(self, name: str, node: onnx.NodeProto) -> Shape:
        """Shape of a tensor; an error names the node that needs it."""
        if name not in self.shapes:
            raise InputError(
                f"{label(node)}: the shape of tensor {name} is not static",
                "export the model with fixed input shapes (no dynamic axes)",
            )
        return self.shapes[name]

    def constant(self, name: str) -> list[int] | None:
        """Integers of a small constant, or None."""
        value = self.values.get(name)
        return None if value is None else [int(v) for v in value.reshape(-1)]

    def check_size(self, node: onnx.NodeProto) -> None:
        """Refuse a node that makes a tensor larger than any network's. Raises InputError."""
        for name in (*node.input, *node.output):
            elements = prod(self.shapes.get(name, ()))
            if elements > LARGEST_TENSOR:
                raise not_taken(
                    node,
                    f"has the tensor {name} of {elements:,} numbers; "
                    f"the simulator takes {LARGEST_TENSOR:,} at most",
                    SMALLER,
                )

    def absorb(self, node: onnx.NodeProto) -> bool:
        """Whether a node only computes constants or shapes; remembers its outputs if so."""
        if not is_known(node):
            return False
        if node.op_type == "Constant":
            value = _attribute_value(node)
            if value is not None:
                self.values[node.output[0]] = value
                self.shapes[node.output[0]] = value.shape
        elif node.op_type == "Shape" and node.input[0] in self.shapes:
            shape = self.shapes[node.input[0]]
            start = next((a.i for a in node.attribute if a.name == "start"), 0)
            end = next((a.i for a in node.attribute if a.name == "end"), len(shape))
            self.values[node.output[0]] = np.array(shape[start:end], dtype=np.int64)
        elif all(i in self.static for i in read_by(node)):
            self._fold(node)
        else:
            return False
        self.static.update(node.output)
        return True

    def _fold(self, node: onnx.NodeProto) -> None:
        """Compute a node on small constants with ONNX's own reference implementation."""
        names = [i for i in node.input if i]
        if all(n in self.values for n in names) and not has_body(node):
            found = _computed(node, {n: self.values[n] for n in names})
            for name, value in found.items():
                self.values[name], self.shapes[name] = value, value.shape
        elif node.input and node.input[0] in self.shapes and node.output[0] not in self.shapes:
            self.shapes[node.output[0]] = self.shapes[node.input[0]]


def _computed(node: onnx.NodeProto, given: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Outputs of a node on constants; none where they are large, or cannot be computed.

    A constant that cannot be folded is still a constant; only its value stays unknown.

    Raises:
        InputError: an output is larger than any network's.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        graph = helper.make_graph(
            [node],
            "fold",
            [],
            [helper.make_tensor_value_info(o, onnx.TensorProto.UNDEFINED, None) for o in node.output],
            [numpy_helper.from_array(value, name) for name, value in given.items()],
        )
        model = helper.make_model(graph)
        inferred = Tensors(shape_inference.infer_shapes(model).graph)
    except Exception:
        return {}
    inferred.check_size(node)
    # What is computed is as large as its shape says; only few operators have one that depends on values.
    sizes = [prod(inferred.shapes[o]) if o in inferred.shapes else None for o in node.output]
    if any(s > SMALL if s is not None else node.op_type not in SELECTING for s in sizes):
        return {}
    try:
        found = ReferenceEvaluator(model).run(None, {})
    except Exception:
        return {}
    return {name: np.asarray(value) for name, value in zip(node.output, found, strict=False)}


def _attribute_value(node: onnx.NodeProto) -> NDArray[np.generic] | None:
    for a in node.attribute:
        if a.name == "value":
            return numpy_helper.to_array(a.t) if prod(a.t.dims) <= SMALL else None
        if a.name in ("value_int", "value_ints"):
            return np.array(a.i if a.name == "value_int" else list(a.ints), dtype=np.int64)
        if a.name in ("value_float", "value_floats"):
            return np.array(a.f if a.name == "value_float" else list(a.floats), dtype=np.float32)
    return None
