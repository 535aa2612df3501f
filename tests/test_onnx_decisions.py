"""ONNX files that decide by values of the image what they run are refused; by constants and sizes, taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwnas.errors import InputError
from hwnas.network import Network
from hwnas.networks.find import find_network

IMAGE = [1, 3, 8, 8]
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def value(name: str, kind: int = FLOAT, shape: Sequence[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


CONSTANTS = [
    numpy_helper.from_array(np.array(number, kind), name)
    for name, number, kind in (
        ("half", 0.5, np.float32),
        ("four", 4, np.int64),
        ("zero", 0, np.int64),
        ("one", 1, np.int64),
        ("flat", [-1], np.int64),
        ("first", [0], np.int64),
        ("yes", True, np.bool_),
    )
]


def saved(
    folder: Path, nodes: Sequence[NodeProto], functions: Sequence[onnx.FunctionProto] = (), name: str = "net"
) -> Path:
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, IMAGE)], [value("y", FLOAT, IMAGE)], CONSTANTS)
    model = helper.make_model(graph, opset_imports=OPSETS, functions=list(functions), ir_version=9)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def branch(condition: str, before: str = "x", after: str = "y") -> NodeProto:
    ways = [
        helper.make_graph([node(kind, [before], ["o"])], kind, [], [value("o")]) for kind in ("Relu", "Neg")
    ]
    return node("If", [condition], [after], name=f"choice_{after}", then_branch=ways[0], else_branch=ways[1])


def loop(
    count: str = "four",
    condition: str = "",
    before: str = "x",
    after: str = "y",
    body: Sequence[NodeProto] = (node("Relu", ["v"], ["w"]),),
    on: str = "go",
) -> NodeProto:
    goes_on = [node("Identity", [on], ["on"])]
    taken = [value("i", INT64, []), value("go", BOOL, []), value("v")]
    graph = helper.make_graph([*body, *goes_on], "b", taken, [value("on", BOOL, []), value("w")])
    return node("Loop", [count, condition, before], [after], name=f"repeat_{after}", body=graph)


def scan(rows: str) -> NodeProto:
    """Sums the rows, and gives the sum as often as the image has pixels of it."""
    graph = helper.make_graph(
        [node("Add", ["s", "r"], ["t"])], "rows", [value("s"), value("r")], [value("t")]
    )
    return node("Scan", ["start", rows], ["sum"], name="rows", body=graph, num_scan_inputs=1)


def bright(after: str = "c", before: str = "x") -> list[NodeProto]:
    mean = node("ReduceMean", [before], [f"{after}.mean"], keepdims=0)
    return [mean, node("Greater", [f"{after}.mean", "half"], [after])]


def own(nodes: Sequence[NodeProto], name: str, inputs: Sequence[str]) -> onnx.FunctionProto:
    half = node("Constant", [], ["half"], value_float=0.5)
    return helper.make_function("own", name, inputs, ["y"], [half, *nodes], OPSETS)


def start() -> list[NodeProto]:
    flat = [node("Reshape", ["x", "flat"], ["pixels"]), node("ReduceMax", ["x"], ["start"], keepdims=0)]
    return [*flat, node("Add", ["x", "sum"], ["y"])]


NODES: dict[str, tuple[str, list[NodeProto]]] = {
    "if": ("If 'choice_y'", [*bright(), branch("c")]),
    "unnamed": ("If 'y'", [*bright(), branch("c")]),
    "count": (
        "Loop 'repeat_y'",
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Cast", ["m"], ["n"], to=INT64),
            loop("n"),
        ],
    ),
    "condition": ("Loop 'repeat_y'", [*bright(), loop("", "c")]),
    "until": (
        "Loop 'repeat_y'",
        [loop("", "yes", body=[node("Relu", ["v"], ["w"]), *bright("d", "v")], on="d")],
    ),
    "outer_value": ("Loop 'repeat_y'", [*bright(), loop("four", "yes", on="c")]),
    "handed_back": (
        "If 'choice_w'",
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node(
                "Loop",
                ["four", "", "half", "half", "x"],
                ["p", "q", "y"],
                body=helper.make_graph(
                    [
                        node("Identity", ["go"], ["on"]),
                        node("Greater", ["a", "half"], ["c"]),
                        branch("c", "v", "w"),
                        node("Identity", ["b"], ["a2"]),
                        node("Identity", ["m"], ["b2"]),
                    ],
                    "b",
                    [value("i", INT64, []), value("go", BOOL, []), value("a"), value("b"), value("v")],
                    [value("on", BOOL, []), value("a2"), value("b2"), value("w")],
                ),
            ),
        ],
    ),
    "nested": ("If 'choice_w'", [*bright(), loop(body=[branch("c", "v", "w")])]),
    "size_by_values": (
        "Loop 'repeat_y'",
        [
            node("NonZero", ["x"], ["found"]),
            node("Shape", ["found"], ["sizes"]),
            node("Gather", ["sizes", "one"], ["n"]),
            loop("n"),
        ],
    ),
    "scanned": (
        "Scan 'rows'",
        [
            *start()[:2],
            node("Greater", ["pixels", "half"], ["mask"]),
            node("Compress", ["pixels", "mask"], ["some"]),
            scan("some"),
            *start()[2:],
        ],
    ),
    "chance": (
        "If 'choice_y'",
        [node("RandomUniform", [], ["r"], shape=IMAGE), *bright("c", "r"), branch("c")],
    ),
}
NODES["unnamed"][1][-1].ClearField("name")


@pytest.mark.parametrize("case", NODES)
def test_what_decides_by_values_is_refused_with_its_node(tmp_path: Path, case: str) -> None:
    where, nodes = NODES[case]
    with pytest.raises(InputError, match=rf"depends on the values of the inputs in the {where}"):
        find_network(str(saved(tmp_path, nodes)))


def test_a_decision_in_a_function_is_refused_for_what_it_is_given(tmp_path: Path) -> None:
    inner = own([*bright("c", "b"), branch("c", "a")], "Inner", ["a", "b"])
    outer = own([node("Inner", ["a", "b"], ["y"], domain="own")], "Outer", ["a", "b"])

    def called(*given: str) -> list[NodeProto]:
        return [node("Outer", list(given), ["y"], domain="own")]

    find_network(str(saved(tmp_path, called("x", "half"), [inner, outer])))
    with pytest.raises(InputError, match=r"in the If 'choice_y'"):
        find_network(str(saved(tmp_path, called("x", "x"), [inner, outer])))


def size_of_x(after: str) -> list[NodeProto]:
    return [node("Shape", ["x"], ["sizes"]), node("Gather", ["sizes", "one"], [after])]


CONSTANT: dict[str, Callable[[], list[NodeProto]]] = {
    "count": lambda: [loop("four")],
    "endless": lambda: [loop("", "yes")],
    "counted_condition": lambda: [
        loop("", "yes", body=[node("Relu", ["v"], ["w"]), node("Less", ["i", "four"], ["d"])], on="d")
    ],
    "branch": lambda: [branch("yes")],
    "size": lambda: [*size_of_x("n"), loop("n")],
    "size_of_a_part": lambda: [
        node("Slice", ["x", "first", "flat", "first"], ["part"]),
        node("Size", ["part"], ["n"]),
        node("Greater", ["n", "zero"], ["c"]),
        branch("c"),
    ],
    "nested": lambda: [*size_of_x("n"), loop(body=[loop("n", before="v", after="w")])],
    "scanned": lambda: [*start()[:2], scan("pixels"), *start()[2:]],
    "of_constants": lambda: [*bright("c", "half"), branch("c")],
    "values_beside": lambda: [*bright(), node("Where", ["c", "x", "half"], ["z"]), loop(before="z")],
}


@pytest.mark.parametrize("case", CONSTANT)
def test_what_follows_from_constants_and_sizes_is_taken(tmp_path: Path, case: str) -> None:
    assert isinstance(find_network(str(saved(tmp_path, CONSTANT[case]()))), Network)


def test_many_nested_calls_take_no_longer_than_their_functions(tmp_path: Path) -> None:
    """Each function calls the one before twice: inlined, there would be 2^60 nodes."""
    functions = [own([*bright("c", "a"), branch("c", "a")], "F0", ["a"])]
    for index in range(1, 60):
        calls = [
            node(f"F{index - 1}", ["a"], ["b"], domain="own"),
            node(f"F{index - 1}", ["b"], ["y"], domain="own"),
        ]
        functions.append(own(calls, f"F{index}", ["a"]))
    with pytest.raises(InputError, match="in the If"):
        find_network(str(saved(tmp_path, [node("F59", ["x"], ["y"], domain="own")], functions)))
