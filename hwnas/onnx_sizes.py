"""Sizes of an ONNX model's inputs: those left open are set as the user says, never guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InputError, NetworkFormError
from hwnas.processes import usable_memory_bytes

if TYPE_CHECKING:
    import onnx

IMAGES = 4  # axes of a batch of images
COPIES = 4
"""Of the inputs, which a measurement makes: numbers, their cast, what is fed, what calibrates."""

SEQUENCE = re.compile(r"seq|len|time|tok|step|frame|word|^[stl]$", re.IGNORECASE)
EXPORT = "export the model with one input of fixed sizes"


@dataclass
class Axes:
    """An input and its sizes; a name (maybe empty) stands for one that is open."""

    value: onnx.ValueInfoProto
    sizes: list[int | str]

    @property
    def name(self) -> str:
        return str(self.value.name)

    @property
    def is_open(self) -> bool:
        return any(isinstance(size, str) for size in self.sizes)

    def __str__(self) -> str:
        return "x".join(str(size or "?") for size in self.sizes)


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What has to be fed: a graph's inputs without its weights, which older files list as well."""
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in weights]


def set_sizes(
    path: Path, model: onnx.ModelProto, shape: Sequence[int] | None = None, *, has_batch: bool = False
) -> list[str]:
    """Set every open size of a model's inputs.

    An open first axis becomes 1 where it is that of a batch of images: the input has four axes, and no other
    one is open; or where the user says so.

    Args:
        shape: sizes of all axes, or of all but the first one, of the inputs that leave some open.
        has_batch: the user has said that the first axis is a batch.

    Returns:
        The inputs whose first axis is a batch, to be set to others with `set_batch`.

    Raises:
        InputError: there is no input, or one that is no tensor of numbers; a size that is none, is still
            open, or is fixed to another than is asked for.
        NetworkFormError: they take more than this machine's memory holds.
    """
    values = inputs_of(model)
    if not values:
        defaults = ", ".join(value.name for value in model.graph.input)
        why = f": {defaults} have values of their own" if defaults else ""
        raise InputError(
            f"{path} has no input{why}, so that a runtime may compute its outputs once while it loads",
            "export the model with what changes, the image, as an input without a value",
        )
    inputs = [Axes(value, _sizes(path, value, shape)) for value in values]
    if shape is not None:
        _apply_shape(path, inputs, shape)
    batches = [axes.name for axes in inputs if _has_open_batch(axes, has_batch)]
    for axes in inputs:
        if axes.name in batches:
            axes.sizes[0] = 1
    _spread_names(inputs, batches)
    for axes in inputs:
        _require_closed(path, axes)
        for dimension, size in zip(axes.value.type.tensor_type.shape.dim, axes.sizes, strict=True):
            dimension.dim_value = size
    require_memory(str(path), model)
    return batches


def set_batch(name: str, model: onnx.ModelProto, batch: int, inputs: Sequence[str]) -> None:
    """Set the first axis of some inputs.

    Raises:
        NetworkFormError: there are none of which it could be set, or they take more memory than there is.
    """
    if not inputs:
        fixed = ", ".join(f"{value.name!r} {shape_of(value)}" for value in inputs_of(model))
        raise NetworkFormError(
            f"{name} cannot take a batch of {batch}: its file fixes all sizes of its inputs ({fixed})",
            "export it with an open first axis, or measure it as it is" + _own_batch(model),
        )
    for value in model.graph.input:
        if value.name in inputs:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    require_memory(name, model)


def _own_batch(model: onnx.ModelProto) -> str:
    first = shape_of(inputs_of(model)[0])
    return f": --batch {first[0]}" if first else ""


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sizes of an input; 0 for one that is open."""
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def require_memory(name: str, model: onnx.ModelProto) -> None:
    """Refuse inputs that this machine's memory does not hold, before anything is allocated.

    Raises:
        NetworkFormError: with how much they take and how much there is.
    """
    import onnx

    needed = 0
    for value in inputs_of(model):
        width = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
        needed += math.prod(shape_of(value)) * width
    require_bytes(f"the inputs of {name}", needed)


def require_bytes(what: str, needed: int) -> None:
    """Raise NetworkFormError for inputs of so many bytes, where they are more than memory holds."""
    there = usable_memory_bytes()
    if COPIES * needed > there:
        raise NetworkFormError(
            f"{what} take {_gib(needed)}, and hwnas needs {COPIES} times that; "
            f"{_gib(there)} of this machine's memory are free",
            "give smaller sizes: --input-shape, --batch",
        )


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count < 2**60 else f"2^{math.log2(count):.0f} bytes"


def _sizes(path: Path, value: onnx.ValueInfoProto, shape: Sequence[int] | None) -> list[int | str]:
    import onnx

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = "no type" if kind is None else f"the type {kind.removesuffix('_type')}"
        raise InputError(f"{path}: input {value.name!r} has {what}; hwnas feeds tensors of numbers", EXPORT)
    tensor = value.type.tensor_type
    names = dict(zip(onnx.TensorProto.DataType.values(), onnx.TensorProto.DataType.keys(), strict=True))
    element = names.get(tensor.elem_type, str(tensor.elem_type))
    if element in ("UNDEFINED", "STRING") or tensor.elem_type not in names:
        raise InputError(
            f"{path}: input {value.name!r} has elements of type {element}; hwnas feeds tensors of numbers",
            EXPORT,
        )
    if not tensor.HasField("shape"):
        if shape is None:
            raise InputError(
                f"{path}: input {value.name!r} has no shape",
                "say all of its sizes: --input-shape 1x3x224x224",
            )
        for size in shape:
            tensor.shape.dim.add(dim_value=size)
    sizes: list[int | str] = []
    for axis, dimension in enumerate(tensor.shape.dim):
        size = dimension.dim_value
        if not dimension.HasField("dim_value") or size == -1:
            sizes.append(str(dimension.dim_param))
        elif size > 0:
            sizes.append(size)
        else:
            raise InputError(
                f"{path}: axis {axis} of input {value.name!r} has the size {size}",
                "export the model with sizes of 1 or more",
            )
    return sizes


def _apply_shape(path: Path, inputs: Sequence[Axes], shape: Sequence[int]) -> None:
    """Give the inputs that leave sizes open those of `--input-shape`; a fixed one must have them already."""
    said = "x".join(map(str, shape))
    fitting = [axes for axes in inputs if len(axes.sizes) - len(shape) in (0, 1)]
    if not fitting:
        raise InputError(
            f"{path}: --input-shape {said} has {len(shape)} sizes, and the inputs are "
            + ", ".join(f"{axes.name!r} {axes}" for axes in inputs),
            "give all sizes, or all but that of the batch",
        )
    for axes in fitting:
        first = len(axes.sizes) - len(shape)
        if len(inputs) > 1 and not axes.is_open:
            continue
        for axis, size in enumerate(shape, first):
            known = axes.sizes[axis]
            if isinstance(known, int) and known != size:
                raise InputError(
                    f"{path}: axis {axis} of input {axes.name!r} is fixed to {known}, "
                    f"and --input-shape says {size}",
                    f"leave it at {axes}, or export the model with that axis open",
                )
            axes.sizes[axis] = size
    if len(inputs) > 1 and not any(list(axes.sizes)[-len(shape) :] == list(shape) for axes in fitting):
        raise InputError(
            f"{path}: no input is {said}: " + ", ".join(f"{axes.name!r} {axes}" for axes in inputs),
            "give no --input-shape, or export the model with open axes",
        )


def _has_open_batch(axes: Axes, has_batch: bool) -> bool:
    if not axes.sizes or isinstance(axes.sizes[0], int):
        return False
    others_fixed = all(isinstance(size, int) for size in axes.sizes[1:])
    is_images = len(axes.sizes) == IMAGES and others_fixed and not SEQUENCE.search(axes.sizes[0])
    return has_batch or is_images


def _spread_names(inputs: Sequence[Axes], batches: list[str]) -> None:
    """An open axis with the name of one that was set has the same size."""
    known: dict[str, int] = {}
    of_batch: set[str] = set()
    for axes in inputs:
        for axis, dimension in enumerate(axes.value.type.tensor_type.shape.dim):
            size = axes.sizes[axis]
            if dimension.dim_param and isinstance(size, int):
                known.setdefault(dimension.dim_param, size)
                if axes.name in batches and axis == 0:
                    of_batch.add(dimension.dim_param)
    for axes in inputs:
        if axes.sizes and axes.sizes[0] in of_batch:
            batches.append(axes.name)
        axes.sizes = [known.get(size, size) if isinstance(size, str) else size for size in axes.sizes]


def _require_closed(path: Path, axes: Axes) -> None:
    still_open = [axis for axis, size in enumerate(axes.sizes) if isinstance(size, str)]
    if not still_open:
        return
    named = ", ".join(
        f"axis {axis}" + (f" ({axes.sizes[axis]})" if axes.sizes[axis] else "") for axis in still_open
    )
    every = "x".join(str(size) if isinstance(size, int) else "N" for size in axes.sizes)
    fix = f"say all sizes: --input-shape {every}, with a number for each N"
    if still_open == [0]:
        fix += "; where the first axis is a batch, --batch 1 says so"
    elif len(axes.sizes) == IMAGES:
        fix = f"say the sizes of an image: --input-shape {every.partition('x')[2]}, with a number for each N"
    raise InputError(
        f"{path}: {named} of input {axes.name!r} {'is' if len(still_open) == 1 else 'are'} open", fix
    )
