"""Matrix products: every form in which ONNX writes one becomes the same loop nest.

A product is written as a sum over labelled axes, as in Einsum. Axes that both operands and the result share
are groups (heads), those of the first operand alone are positions, those of the second alone are output
channels, and those that the result lacks are input channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx

from hwnas.devices.simulator.onnx.attributes import flag, integer, no_form, not_taken, text
from hwnas.devices.simulator.onnx.builder import Builder, folded, nest
from hwnas.devices.simulator.onnx.tensors import Shape

# Where the second operand stands; the quantised forms carry scales and zero points between.
SECOND = {"QLinearMatMul": 3}
# Label of an axis of size one that stands beside a longer one.
BROADCAST = ""
PRODUCTS = frozenset(["Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", "FusedMatMul", "Einsum"])

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Operand:
    """A tensor of a product: its name, and label and size of every axis."""

    name: str
    labels: Labels
    sizes: Shape

    def size(self, labels: set[str]) -> int:
        """Product of the sizes of some of its axes."""
        return prod(s for axis, s in zip(self.labels, self.sizes, strict=True) if axis in labels)


def product(b: Builder, node: onnx.NodeProto) -> None:
    """A matrix product of two maps, or of a map and stored weights."""
    left, right, out = _operands(b, node)
    if left.name not in b.values:
        left, right = right, left
    value = b.value(left.name, node)
    first, second, result = ({*labels} for labels in (left.labels, right.labels, out))
    if (first ^ second) - result:
        raise not_taken(node, "adds up an axis of one operand alone, which is no matrix product")
    groups = first & second & result
    own = tuple(s for axis, s in zip(left.labels, left.sizes, strict=True) if axis in first - second)
    size, rearranged = b.positions(value.origin, folded(own))
    channels = (right.size(second - first), left.size((first & second) - result), left.size(groups))
    # Channels lie where the last axis of the second operand does.
    axis = max((i for i, label in enumerate(out) if label in second - first), default=len(out) - 1)
    sources: tuple[int, ...] = (value.origin,)
    more = {}
    if right.name in b.values:
        # Both are maps: one matrix per head. The second one must be complete (keys, values).
        sources, more = (value.origin, b.values[right.name].origin), {"second": 1}
    b.add(node, nest(node, "matmul", sources, channels, size, whole_input=rearranged, **more), axis)


def _operands(b: Builder, node: onnx.NodeProto) -> tuple[Operand, Operand, Labels]:
    """Both operands and the labels of the result."""
    at = SECOND.get(node.op_type, 1)
    if len(node.input) <= at or (node.op_type == "Einsum" and len(node.input) != 2):
        raise no_form(node, f"has {len(node.input)} inputs, which make no product of two matrices")
    names = node.input[0], node.input[at]
    left, right = (b.shape(name, node) for name in names)
    find = _einsum if node.op_type == "Einsum" else _matmul
    first, second, out = find(node, left, right)
    return Operand(names[0], *_kept(first, left)), Operand(names[1], *_kept(second, right)), out


def _kept(labels: Labels, shape: Shape) -> tuple[Labels, Shape]:
    """Labels and sizes of an operand without the axes that it broadcasts."""
    kept = [(axis, size) for axis, size in zip(labels, shape, strict=True) if axis != BROADCAST]
    return tuple(axis for axis, _ in kept), tuple(size for _, size in kept)


def _matmul(node: onnx.NodeProto, left: Shape, right: Shape) -> tuple[Labels, Labels, Labels]:
    """Labels of MatMul, whose leading axes broadcast, and of Gemm, which may transpose its operands."""
    turned = [node.op_type in ("Gemm", "FusedMatMul") and flag(node, key) for key in ("transA", "transB")]
    if not left or not right or (node.op_type == "Gemm" and (len(left), len(right)) != (2, 2)):
        raise no_form(node, f"multiplies shapes {list(left)} and {list(right)}, which are no matrices")
    rows = ["c"] if len(left) == 1 else ["c", "m"] if turned[0] else ["m", "c"]
    cols = ["c"] if len(right) == 1 else ["k", "c"] if turned[1] else ["c", "k"]
    first, second = [*_leading(left, right), *rows], [*_leading(right, left), *cols]
    sizes = dict(zip(first, left, strict=True))
    if any(
        sizes.get(axis, size) != size for axis, size in zip(second, right, strict=True) if axis != BROADCAST
    ):
        raise no_form(node, f"multiplies shapes {list(left)} and {list(right)}, which do not fit")
    depth = max(len(left), len(right), 2) - 2
    ends = [axis for axis in ("m", "k") if axis in first + second]
    return tuple(first), tuple(second), (*(f"b{back}" for back in range(depth, 0, -1)), *ends)


def _leading(shape: Shape, other: Shape) -> list[str]:
    """Labels of the axes before the matrix, counted from the right."""
    labels = []
    for back in range(len(shape) - 2, 0, -1):
        beside = other[-2 - back] if len(other) >= 2 + back else 1
        labels.append(BROADCAST if shape[-2 - back] == 1 and beside != 1 else f"b{back}")
    return labels


def _einsum(node: onnx.NodeProto, left: Shape, right: Shape) -> tuple[Labels, Labels, Labels]:
    """Labels of an Einsum equation of two operands."""
    equation = text(node, "equation", "").replace(" ", "")
    said = f"has the equation {equation!r} of shapes {list(left)} and {list(right)}"
    terms, arrow, result = equation.partition("->")
    named = terms.split(",")
    if len(named) != 2:
        raise no_form(node, f"{said}, which names other than two operands")
    if not arrow:
        # By the rules of ONNX: what stands for several axes, then the letters that occur once.
        letters = "".join(named).replace("...", "")
        once = sorted(a for a in letters if letters.count(a) == 1)
        result = ("..." if "..." in terms else "") + "".join(once)
    spread = max(len(s) - len(t.replace("...", "")) for s, t in zip((left, right), named, strict=True))
    dots = [f"b{back}" for back in range(spread, 0, -1)]
    first, second, out = (_term(term, dots) for term in (*named, result))
    sizes: dict[str, int] = {}
    for axes, shape in ((first, left), (second, right)):
        if len(axes) != len(shape):
            spreads = "..." in terms
            raise (not_taken if spreads else no_form)(node, f"{said}, which have other numbers of axes")
        if len({*axes}) != len(axes):
            raise not_taken(node, f"{said}, which takes a diagonal")
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                spreads = 1 in (sizes[axis], size)
                raise (not_taken if spreads else no_form)(node, f"{said}, which differ in an axis")
    if not {*out} <= {*sizes}:
        raise no_form(node, f"{said}, whose result has an axis that no operand has")
    return first, second, out


def _term(term: str, dots: list[str]) -> Labels:
    """Labels of one operand of an equation; dots: labels of the axes that `...` stands for."""
    before, found, after = term.partition("...")
    return (*before, *(dots if found else []), *after)


def attention(b: Builder, node: onnx.NodeProto) -> None:
    """The operator Attention: scores for each head, softmax, and the values that they weigh."""
    maps = [name for name in node.input if name in b.values]
    if len(maps) < 3 or list(node.input[:3]) != maps[:3]:
        raise not_taken(node, "takes other than the three maps that are queries, keys and values")
    query, key, value = (b.shape(name, node) for name in maps[:3])
    if not len(query) == len(key) == len(value) or len(query) not in (3, 4):
        raise no_form(node, f"takes queries of shape {list(query)}; it knows three or four dimensions")
    if len(query) == 4:
        heads, (wide, out) = query[1], (query[-1], value[-1])
    else:
        heads = integer(node, "q_num_heads", 0, low=1)
        wide, out = query[-1] // heads, value[-1] // integer(node, "kv_num_heads", heads, low=1)
    # Every image has heads of its own.
    heads, seen = heads * query[0], key[-2]
    origins = [b.value(name, node).origin for name in maps[:3]]
    size, rearranged = b.positions(origins[0], (query[-2], 1))
    scores = nest(
        node,
        "matmul",
        (origins[0], origins[1]),
        (seen, wide, heads),
        size,
        second=1,
        whole_input=rearranged,
    )
    axis = len(b.shape(node.output[0], node)) - 1
    b.add(node, scores, axis)
    at = len(b.layers) - 1
    b.add(node, nest(node, "copy", (at,), (1, 1, seen * heads), size), axis)
    weighed = nest(node, "matmul", (at + 1, origins[2]), (out, seen, heads), size, second=1)
    b.add(node, weighed, axis)
