"""Layers of the reference that become two, with fewer channels between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import onnxruntime as ort
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.space import load_space
from hwnas.errors import InputError
from hwnas.network import export_onnx
from hwnas.networks.blocks.closed_form import leading, read_by, start_cut, take_moments
from hwnas.networks.blocks.cut import CutSpec, CutTable, build_cut, cut_specs, is_left_out, splittable
from hwnas.networks.build import build_part
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count
from hwnas.networks.partition import partition


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def convolution(**options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 48, 3, **options), nn.LeakyReLU(0.1))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (convolution, (16, 10, 10)),
    "with a stride, reflected": (
        lambda: convolution(stride=2, padding=1, padding_mode="reflect"),
        (16, 12, 12),
    ),
    "dilated, same size, no bias": (
        lambda: convolution(dilation=2, padding="same", bias=False),
        (16, 12, 12),
    ),
    "normalised": (
        lambda: nn.Sequential(nn.Conv2d(24, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        (24, 8, 8),
    ),
    "several": (lambda: nn.Sequential(convolution(), nn.Conv2d(48, 64, 3)), (16, 9, 9)),
    "tokens": (lambda: timm.create_model("vit_tiny_patch16_224").blocks[0], (9, 192)),
    "residual": (lambda: timm.create_model("resnet18", zero_init_last=False).layer2[0], (64, 8, 8)),
}


def specs_of(block: nn.Module, shape: tuple[int, ...], *shares: float) -> list[CutSpec]:
    return cut_specs(CutTable(rank=shares), block, shape, ())


def started(block: nn.Module, spec: CutSpec, x: Tensor) -> nn.Module:
    return start_cut(spec, block, (), take_moments(block, read_by([spec], block, ()), [x]))


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_the_more_channels_stay_between_the_nearer_and_the_larger(name: str) -> None:
    make, shape = LAYERS[name]
    block, x = seeded(make), torch.randn(32, *shape, generator=torch.Generator().manual_seed(1))
    wanted, whole = block(x), count(block, shape)
    specs = specs_of(block, shape, 0.25, 0.5)
    assert len(specs) == 2
    made = [started(block, spec, x) for spec in specs]
    costs = [count(each, shape) for each in made]
    assert costs[0] < costs[1] < whole
    errors = [float((each(x) - wanted).square().mean()) for each in made]
    assert errors[0] > errors[1] > 0
    assert errors[1] < float(wanted.var())
    for spec, each in zip(specs, made, strict=True):
        again = build_cut(spec, block, shape)
        again.load_state_dict(each.state_dict())
        torch.testing.assert_close(again(x), each(x))


@torch.no_grad()
@pytest.mark.parametrize("is_layer", [False, True])
def test_no_layer_of_that_rank_comes_nearer(is_layer: bool) -> None:
    torch.manual_seed(0)
    x: Tensor
    if is_layer:
        layer: Any = nn.Linear(12, 20)
        x = torch.randn(50, 12) * torch.arange(1.0, 13) + 3
    else:
        layer = nn.Conv2d(6, 20, 3)
        x = torch.randn(8, 6, 7, 7).cumsum(2) + 1
    moments = take_moments(nn.Sequential(layer), ["0"], [x])["0"]
    first, second, added = leading(layer, 5, moments)
    outputs = layer(x)
    rows = (outputs if is_layer else outputs.permute(0, 2, 3, 1).flatten(0, 2)).double()
    inputs = x if is_layer else functional.unfold(x, 3).transpose(1, 2).flatten(0, 1)
    found = (inputs @ first.T @ second.T + added).double()
    # Eckart and Young: what the singular values behind the fifth hold is lost, and no less.
    lost = torch.linalg.svdvals(rows - rows.mean(0))[5:].square().sum()
    torch.testing.assert_close((found - rows).square().sum(), lost, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_layer_whose_outputs_are_of_low_rank_is_kept_whole() -> None:
    block: Any = seeded(lambda: nn.Sequential(nn.Conv2d(16, 48, 3)))
    block[0].weight.copy_((torch.randn(48, 8) @ torch.randn(8, 144)).view(48, 16, 3, 3))
    x = torch.randn(16, 16, 8, 8) + 2
    (spec,) = specs_of(block, (16, 8, 8), 1 / 6)
    assert spec.ranks == (8,)
    torch.testing.assert_close(started(block, spec, x)(x), block(x), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_without_moments_the_weights_decide() -> None:
    layer = seeded(lambda: nn.Linear(12, 20))
    assert isinstance(layer, nn.Linear)
    first, second, added = leading(layer, 5, None)
    torch.testing.assert_close(added, layer.bias)
    u, s, v = torch.linalg.svd(layer.weight)
    torch.testing.assert_close(second @ first, u[:, :5] * s[:5] @ v[:5], rtol=1e-4, atol=1e-5)


def test_only_layers_that_become_smaller_are_split() -> None:
    block = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 64, 3), nn.Conv2d(64, 64, 3, groups=64)).eval()
    assert list(splittable(block)) == ["0", "1"]
    (spec,) = specs_of(block, (16, 9, 9), 0.5)
    assert spec.ranks == (0, 32)
    assert spec.name == "split-0-32"
    assert spec.kind == ("cut", "split")
    assert not is_left_out(spec)
    assert specs_of(block, (16, 9, 9), 1.0) == []


class Own(nn.Conv2d):
    """A convolution that does more than torch's."""


def test_layers_that_are_more_than_torchs_stay() -> None:
    attention = nn.MultiheadAttention(64, 4)
    block = nn.Sequential(Own(16, 48, 3), parametrizations.weight_norm(nn.Conv2d(48, 48, 3)), attention)
    assert splittable(block) == {}


def test_a_spec_of_another_block_is_refused() -> None:
    with pytest.raises(InputError, match="in which 1 layers can be split"):
        build_cut(CutSpec(hidden=(), ranks=(8, 8)), convolution(), (16, 9, 9))


class Chain(nn.Module):
    """Convolutions without padding, as waifu2x."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 32, 64]
        layers = [nn.Conv2d(i, o, 3) for i, o in itertools.pairwise(widths)]
        self.body = nn.Sequential(*(each for layer in layers for each in (layer, nn.LeakyReLU(0.1))))
        self.up = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.body(x))
        return y


@torch.no_grad()
def test_a_block_of_one_convolution_has_such_candidates() -> None:
    parts = partition(seeded(Chain), (3, 20, 20), Blocks())
    found = find_candidates(parts, load_space("splits"))
    split = [each for each in found if isinstance(each.spec, CutSpec) and each.spec.ranks]
    assert {each.part_name for each in split} == {"block1", "block2"}
    module = build_part(parts, split[-1].part, split[-1].spec).eval()
    x = torch.randn(1, *parts.part_shapes(split[-1].part)[0])
    graph = export_onnx(module, x.shape)
    (y,) = ort.InferenceSession(graph).run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), module(x), rtol=1e-4, atol=1e-5)
