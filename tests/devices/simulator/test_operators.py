"""Operators are known by domain and type, functions by their bodies, and bodies by what they read."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.devices.simulator import Network, Scheduler, load_accelerator, read_onnx
from hwnas.devices.simulator.onnx.maps import GLOBAL_POOLS
from hwnas.devices.simulator.onnx.network import (
    BINARY,
    CONVOLUTIONS,
    PASSES,
    PLUMBING,
    POINTWISE,
    POOLS,
    WHOLE_PASSES,
)
from hwnas.devices.simulator.onnx.operators import MICROSOFT, read_by
from hwnas.devices.simulator.onnx.products import PRODUCTS
from hwnas.errors import InputError

node = helper.make_node
SHAPE = (1, 4, 8, 8)
MACS = 4 * 4 * 9 * 8 * 8
OWN = helper.make_opsetid("own", 1)
STANDARD = helper.make_opsetid("", 17)


def info(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def conv(source: str, target: str) -> onnx.NodeProto:
    return node("Conv", [source, "w"], [target], pads=[1, 1, 1, 1])


def model(nodes: Sequence[onnx.NodeProto], functions: Sequence[onnx.FunctionProto] = ()) -> onnx.ModelProto:
    constants = {
        "w": np.zeros((4, 4, 3, 3), np.float32),
        "yes": np.array(True),
        "times": np.array(3, np.int64),
        "rows": np.zeros((3, 8), np.float32),
    }
    graph = helper.make_graph(
        list(nodes),
        "own",
        [info("x", *SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    domains = {"": 17, "ai.onnx": 17, "own": 1, "com.microsoft": 1, "ai.onnx.ml": 3}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def figures(network: Network) -> object:
    scheduler = Scheduler(load_accelerator())
    return scheduler.figures([scheduler.part(network)])


def control_flow(op: str, captured: str, target: str) -> onnx.NodeProto:
    """A node with constants alone as inputs, whose body convolves a tensor from outside."""
    made, state = [info("made", *SHAPE)], [info("go", kind=TensorProto.BOOL)]
    same = node("Identity", [captured], ["z"])
    deeper = {
        "then_branch": helper.make_graph([conv(captured, "z")], "then", [], [info("z", *SHAPE)]),
        "else_branch": helper.make_graph([same], "else", [], [info("z", *SHAPE)]),
    }
    inner = [node("If", ["yes"], ["made"], **deeper)]
    if op == "If":
        branches = {key: helper.make_graph(inner, key, [], made) for key in ("then_branch", "else_branch")}
        return node(op, ["yes"], [target], **branches)
    if op == "Loop":
        inputs = [info("i", kind=TensorProto.INT64), info("going", kind=TensorProto.BOOL)]
        body = [node("Identity", ["going"], ["go"]), *inner]
        return node(op, ["times", ""], [target], body=helper.make_graph(body, "body", inputs, state + made))
    body = helper.make_graph(inner, "body", [info("row", 8)], made)
    return node(op, ["rows"], [target], body=body, num_scan_inputs=1)


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
@pytest.mark.parametrize("captured", ["x", "a"])
def test_a_body_that_reads_a_map_is_no_constant(op: str, captured: str) -> None:
    """Its inputs are constants; what is behind it is computed all the same."""
    odd = model([conv("x", "a"), control_flow(op, captured, "b"), node("Relu", ["b"], ["c"]), conv("c", "y")])
    assert captured in read_by(odd.graph.node[1])
    with pytest.raises(InputError, match=rf"operator {op} \(b\) is not known") as refused:
        read_onnx(odd)
    assert "without control flow" in refused.value.fix
    if op == "If":  # the output of the others has one more axis
        network = read_onnx(odd, allow_unknown=True)
        assert [layer.op for layer in network.layers] == ["Conv", "If", "Conv"]
        assert (network.macs, network.charged) == (2 * MACS, ("If",))


def test_a_body_that_reads_constants_is_one() -> None:
    made = node("If", ["yes"], ["v"], **{
        key: helper.make_graph([node("Identity", ["w"], [key])], key, [], [info(key, 4, 4, 3, 3)])
        for key in ("then_branch", "else_branch")
    })  # fmt: skip
    network = read_onnx(model([made, node("Conv", ["x", "v"], ["y"], pads=[1, 1, 1, 1])]))
    assert [layer.op for layer in network.layers] == ["Conv"]
    assert network.macs == MACS


def nested(
    draw: random.Random, depth: int, names: list[str]
) -> tuple[list[onnx.NodeProto], int, list[onnx.FunctionProto]]:
    """Nodes from `from` to `to`, how many convolutions they are, and the functions that they call."""
    nodes, count, functions, source = [], 0, [], "from"
    steps = draw.randint(1, 3)
    for step in range(steps):
        target = "to" if step == steps - 1 else f"t{step}"
        if depth and draw.random() < 0.6:
            body, inside, more = nested(draw, depth - 1, names)
            # A function may have the name of any operator.
            name = names.pop()
            opsets = [STANDARD, OWN]
            functions += [*more, helper.make_function("own", name, ["from", "w"], ["to"], body, opsets)]
            nodes.append(node(name, [source, "w"], [target], domain="own"))
            count += inside
        else:
            nodes.append(conv(source, target))
            count += 1
        source = target
    return nodes, count, functions


@pytest.mark.parametrize("seed", range(12))
def test_a_network_written_in_functions_is_the_same_network(seed: int) -> None:
    draw = random.Random(seed)
    known = sorted(POINTWISE | PLUMBING | BINARY | PASSES | {"Constant", "Shape", "If", "Conv", "Attention"})
    draw.shuffle(known)
    nodes, count, functions = nested(draw, 3, known)
    ends = [node("Identity", ["x"], ["from"])], [node("Identity", ["to"], ["y"])]
    odd = model([*ends[0], *nodes, *ends[1]], functions)
    odd.graph.output[0].CopyFrom(info("y", *SHAPE))
    onnx.checker.check_model(odd, full_check=True)
    plain = model(
        [conv("x" if i == 0 else f"t{i}", "y" if i == count - 1 else f"t{i + 1}") for i in range(count)]
    )
    network = read_onnx(odd)
    assert network.macs == count * MACS
    assert figures(network) == figures(read_onnx(plain))


def test_a_function_may_stand_in_the_place_of_an_operator_of_onnx() -> None:
    own = helper.make_function("", "Relu", ["a", "w"], ["b"], [conv("a", "b")], [STANDARD])
    assert read_onnx(model([node("Relu", ["x", "w"], ["y"])], [own])).macs == MACS


def test_a_function_of_another_version_is_converted() -> None:
    old = helper.make_opsetid("", 13)
    own = helper.make_function("own", "Relu", ["a", "w"], ["b"], [conv("a", "b")], [old])
    assert read_onnx(model([node("Relu", ["x", "w"], ["y"], domain="own")], [own])).macs == MACS


@pytest.mark.parametrize("through", [1, 2, 5])
def test_a_function_that_calls_itself_is_refused(through: int) -> None:
    functions = [
        helper.make_function(
            "own", f"F{i}", ["a"], ["b"], [node(f"F{(i + 1) % through}", ["a"], ["b"], domain="own")], [OWN]
        )
        for i in range(through)
    ]
    with pytest.raises(InputError, match=r"function own::F\d of the ONNX file calls itself"):
        read_onnx(model([node("F0", ["x"], ["y"], domain="own")], functions))


@pytest.mark.parametrize("inside", [False, True], ids=["called", "called in a branch"])
def test_functions_that_unfold_without_end_are_refused(inside: bool) -> None:
    """2^40 nodes in a file of a few kilobytes."""
    functions = []
    for i in range(40):
        calls = [node(f"F{i + 1}", [a], [b], domain="own") for a, b in ("am", "mb")]
        if inside:
            branch = helper.make_graph(calls, "branch", [], [info("b", *SHAPE)])
            calls = [node("If", ["a"], ["b"], then_branch=branch, else_branch=branch)]
        functions.append(helper.make_function("own", f"F{i}", ["a"], ["b"], calls, [STANDARD, OWN]))
    functions.append(
        helper.make_function("own", "F40", ["a"], ["b"], [node("Abs", ["a"], ["b"])], [STANDARD])
    )
    with pytest.raises(InputError, match=r"unfold to [\d,]+ nodes"):
        read_onnx(model([node("F0", ["x"], ["y"], domain="own")], functions))


KNOWN = sorted(
    POINTWISE | PLUMBING | BINARY | PASSES | WHOLE_PASSES | POOLS | GLOBAL_POOLS | PRODUCTS | CONVOLUTIONS
    | {"Attention", "Pad", "Concat", "Resize", "ReduceMean", "Constant", "Shape", "ConstantOfShape"}
)  # fmt: skip


@pytest.mark.parametrize("domain", ["own", "com.microsoft", "ai.onnx.ml"])
@pytest.mark.parametrize("op", KNOWN)
def test_an_operator_of_another_domain_is_another_operator(op: str, domain: str) -> None:
    if domain == "com.microsoft" and op in MICROSOFT:
        pytest.skip("read on purpose")
    odd = model([conv("x", "a"), node(op, ["a"], ["b"], domain=domain, name="odd"), conv("b", "y")])
    with pytest.raises(InputError, match=rf"operator {domain}::{op} \(odd\) is not known to the simulator"):
        read_onnx(odd)
    network = read_onnx(odd, allow_unknown=True)
    assert (network.macs, network.charged) == (2 * MACS, (f"{domain}::{op}",))


def test_operators_of_onnx_runtime_are_read_on_purpose() -> None:
    for op in ("FastGelu", "QuickGelu", "Gelu"):
        nodes = [conv("x", "a"), node(op, ["a"], ["b"], domain="com.microsoft"), conv("b", "y")]
        assert [layer.op for layer in read_onnx(model(nodes)).layers] == ["Conv", "Conv"]


def test_the_standard_domain_has_two_names() -> None:
    relu = node("Relu", ["a"], ["y"], domain="ai.onnx")
    assert [layer.op for layer in read_onnx(model([conv("x", "a"), relu])).layers] == ["Conv"]
