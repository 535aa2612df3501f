"""The time of each operator: of a run, each operator once, whatever it runs inside of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.devices.host import layers as profiler
from hwnas.devices.host.device import HostDevice
from hwnas.devices.host.layers import layers, layers_of, record_events
from hwnas.measurement import DeviceProfile, Layer
from hwnas.network import Network, Part

SHAPE = [1, 16, 32, 32]
FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def value(name: str, shape: list[int] = SHAPE, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, number: Any, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(number, dtype=dtype), name)


def model(nodes: list[onnx.NodeProto], **settings: Any) -> bytes:
    weights = (np.random.default_rng(0).standard_normal((16, 16, 3, 3)) * 0.05).astype(np.float32)
    known = [
        numpy_helper.from_array(weights, "k"),
        constant("three", 3),
        constant("five", 5),
        constant("nothing", 0, np.float32),
    ]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], known)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8, **settings)
    return bytes(made.SerializeToString())


def conv(before: str, after: str, name: str = "") -> onnx.NodeProto:
    return helper.make_node("Conv", [before, "k"], [after], name=name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def loop(
    nodes: list[onnx.NodeProto], last: str, tag: str, count: str, before: str, after: str
) -> onnx.NodeProto:
    """`count` times these nodes, from `v{tag}` to `last`."""
    go = helper.make_node("Identity", [f"go{tag}"], [f"on{tag}"])
    body = helper.make_graph(
        [*nodes, go],
        f"body{tag}",
        [value(f"i{tag}", [], INT64), value(f"go{tag}", [], BOOL), value(f"v{tag}")],
        [value(f"on{tag}", [], BOOL), value(last)],
    )
    return helper.make_node("Loop", [count, "", before], [after], name=f"loop{tag}", body=body)


def branch(nodes: list[onnx.NodeProto], after: str) -> onnx.NodeProto:
    then = helper.make_graph(nodes, "then", [], [value(after)])
    other = helper.make_graph([helper.make_node("Neg", ["x"], [after])], "else", [], [value(after)])
    return helper.make_node("If", ["yes"], [after], name="if", then_branch=then, else_branch=other)


def scan() -> onnx.NodeProto:
    """Over the sixteen maps."""
    row = [1, 32, 32]
    body = helper.make_graph(
        [
            helper.make_node("Add", ["s", "r"], ["t"], name="sum"),
            helper.make_node("Tanh", ["t"], ["o"], name="tanh"),
        ],
        "rows",
        [value("s", row), value("r", row)],
        [value("t", row), value("o", row)],
    )
    return helper.make_node(
        "Scan",
        ["zero", "x"],
        ["last", "y"],
        name="scan",
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
        body=body,
    )


def nets() -> dict[str, tuple[bytes, dict[str, int]]]:
    """Networks, and how often one run executes each kind of operator that is not the runtime's own."""
    swish = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["z"],
        [helper.make_node("Erf", ["a"], ["s"]), helper.make_node("Erf", ["s"], ["z"])],
        [helper.make_opsetid("", 17)],
    )
    twice = helper.make_node("Twice", ["x"], ["y"], domain="own")
    zero = helper.make_node("ReduceSum", ["x", "one"], ["zero"], keepdims=0)
    one = helper.make_node("Constant", [], ["one"], value=constant("c", [1]))
    nested = loop(
        [loop([conv("vb", "wb", "inner")], "wb", "b", "five", "va", "wa")], "wa", "a", "three", "x", "y"
    )
    yes = [  # what a runtime cannot know beforehand
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "nothing"], ["yes"]),
    ]
    unnamed = [conv("x", "q"), loop([conv("va", "wa")], "wa", "a", "five", "q", "y")]
    return {
        "flat": (model([conv("x", "a", "one"), conv("a", "y", "two")]), {"Conv": 2}),
        "loop": (
            model([loop([conv("va", "wa", "inner")], "wa", "a", "five", "x", "y")]),
            {"Conv": 5, "Loop": 1},
        ),
        "unnamed": (model(unnamed), {"Conv": 6, "Loop": 1}),
        "nested": (model([nested]), {"Conv": 15, "Loop": 4}),
        "if": (model([*yes, branch([conv("x", "y", "inner")], "y")]), {"Conv": 1, "If": 1}),
        "if in a loop": (
            model([*yes, loop([branch([conv("va", "wa")], "wa")], "wa", "a", "three", "x", "y")]),
            {"Conv": 3, "If": 3, "Loop": 1},
        ),
        "scan": (model([one, zero, scan()]), {"Add": 16, "Tanh": 16, "Scan": 1}),
        "function": (model([twice], functions=[swish]), {"Erf": 2}),
    }


def events_of(content: bytes) -> Counter[str]:
    """How often the profiler saw each kind in one run."""
    events = record_events(content, 1, 0)
    return Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))


@pytest.mark.parametrize("name", nets())
def test_the_times_of_a_run_add_up_to_it_and_each_operator_is_there_once(name: str) -> None:
    content, expected = nets()[name]
    seen = events_of(content)
    assert {kind: seen[kind] for kind in expected} == expected
    found = layers(content, 1, 30.0)
    assert len({layer.name for layer in found}) == len(found)
    assert len(found) <= sum(seen.values())
    kinds = Counter(layer.operator for layer in found)
    inside = {"loop": 1, "unnamed": 2, "nested": 1, "if": 1, "if in a loop": 1}
    if name in inside:
        assert kinds["Conv"] == inside[name]
    total_ms = sum(layer.time_ms or 0.0 for layer in found)
    run_ms = median_run_ms(content)
    # The profiler itself takes some microseconds an operator, within the run and outside of the operators.
    assert 0.2 * run_ms < total_ms < 3 * run_ms + 0.02 * sum(seen.values())


def median_run_ms(content: bytes) -> float:
    """Of runs under the profiler, what it says of the whole."""
    events = record_events(content, 1, 30)
    return float(np.median([event["dur"] for event in events if event["name"] == "model_run"])) / 1000


def written(*nodes: tuple[str, str, int, int], run: int) -> list[dict[str, Any]]:
    """Events in the order of their ends, as ONNX Runtime writes them."""
    events = [
        {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "ts": start,
            "dur": taken,
            "args": {"op_name": kind, "node_index": name[-1]},
        }
        for name, kind, start, taken in nodes
    ]
    return [*events, {"cat": "Session", "name": "model_run", "ts": 0, "dur": run, "args": {}}]


def test_iterations_are_summed_and_the_loop_has_what_is_left() -> None:
    """Exact sums: a loop of two convolutions, one of which is an inner loop's, then one outside of it."""

    def run(more: int) -> list[dict[str, Any]]:
        return written(
            ("conv0", "Conv", 12, 10 + more),
            ("conv0", "Conv", 33, 10),
            ("inner1", "Loop", 11, 40),
            ("conv0", "Conv", 52, 30),
            ("outer0", "Loop", 10, 100),
            ("conv0", "Conv", 110, 7),
            run=120,
        )

    found = {layer.name: round(1000 * (layer.time_ms or 0), 6) for layer in layers_of(run(0) * 2 + run(2))}
    assert found == {
        "outer0": 30.0,
        "outer0/inner1": 19.0,
        "outer0/inner1/conv0": 21.0,
        "outer0/conv0": 30.0,
        "conv0": 7.0,
    }
    assert sum(found.values()) == 107


def test_what_the_profiler_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "PROFILER_EVENTS", 3)
    with pytest.raises(ValueError, match="more than 3 operators"):
        layers(nets()["loop"][0], 1, 1.0)


def test_a_loop_of_a_file_through_the_device() -> None:
    content, _ = nets()["loop"]
    device = HostDevice(DeviceProfile(name="cpu", device="host", description="x", options={"threads": 1}))
    with device:
        found = device.layers(Network("loop", [Part("loop", onnx=lambda: content)]))
    assert all(isinstance(layer, Layer) for layer in found)
    assert {"loopa", "loopa/inner"} <= {layer.name for layer in found}
    times = {layer.name: layer.time_ms or 0.0 for layer in found}
    assert times["loopa/inner"] > times["loopa"]


def test_the_loop_is_the_same_network() -> None:
    """Five times the convolution: what the test counts is what the graph says."""
    content, _ = nets()["loop"]
    flat = model([conv("x" if n == 0 else f"a{n}", "y" if n == 4 else f"a{n + 1}") for n in range(5)])
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    outputs = [
        ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]
        for graph in (content, flat)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-5
