"""Blocks with fewer hidden channels: which channels there are, and what becomes of the weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import timm
import torch
from shortest_run import LIBRARY, SEARCH
from tiny import run_job
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from workplace import narrowable

import hwnas
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.space import load_space
from hwnas.compress.search.block_costs import BlockCosts
from hwnas.errors import InputError
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.blocks.closed_form import (
    Moments,
    read_by,
    refitted,
    removal_order,
    start_cut,
    take_moments,
)
from hwnas.networks.blocks.cut import CutSpec, CutTable, build_cut, cut_specs
from hwnas.networks.blocks.hidden import Hidden, find_hidden
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count
from hwnas.networks.partition import partition
from hwnas.progress import Progress

SHAPE = (16, 12, 12)


class Separable(nn.Module):
    """Convolutions whose hidden channels pass a depthwise one, a sum, and a gate."""

    def __init__(self, hidden: int = 24, bias: bool = True, norm: bool = False) -> None:
        super().__init__()
        self.enter = nn.Conv2d(16, hidden, 1)
        self.middle = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.leave = nn.Conv2d(hidden, 16, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.hardswish(self.enter(x))
        y = y + self.middle(y)
        out: Tensor = x + self.norm(self.leave(y * y.mean((2, 3), keepdim=True)))
        return out


class Attention(nn.Module):
    """Tokens: a normalisation, and a perceptron whose hidden values can go."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class Mixed(nn.Module):
    """Hidden channels that an operation mixes: they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        out: Tensor = x + self.leave(torch.cat([y[:, 16:], y[:, :16]], 1))
        return out


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose weights and statistics are random, in eval mode."""
    torch.manual_seed(0)
    module = make()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 1.5)
    return module.eval()


BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "separable": (Separable, SHAPE, [24]),
    "with normalisation": (lambda: Separable(norm=True, bias=False), SHAPE, [24]),
    "tokens": (Attention, (9, 16), [40]),
    "inverted bottleneck": (lambda: timm.create_model("efficientnet_b0").blocks[1][1], (24, 12, 12), [144]),
    "residual": (lambda: timm.create_model("resnet18").layer2[1], (128, 6, 6), [128]),
    "bottleneck": (lambda: timm.create_model("resnet50").layer1[1], (256, 6, 6), [64, 64]),
    "convnext": (lambda: timm.create_model("convnext_atto").stages[0].blocks[0], (40, 8, 8), [160]),
    "transformer": (lambda: timm.create_model("vit_tiny_patch16_224").blocks[0], (197, 192), [768]),
    "plain": (lambda: nn.Sequential(nn.Conv2d(16, 24, 3), nn.PReLU(24), nn.Conv2d(24, 8, 3)), SHAPE, [24]),
    "mixed": (Mixed, SHAPE, []),
}


def start(block: nn.Module, shape: tuple[int, ...], spec: CutSpec, x: Tensor) -> nn.Module:
    groups = find_hidden(block, shape)
    return start_cut(spec, block, groups, take_moments(block, read_by([spec], block, groups), [x]))


@torch.no_grad()
def error(module: nn.Module, block: nn.Module, x: Tensor) -> float:
    return float((module(x) - block(x)).square().mean())


@pytest.mark.parametrize("name", BLOCKS)
def test_the_hidden_channels_of_a_block(name: str) -> None:
    make, shape, sizes = BLOCKS[name]
    assert [group.size for group in find_hidden(seeded(make), shape)] == sizes


@pytest.mark.parametrize("name", [name for name, (*_, sizes) in BLOCKS.items() if sizes])
def test_a_cut_is_smaller_and_nearer_than_the_same_channels_without_the_closed_form(name: str) -> None:
    make, shape, sizes = BLOCKS[name]
    block, x = seeded(make), torch.randn(256, *shape, generator=torch.Generator().manual_seed(1))
    spec = CutSpec(hidden=tuple(size // 2 for size in sizes))
    cut = start(block, shape, spec, x)
    assert count(cut, shape)[0] < count(block, shape)[0]
    plain = start_cut(spec, block, find_hidden(block, shape), {})
    assert error(cut, block, x[:64]) < 0.95 * error(plain, block, x[:64])


@pytest.mark.parametrize("name", [name for name, (*_, sizes) in BLOCKS.items() if sizes])
def test_a_cut_that_keeps_all_is_the_block(name: str) -> None:
    make, shape, sizes = BLOCKS[name]
    block, x = seeded(make), torch.randn(8, *shape)
    assert error(start(block, shape, CutSpec(hidden=tuple(sizes)), x), block, x) == 0


def test_a_cut_is_built_again_from_its_spec_and_its_weights() -> None:
    block, x = seeded(Separable), torch.randn(32, *SHAPE)
    cut = start(block, SHAPE, CutSpec(hidden=(8,)), x)
    again = build_cut(CutSpec(hidden=(8,)), seeded(Separable), SHAPE)
    again.load_state_dict(cut.state_dict())
    assert error(again.eval(), cut, x) == 0


@pytest.mark.parametrize("norm", [False, True])
def test_what_others_say_already_and_what_never_changes_goes_without_loss(norm: bool) -> None:
    """Half of the channels are copies, or constants: what is left is fitted to give the same."""
    block: Any = seeded(lambda: Separable(norm=norm, bias=not norm))
    with torch.no_grad():
        for layer in (block.enter, block.middle):
            layer.weight[12:18] = layer.weight[:6]
            layer.bias[12:18] = layer.bias[:6]
        block.enter.weight[18:] = 0.0
        block.middle.weight[18:] = 0.0  # of the border's pixels a padded kernel would make others
    x = torch.randn(64, *SHAPE)
    inside = torch.randn(4, *SHAPE)
    cut = start(block, SHAPE, CutSpec(hidden=(12,)), x)
    with torch.no_grad():
        difference = (cut(inside) - block(inside))[..., 1:-1, 1:-1].abs().max()
        assert float(difference) < 2e-2 * float(block(inside).std())


class Between(nn.Module):
    """Two convolutions with an operation between them that may or may not mix their hidden channels."""

    def __init__(
        self, operation: Callable[..., Tensor], given: Callable[[], nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.enter, self.given, self.leave = nn.Conv2d(16, 32, 1), given(), nn.Conv2d(32, 8, 1)
        self.operation = operation
        self.scale = nn.Parameter(torch.rand(32) + 0.5)
        self.register_buffer("mask", torch.arange(32) % 2 == 0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.leave(self.operation(self.enter(x), self))
        return out


class Scaled(nn.Conv2d):
    """A convolution whose gain belongs to its channels, as those of networks without normalisation."""

    def __init__(self) -> None:
        super().__init__(32, 32, 1)
        self.gain = nn.Parameter(torch.rand(32, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight * self.gain, self.bias)


def normed() -> nn.Module:
    norm = nn.BatchNorm2d(32)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    return norm


PASS, STAY = [32], list[int]()
OPERATIONS: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "clamp": (lambda: Between(lambda y, _: y.clamp(0, 6)), PASS),
    "pooling": (lambda: Between(lambda y, _: nn.functional.max_pool2d(y, 3, 1, 1)), PASS),
    "a normalisation": (lambda: Between(lambda y, net: net.given(y), normed), PASS),
    "slopes": (lambda: Between(lambda y, net: net.given(y), lambda: nn.PReLU(32)), PASS),
    "one slope": (lambda: Between(lambda y, net: net.given(y), nn.PReLU), PASS),
    "depthwise": (
        lambda: Between(lambda y, net: net.given(y), lambda: nn.Conv2d(32, 32, 3, groups=32)),
        PASS,
    ),
    "there and back": (lambda: Between(lambda y, _: y.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2)), PASS),
    "a scale": (lambda: Between(lambda y, net: y * net.scale[:, None, None]), STAY),
    "a mask": (lambda: Between(lambda y, net: torch.where(net.mask[:, None, None], y, -y)), STAY),
    "slopes given": (lambda: Between(lambda y, net: nn.functional.prelu(y, net.scale)), STAY),
    "statistics given": (
        lambda: Between(lambda y, net: nn.functional.batch_norm(y, net.scale, net.scale)),
        STAY,
    ),
    "unflattened": (lambda: Between(lambda y, _: y.unflatten(1, (4, 8)).flip(2).flatten(1, 2)), STAY),
    "viewed": (lambda: Between(lambda y, _: y.view(-1, 8, 4, *y.shape[2:]).flip(1).reshape(y.shape)), STAY),
    "rolled": (lambda: Between(lambda y, _: y.roll(1, 1)), STAY),
    "softmax": (lambda: Between(lambda y, _: y.softmax(1)), STAY),
    "neighbours": (lambda: Between(lambda y, _: nn.functional.local_response_norm(y, 5, alpha=1e-2)), STAY),
    "groups": (lambda: Between(lambda y, net: net.given(y), lambda: nn.GroupNorm(4, 32)), STAY),
    "grouped": (lambda: Between(lambda y, net: net.given(y), lambda: nn.Conv2d(32, 32, 1, groups=4)), STAY),
    "a gain": (lambda: Between(lambda y, net: net.given(y), Scaled), STAY),
    "weights of weights": (
        lambda: Between(
            lambda y, net: net.given(y), lambda: parametrizations.weight_norm(nn.Conv2d(32, 32, 1))
        ),
        STAY,
    ),
    "a normalisation twice": (lambda: Between(lambda y, net: net.given(net.given(y).relu()), normed), STAY),
    "a normalisation of rows": (
        lambda: Between(
            lambda y, net: net.given(y.transpose(1, 2)).transpose(1, 2), lambda: nn.BatchNorm2d(32)
        ),
        STAY,
    ),
    "by keyword": (
        lambda: Between(lambda y, net: net.given(input=y), lambda: nn.Conv2d(32, 32, 1)),
        [32, 32],
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_channels_go_only_where_nothing_else_sees_them(name: str, scale: float) -> None:
    """What is found does not hang on how large values are; without them the block is as if none read them."""
    make, sizes = OPERATIONS[name]
    shape = (16, 32, 32)
    block: Any = seeded(make)
    with torch.no_grad():
        block.enter.weight *= scale
        block.enter.bias *= scale
    groups = find_hidden(block, shape)
    assert [group.size for group in groups] == sizes
    if not groups:
        return
    spec = CutSpec(hidden=(16,) * len(groups))
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    assert math.isfinite(error(start(block, shape, spec, x), block, x))
    if len(groups) == 1:
        plain: Any = start_cut(spec, block, groups, {})
        with torch.no_grad():
            left = plain.leave.weight.unbind(1)
            gone = [not any(torch.equal(w, each) for each in left) for w in block.leave.weight.unbind(1)]
            assert sum(gone) == 16
            block.leave.weight[:, torch.tensor(gone)] = 0.0
            assert error(plain, block, x) <= 1e-10 * float(block(x).square().mean())


def moments_of(x: Tensor) -> Tensor:
    values = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    return values.T @ values / len(x)


def test_fitted_weights_are_those_of_least_squares() -> None:
    x = torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 1
    weight = torch.randn(3, 6, dtype=torch.float64)
    columns = torch.tensor([0, 2, 5, 6])
    found = refitted(moments_of(x), torch.nn.functional.pad(weight, (0, 1)), columns)
    values = torch.cat([x, torch.ones(500, 1, dtype=torch.float64)], 1)[:, columns]
    wanted = torch.linalg.lstsq(values, x @ weight.T).solution.T
    assert torch.allclose(found, wanted)


@pytest.mark.parametrize("each", [1, 4])
def test_the_channel_that_goes_first_costs_least_of_all(each: int) -> None:
    torch.manual_seed(3)
    channels, wide = 5, 5 * each
    x = torch.randn(400, wide, dtype=torch.float64) @ torch.randn(wide, wide, dtype=torch.float64)
    weight = torch.randn(3, wide, dtype=torch.float64)
    order = removal_order(moments_of(x), torch.nn.functional.pad(weight, (0, 1)), channels)

    def loss(gone: int) -> float:
        kept = [c * each + n for c, n in itertools.product(range(channels), range(each)) if c != gone]
        values = torch.cat([x[:, kept], torch.ones(400, 1, dtype=torch.float64)], 1)
        solved = torch.linalg.lstsq(values, x @ weight.T).solution
        return float((values @ solved - x @ weight.T).square().sum())

    assert sorted(order.tolist()) == list(range(channels))
    assert int(order[0]) == min(range(channels), key=loss)


def test_too_few_samples_count_with_their_mean() -> None:
    block: Any = seeded(Separable)
    (group,) = find_hidden(block, SHAPE)
    few = take_moments(block, ["leave"], [torch.randn(1, *SHAPE)])
    assert few["leave"].samples < 2 * 24 * 9
    cut: Any = start_cut(CutSpec(hidden=(8,)), block, [group], few)
    columns = [
        c
        for c in range(24)
        if any(torch.equal(block.leave.weight[:, c], w) for w in cut.leave.weight.unbind(1))
    ]
    assert len(columns) == 8
    assert not torch.equal(cut.leave.bias, block.leave.bias)


def test_a_spec_of_another_block_is_refused() -> None:
    for hidden in ((8, 8), (25,)):
        with pytest.raises(InputError, match="does not fit the block, whose hidden channels are 24"):
            build_cut(CutSpec(hidden=hidden), seeded(Separable), SHAPE)
    with pytest.raises(InputError, match="hidden channels are none"):
        build_cut(CutSpec(hidden=(8,)), seeded(Mixed), SHAPE)


def test_the_cuts_of_a_table() -> None:
    table = CutTable(share=(0.5, 0.25, 1.0, 0.45), left_out=(True,))
    block = seeded(Separable)
    found = cut_specs(table, block, SHAPE, SHAPE)
    assert [spec.name for spec in found] == ["left-out", "cut-8", "cut-16"]
    assert all(spec.hidden for spec in cut_specs(table, block, SHAPE, (16, 6, 6)))
    assert isinstance(build_cut(found[0], block, SHAPE), nn.Identity)
    assert load_space("cuts").cut is not None


def test_groups_say_which_layers_there_are() -> None:
    block = seeded(lambda: timm.create_model("efficientnet_b0").blocks[1][1])
    (group,) = find_hidden(block, (24, 12, 12))
    assert group.makers == ("conv_pw", "se.conv_expand")
    assert set(group.through) == {"bn1", "conv_dw", "bn2"}
    assert [(reader.name, reader.norm) for reader in group.readers] == [
        ("conv_pwl", "bn3"),
        ("se.conv_reduce", None),
    ]
    assert isinstance(group, Hidden)
    assert Moments(second=torch.eye(2), samples=1).samples == 1


@pytest.mark.parametrize(
    ("name", "blocks", "sizes"),
    [("efficientnet_lite0", 17, [0, 1, 1]), ("resnet18", 8, [1, 1]), ("convnext_atto", 15, [1, 1, 0, 1])],
)
def test_layers_as_blocks(name: str, blocks: int, sizes: list[int]) -> None:
    parts = partition(timm.create_model(name).eval(), (3, 64, 64), Blocks(layers=True))
    assert parts.max_abs_difference == 0
    assert parts.block_count == blocks
    found = [len(find_hidden(parts.first[n], parts.part_shapes(n)[0])) for n in range(1, len(sizes) + 1)]
    assert found == sizes


@pytest.mark.slow
def test_a_run_of_cuts_layer_by_layer(workplace: Path) -> None:
    """From the partition to the checkpoint, left-out layers among the choices."""
    library = replace(LIBRARY, model="narrowable:make", data="digits", space="cuts", layers=True, per_block=0)
    search = replace(SEARCH, picks=("knee", "speedup=1.5"), filter="device")
    out = workplace / "run"
    result = run_job(library, search, out, "hwnas compress …", Progress(), allow_code=True)
    blocks = BlockCosts.read(out / "devices" / "sim-npu", "")
    assert blocks is not None
    costs = {(part.name, choice.name): choice.cost for part in blocks.parts for choice in part.choices}
    assert {("block1", "cut-32"), ("block2", "cut-8"), ("block3", "cut-48")} <= {*costs}
    assert costs["block1", "left-out"] == costs["block3", "left-out"] == 0
    assert ("block2", "left-out") not in costs
    specs = []
    for checkpoint in result["checkpoints"]:
        path = Path(checkpoint["path"])
        specs += [spec for spec in ArchitectureSpec.read(path / "architecture.json").parts if spec]
        module, x = hwnas.load(path, allow_code=True), torch.rand(1, 3, 32, 32)
        assert checkpoint["macs"] == count(module, (3, 32, 32))[0] < checkpoint["macs_reference"]
        (found,) = ort.InferenceSession(path / "model.onnx").run(None, {"input": x.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(found), module(x), atol=1e-4)
    assert specs
    assert all(isinstance(spec, CutSpec) for spec in specs)


def test_a_left_out_layer_learns_nothing_and_costs_nothing(workplace: Path) -> None:
    parts = partition(narrowable.make().eval(), (3, 32, 32), Blocks(layers=True))
    found = {c.name: c for c in find_candidates(parts, load_space("cuts"))}
    assert [name for name in found if "left-out" in name] == ["block1-left-out", "block3-left-out"]
    assert (found["block1-left-out"].macs, found["block1-left-out"].params) == (0, 0)
