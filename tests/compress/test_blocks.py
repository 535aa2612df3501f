from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import timm
import torch
from tiny import make_spec
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.network import export_onnx
from hwnas.networks.blocks.inverted_bottleneck import (
    InvertedBottleneckSpec,
    build_candidate,
    cost,
    match_output,
    plan,
)
from hwnas.networks.count import count

Shape = tuple[int, int, int]
SHAPES: list[tuple[Shape, Shape]] = [
    ((8, 9, 7), (16, 5, 4)),
    ((13, 5, 6), (13, 5, 6)),
    ((24, 16, 16), (41, 4, 4)),
    ((3, 1, 1), (40, 1, 1)),
]


def grid() -> list[InvertedBottleneckSpec]:
    layers: tuple[Literal["depthwise", "grouped"], ...] = ("depthwise", "grouped")
    activations = (("relu", False), ("swish", True), ("hswish", True))
    product = itertools.product((3, 5, 7), (1, 3, 6), (1, 2, 4), activations, layers, (0.5, 1.0))
    return [
        make_spec(kernel=k, expand=e, depth=d, activation=activation, se=se, layer=layer, width=w)
        for k, e, d, (activation, se), layer, w in product
    ]


def counted_by_hooks(module: nn.Module, in_shape: Shape) -> tuple[int, int]:
    """MACs from the sizes that really pass the convolutions and linear layers; parameters one by one."""
    macs = 0

    def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        assert isinstance(layer.weight, Tensor)
        macs += output[0].numel() * layer.weight[0].numel()

    handles = [
        layer.register_forward_hook(hook)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module.eval()(torch.zeros(1, *in_shape))
    for handle in handles:
        handle.remove()
    return macs, sum(p.numel() for p in dict(module.named_parameters()).values())


def macs_of_graph(content: bytes) -> int:
    """MACs from the weights and inferred shapes of an ONNX graph's Conv, Gemm and MatMul nodes."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content), strict_mode=True)
    graph = model.graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    macs = 0
    for node in graph.node:
        if node.op_type == "Conv":
            macs += int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            inner = shapes[node.input[0]][-1]
            macs += int(np.prod(shapes[node.output[0]])) * inner
    return macs


@pytest.mark.parametrize(("in_shape", "out_shape"), SHAPES)
def test_the_closed_form_is_what_the_module_has(in_shape: Shape, out_shape: Shape) -> None:
    compared = 0
    for spec in grid():
        try:
            closed = cost(spec, in_shape, out_shape)
        except InputError:
            continue
        module = build_candidate(spec, in_shape, out_shape)
        assert closed == counted_by_hooks(module, in_shape), spec
        with torch.no_grad():
            assert module.eval()(torch.zeros(2, *in_shape)).shape == (2, *out_shape), spec
        compared += 1
    assert compared >= 200


@pytest.mark.parametrize(("in_shape", "out_shape"), SHAPES)
@pytest.mark.parametrize("se", [False, True])
@pytest.mark.parametrize("layer", ["depthwise", "grouped", "shift"])
def test_counting_agrees_with_the_exported_graph(
    in_shape: Shape, out_shape: Shape, se: bool, layer: str
) -> None:
    spec = make_spec(depth=3, se=se, layer=layer, kernel=5, width=0.5)
    module = build_candidate(spec, in_shape, out_shape)
    macs = macs_of_graph(export_onnx(module, (1, *in_shape)))
    assert macs > 0
    assert macs == count(module, in_shape)[0] == cost(spec, in_shape, out_shape)[0]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "regnety_002"])
def test_counting_a_known_network_agrees_with_hooks_and_graph(name: str) -> None:
    model = timm.create_model(name).eval()
    found = count(model, (3, 64, 64))
    assert found == counted_by_hooks(model, (3, 64, 64))
    assert found[0] == macs_of_graph(export_onnx(model, (1, 3, 64, 64)))


def test_counting_where_a_module_is_given_a_parameter() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 4))
            self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
            self.layer = nn.Linear(4, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(self.token.expand(len(x), -1))
            return y

    module = Token()
    assert count(module, (1,)) == (20, 25)
    assert [p.requires_grad for p in module.parameters()] == [True, False, True]


def test_counting_leaves_the_mode_alone() -> None:
    module = build_candidate(make_spec(), (8, 4, 4), (8, 4, 4)).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    count(module, (8, 4, 4))
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_width_narrows_the_inside_and_never_the_output(depth: int) -> None:
    narrow = plan(make_spec(depth=depth, width=0.5), (32, 8, 8), (64, 4, 4))
    wide = plan(make_spec(depth=depth, width=1.0), (32, 8, 8), (64, 4, 4))
    assert [layer.c_out for layer in narrow] == [32] * (depth - 1) + [64]
    assert [layer.c_out for layer in wide] == [64] * depth
    assert all(n.hidden < w.hidden for n, w in zip(narrow, wide, strict=True))
    assert all(layer.hidden % 8 == 0 for layer in narrow + wide)
    assert all(a.c_out == b.c_in for a, b in itertools.pairwise(narrow))


def test_the_map_is_halved_as_early_as_possible() -> None:
    layers = plan(make_spec(depth=4), (8, 13, 9), (8, 4, 3))
    assert [layer.stride for layer in layers] == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("out_shape", "fix"),
    [((8, 1, 1), "depth"), ((8, 16, 16), "--space upsample"), ((8, 6, 6), "--space convolution")],
)
def test_a_map_that_cannot_be_reached_is_told(out_shape: Shape, fix: str) -> None:
    with pytest.raises(InputError, match="cannot turn a map") as refusal:
        plan(make_spec(depth=1), (8, 8, 8), out_shape)
    assert fix in refusal.value.fix


def test_names_are_unique() -> None:
    specs = grid()
    assert len({spec.name for spec in specs}) == len(specs) == 324


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("c_in", [8, 16])
def test_a_fresh_candidate_gives_the_wanted_mean_and_variance(depth: int, c_in: int) -> None:
    torch.manual_seed(3)
    module = build_candidate(make_spec(depth=depth), (c_in, 8, 8), (16, 4, 4)).train()
    mean, variance = torch.randn(16), torch.rand(16) + 0.1
    match_output(module, mean, variance)
    with torch.no_grad():
        y = module(torch.randn(64, c_in, 8, 8)).double().numpy()
    np.testing.assert_allclose(y.mean((0, 2, 3)), mean, atol=1e-4)
    np.testing.assert_allclose(y.var((0, 2, 3)), variance, rtol=1e-2)


def test_a_candidate_that_keeps_the_shape_starts_as_the_identity() -> None:
    module = build_candidate(make_spec(depth=2), (16, 4, 4), (16, 4, 4)).eval()
    match_output(module, torch.randn(16), torch.rand(16))
    x = torch.randn(2, 16, 4, 4)
    with torch.no_grad():
        assert torch.equal(module(x), x)
