"""Whether an ONNX graph decides what it runs by the values of its inputs, which noise cannot stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hwnas.errors import InputError
from hwnas.onnx_file import nodes_of
from hwnas.onnx_sizes import inputs_of

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")
DECIDING = ("If", "Loop", "Scan")
VALUES, SIZES = 1, 2
"""What of a tensor depends on the inputs' values."""

READS_SIZES = ("Shape", "Size", "SequenceLength")
CHANCE = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
SIZED_BY = {
    "NonZero Unique ConstantOfShape StringSplit ImageDecoder HannWindow HammingWindow BlackmanWindow": (0,),
    "Compress Reshape Expand TopK OneHot Split SplitToSequence SequenceAt Squeeze Unsqueeze": (1,),
    "Upsample CenterCropPad AffineGrid ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax": (1,),
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare": (1,),
    "Tile DFT Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "Pad STFT": (1, 3),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "NonMaxSuppression MelWeightMatrix Range": (0, 1, 2, 3, 4),
}
"""The inputs of an operator whose values decide how large its outputs are."""

Scope = tuple[Any, ...]
"""Where a name belongs: the graph or function, and the subgraphs within it."""


def require_no_decisions(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model in which an If, Loop or Scan depends on values of the inputs, or on chance.

    What follows from constants and sizes alone (a fixed trip count, that of `Shape`) is the same for every
    image, and is taken.

    Raises:
        InputError: with the node's name.
    """
    if not any(node.op_type in DECIDING for node in nodes_of(model)):
        return
    try:
        _Flow(path, model).run()
    except RecursionError:
        raise InputError(f"{path}: its functions are nested too deeply", "export it without them") from None


class _Flow:
    """What of each name depends on the inputs' values; grows pass by pass, since loops hand values back."""

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        self._path, self._graph = path, model.graph
        self._inputs = [value.name for value in inputs_of(model)]
        self._functions = {(function.domain, function.name): function for function in model.functions}
        self._known: dict[tuple[Scope, str], int] = {}
        self._changed = True
        self._seen: set[Scope] = set()  # functions in this pass

    def run(self) -> None:
        while self._changed:
            self._changed = False
            self._seen.clear()
            for name in self._inputs:
                self._add(("",), name, VALUES)
            self._nodes(self._graph.node, ("",))

    def _get(self, scope: Scope, name: str) -> int:
        ends = range(len(scope), 0, -1)
        return next((self._known[key] for end in ends if (key := (scope[:end], name)) in self._known), 0)

    def _add(self, scope: Scope, name: str, flags: int) -> None:
        before = self._known.get((scope, name))
        if name and (before is None or flags & ~before):
            self._known[scope, name] = flags | (before or 0)
            self._changed = True

    def _nodes(self, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        for index, node in enumerate(nodes):
            given = [self._get(scope, name) for name in node.input]
            graphs = {each.name: each.g for each in node.attribute if each.HasField("g")}
            function = self._functions.get((node.domain, node.op_type))
            if function is not None:
                outputs = self._function(function, given)
            elif graphs and node.domain in STANDARD:
                outputs = self._subgraphs(node, given, graphs, (*scope, index))
            else:
                outputs = [_flags(node.op_type, given)] * len(node.output)
            for name, flags in zip(node.output, outputs, strict=False):
                self._add(scope, name, flags)

    def _function(self, function: onnx.FunctionProto, given: Sequence[int]) -> list[int]:
        scope = ((function.domain, function.name, *given),)
        if scope not in self._seen:
            self._seen.add(scope)
            for name, flags in zip(function.input, given, strict=False):
                self._add(scope, name, flags)
            self._nodes(function.node, scope)
        return [self._get(scope, name) for name in function.output]

    def _subgraphs(
        self, node: onnx.NodeProto, given: list[int], graphs: Mapping[str, onnx.GraphProto], scope: Scope
    ) -> list[int]:
        if node.op_type == "If":
            if given[0] & VALUES:
                self._refuse(node)
            both = [self._body(graph, [], (*scope, name)) for name, graph in graphs.items()]
            return [_union(flags) for flags in zip(*both, strict=False)]
        graph, inner = graphs.get("body", next(iter(graphs.values()))), (*scope, "body")
        if node.op_type == "Loop":
            if _union(given[:2]) & VALUES:
                self._refuse(node)
            condition, *outputs = self._body(graph, [0, 0, *given[2:]], inner)
            if condition & VALUES:
                self._refuse(node)
            self._hand_back(graph, 2, outputs[: len(given) - 2], inner)
            return outputs
        lengths = len(given) - len(graph.input)  # of sequences, which the first Scan took
        if node.op_type == "Scan":
            scanned = next(each.i for each in node.attribute if each.name == "num_scan_inputs")
            if _union(given[: max(lengths, 0)]) & VALUES or _union(given[-scanned:]) & SIZES:
                self._refuse(node)
            given = given[max(lengths, 0) :]
            outputs = self._body(graph, given, inner)
            self._hand_back(graph, 0, outputs[: len(given) - scanned], inner)
            return outputs
        return self._body(graph, given, inner)

    def _body(self, graph: onnx.GraphProto, given: Sequence[int], scope: Scope) -> list[int]:
        for value, flags in zip(graph.input, given, strict=False):
            self._add(scope, value.name, flags)
        self._nodes(graph.node, scope)
        return [self._get(scope, value.name) for value in graph.output]

    def _hand_back(self, graph: onnx.GraphProto, first: int, outputs: Sequence[int], scope: Scope) -> None:
        """Give what a body makes of its state to its next iteration."""
        for value, flags in zip(graph.input[first:], outputs, strict=False):
            self._add(scope, value.name, flags)

    def _refuse(self, node: onnx.NodeProto) -> NoReturn:
        what = "which branch it takes" if node.op_type == "If" else "how often it runs"
        raise InputError(
            f"{self._path}: {what} depends on the values of the inputs in the {node.op_type} "
            f"{node.name or next(iter(node.output), '')!r}, and a time on noise would be that of no image",
            "export the network without it, or each way as a network of its own",
        )


def _flags(kind: str, given: Sequence[int]) -> int:
    """What of an operator's outputs depends on the inputs' values."""
    flags = _union(given)
    if kind in READS_SIZES:
        return VALUES if flags & SIZES else 0
    if kind == "EyeLike":
        return flags & SIZES
    if kind in CHANCE:
        return flags | VALUES
    indices = next((indices for kinds, indices in SIZED_BY.items() if kind in kinds.split()), ())
    sizing = [given[index] for index in indices if index < len(given)]
    return flags | (SIZES if _union(sizing) & VALUES else 0)


def _union(flags: Iterable[int]) -> int:
    both = 0
    for each in flags:
        both |= each
    return both
