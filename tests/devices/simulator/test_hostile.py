"""Graphs that break ONNX's rules: refused by cause, never a traceback, never without end."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwnas.devices.simulator import Scheduler, load_accelerator, read_onnx
from hwnas.errors import InputError

node = helper.make_node


def graph(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], weights: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


WEIGHT = {"w": np.zeros((8, 4, 3, 3), np.float32)}
CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1}


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "MaxPool"])
@pytest.mark.parametrize("attribute", ["kernel_shape", "pads", "strides", "dilations", "group", "auto_pad"])
@pytest.mark.parametrize(
    "value",
    [[], [1], [1, 1, 1], [1] * 7, [0, 0], [-1, -1], [0, 1], [2**62, 2**62], [-(2**63), 3], 0, -4, 2**63 - 1,
     0.5, "", "SAME", "\ud800", b"\xff\xfe"],
    ids=repr,
)  # fmt: skip
def test_attributes_of_windows_are_refused_by_name(operator: str, attribute: str, value: object) -> None:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    if operator == "ConvTranspose":
        weights = {"w": np.zeros((4, 8, 3, 3), np.float32)}
    else:
        weights = WEIGHT if operator == "Conv" else {}
    attributes = {k: v for k, v in CONV.items() if operator != "MaxPool" or k != "group"}
    made = node(operator, ["x", *weights], ["y"], name="odd", **{**attributes, attribute: 1})
    given = next(a for a in made.attribute if a.name == attribute)
    given.CopyFrom(helper.make_attribute(attribute, value, attr_type=_type(value)))
    model = graph([made], (1, 4, 8, 8), weights)
    # What the shapes would be is said, so that it is the reader that has to look.
    model.graph.output[0].type.tensor_type.shape.CopyFrom(
        helper.make_tensor_value_info(
            "y", 1, [1, 4 if operator == "MaxPool" else 8, 8, 8]
        ).type.tensor_type.shape
    )
    if operator == "MaxPool" and attribute == "group":
        read_onnx(model)  # no attribute of this operator
        return
    with pytest.raises(InputError) as refused:
        read_onnx(model)
    assert len(str(refused.value)) < 500


def _type(value: object) -> onnx.AttributeProto.AttributeType:
    if isinstance(value, list):
        return onnx.AttributeProto.INTS
    kinds = {int: onnx.AttributeProto.INT, float: onnx.AttributeProto.FLOAT}
    return kinds.get(type(value), onnx.AttributeProto.STRING)


@pytest.mark.parametrize(
    "make",
    [
        lambda: node("Range", ["zero", "many", "one"], ["r"]),
        lambda: node("ConstantOfShape", ["dims"], ["r"]),
        lambda: node("Expand", ["one", "dims"], ["r"]),
        lambda: node("Tile", ["few", "dims"], ["r"]),
    ],
)
def test_constants_without_end_are_refused_by_size(make: Callable[[], onnx.NodeProto]) -> None:
    weights = {
        "zero": np.array(0, np.int64),
        "many": np.array(10**12, np.int64),
        "one": np.array(1, np.int64),
        "few": np.array([1, 2], np.int64),
        "dims": np.array([10**12], np.int64),
    }
    made = make()
    made.name = "endless"
    nodes = [made, node("Cast", ["r"], ["f"], to=1), node("Add", ["x", "f"], ["y"])]
    with pytest.raises(InputError, match=r"endless.*000,000,000"):
        read_onnx(graph(nodes, (1, 1), weights))


@cache
def valid() -> tuple[bytes, ...]:
    """Graphs with every kind of operator that the reader knows."""
    from torch import nn
    from torch.nn import functional as F

    from hwnas.network import export_onnx

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 2, 1)
            self.dw = nn.Conv2d(8, 8, 3, 1, 2, dilation=2, groups=8)
            self.gate = nn.Conv2d(8, 8, 1)
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)
            self.head = nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).relu()
            y = self.dw(F.pad(x, (1, 0, 1, 0)))[:, :, :-1, :-1]
            y = y * self.gate(F.adaptive_avg_pool2d(y, 1)).sigmoid()
            z = F.interpolate(F.max_pool2d(x + y, 2), scale_factor=2.0)
            z = torch.cat([self.up(z), self.up(F.avg_pool2d(z, 3, 1, 1)), self.up(x)], 1)
            result: torch.Tensor = self.head(z.mean((2, 3)))
            return result

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 12, 4, 4)
            self.norm = nn.LayerNorm(12)
            self.qkv = nn.Linear(12, 36)
            self.one = nn.Conv1d(12, 12, 3, padding=1, groups=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            q, k, v = self.qkv(self.norm(x)).reshape(1, -1, 3, 2, 6).permute(2, 0, 3, 1, 4)
            a = torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1) @ v
            x = x + a.transpose(1, 2).reshape(x.shape)
            return F.gelu(self.one(x.transpose(1, 2))).mean(2)

    return tuple(export_onnx(module(), (1, 3, 24, 24)) for module in (Mixed, Tokens))


NUMBERS = (0, 1, 2, 3, 5, 7, -1, -2, 2**31, 2**40, 2**63 - 1, -(2**63))


def mutated(seed: int) -> bytes:
    """A valid graph with a few things changed as a broken exporter, or somebody hostile, would."""
    draw = random.Random(seed)
    model = onnx.load_model_from_string(valid()[seed % 2])
    for _ in range(draw.randint(1, 3)):
        _mutate(model.graph, draw)
    content: bytes = model.SerializeToString()
    return content


def _mutate(g: onnx.GraphProto, draw: random.Random) -> None:
    n = draw.choice(g.node)
    what = draw.randrange(9)
    if what <= 2 and n.attribute:
        a = draw.choice(n.attribute)
        change = draw.randrange(5)
        if change == 0 and a.ints:
            a.ints[draw.randrange(len(a.ints))] = draw.choice(NUMBERS)
        elif change == 1:
            a.CopyFrom(helper.make_attribute(a.name, draw.choices(NUMBERS, k=draw.randrange(1, 7))))
        elif change == 2:
            a.CopyFrom(helper.make_attribute(a.name, draw.choice(NUMBERS)))
        elif change == 3:
            a.CopyFrom(helper.make_attribute(a.name, draw.choice([b"SAME", b"\xff\xff", b""])))
        else:
            n.attribute.remove(a)
    elif what == 3:
        n.op_type = draw.choice(g.node).op_type
    elif what == 4 and n.input:
        n.input[draw.randrange(len(n.input))] = draw.choice(
            ["", "nowhere", *(o for other in g.node for o in other.output), *(t.name for t in g.initializer)]
        )
    elif what == 5 and n.input:
        del n.input[draw.randrange(len(n.input)) :]
    elif what == 6:
        del n.output[0 if draw.random() < 0.3 else 1 :]
    elif what == 7 and g.initializer:
        t = draw.choice(g.initializer)
        if t.dims:
            t.dims[draw.randrange(len(t.dims))] = draw.choice(NUMBERS)
    else:
        dims = g.input[0].type.tensor_type.shape.dim
        dims[draw.randrange(len(dims))].dim_value = draw.choice(NUMBERS)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(6))
@pytest.mark.parametrize("allow_unknown", [False, True])
def test_a_mutated_graph_is_read_or_refused(hundred: int, allow_unknown: bool) -> None:
    scheduler = Scheduler(load_accelerator())
    refused = 0
    for seed in range(100 * hundred, 100 * (hundred + 1)):
        try:
            network = read_onnx(mutated(seed), allow_unknown=allow_unknown)
            figures = scheduler.figures([scheduler.part(network)])
            assert 0 < figures.latency_cycles < float("inf")
            assert figures.energy_mj > 0
        except InputError as error:
            refused += 1
            assert error.cause
            assert error.fix
    assert 0 < refused < 100
