"""What candidates for networks that restore or detect take over from the blocks that they replace."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from family_candidates import (
    CANDIDATES,
    AtOneSize,
    Shapes,
    agree,
    chain,
    convolution,
    heir,
    norm_of,
    randomised,
    upsample,
)
from reference_blocks import C3, EdsrBlock, NafBlock, SeparableTower
from torch import Tensor, nn

from hwnas.compress.library.metrics import StatisticsAccumulator
from hwnas.compress.training.loop import learning_rate_factor
from hwnas.networks.blocks.csp import CspSpec
from hwnas.networks.blocks.families import (
    build_replacement,
    learning_rate,
    start_replacement,
)
from hwnas.networks.blocks.family import FamilySpec
from hwnas.networks.blocks.naf import NafSpec
from hwnas.networks.blocks.residual import ResidualSpec
from hwnas.networks.blocks.separable import SeparableSpec

SAME: Shapes = ((16, 20, 20), (16, 20, 20))


@pytest.mark.parametrize(
    ("word", "activation"),
    [
        ("relu", nn.ReLU),
        ("leaky_relu", lambda: nn.LeakyReLU(0.1)),
        ("prelu", lambda: nn.PReLU(16)),
        ("prelu", nn.PReLU),
        ("swish", nn.SiLU),
    ],
)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_chain_like_its_block_is_its_block(
    word: Any, activation: Callable[[], nn.Module], norm: Any
) -> None:
    block = chain(16, 3, padding=1, activation=activation, norm=norm == "batch")
    for spec in (convolution(), convolution(kernel=5), convolution(width=1.5)):
        changed = convolution(kernel=spec.kernel, width=spec.width, activation=word, output=word, norm=norm)
        assert agree(heir(changed, block, SAME), block, SAME[0]), changed.name


def test_a_normalisation_becomes_part_of_weights_where_a_candidate_has_none() -> None:
    block = chain(16, 3, padding=1, activation=nn.ReLU, norm=True)
    assert agree(heir(convolution(), block, SAME), block, SAME[0])


def test_a_leaky_slope_of_the_block_is_learnt_by_a_prelu() -> None:
    block = chain(16, 2, padding=1, activation=lambda: nn.LeakyReLU(0.3))
    spec = convolution(depth=2, activation="prelu", output="prelu")
    assert agree(heir(spec, block, SAME), block, SAME[0])


def test_a_chain_without_padding_is_its_block_and_starts_with_its_first_layers() -> None:
    block = chain(16, 4, padding=0, activation=lambda: nn.LeakyReLU(0.1))
    shapes: Shapes = ((16, 24, 24), (16, 16, 16))
    words: dict[str, Any] = {"activation": "leaky_relu", "output": "leaky_relu", "padded": False}
    assert agree(heir(convolution(depth=4, **words), block, shapes), block, shapes[0])
    fewer: Any = heir(convolution(depth=2, kernel=5, **words), block, shapes)
    first = fewer[0].convolution.weight
    assert torch.equal(first[..., 1:4, 1:4], block[0].weight)
    assert not first[..., 0, :].any()


def test_the_channels_that_matter_most_are_taken() -> None:
    block = chain(16, 2, padding=1, activation=nn.ReLU)
    narrow: Any = heir(convolution(depth=2, width=0.5), block, SAME)
    norms = norm_of(block[0].weight, (1, 2, 3)) * norm_of(block[2].weight, (0, 2, 3))
    kept = norms.topk(8).indices.sort().values
    assert torch.equal(narrow[0].convolution.weight, block[0].weight[kept])


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_residual_layers_without_normalisation_take_after_edsrs(scale: float) -> None:
    block = nn.Sequential(*(EdsrBlock(16, scale) for _ in range(3))).eval()

    def spec(depth: int, kernel: int = 3, norm: Any = "none") -> ResidualSpec:
        return ResidualSpec(
            layer="basic",
            kernel=kernel,
            depth=depth,
            width=1.0,
            activation="relu",
            se=False,
            output="linear",
            norm=norm,
        )

    assert agree(heir(spec(3), block, SAME), block, SAME[0])
    assert agree(heir(spec(3, kernel=5), block, SAME), block, SAME[0])
    assert agree(heir(spec(2), block, SAME), block[:2], SAME[0])
    assert not agree(heir(spec(3, norm="layer"), block, SAME), block, SAME[0])
    beside = convolution(depth=2, skip=True, output="linear")
    assert agree(heir(beside, block[:1], SAME), block[:1], SAME[0])


def test_gated_layers_take_after_nafnets() -> None:
    block: Any = randomised(nn.Sequential(*(NafBlock(16) for _ in range(3))))
    assert agree(heir(NafSpec(kernel=3, expand=2.0, depth=3), block, SAME), block, SAME[0])
    assert agree(heir(NafSpec(kernel=5, expand=2.0, depth=3), block, SAME), block, SAME[0])
    assert agree(heir(NafSpec(kernel=3, expand=3.0, depth=3), block, SAME), block, SAME[0])
    assert agree(heir(NafSpec(kernel=3, expand=2.0, depth=2), block, SAME), block[:2], SAME[0])
    narrow = heir(NafSpec(kernel=3, expand=1.0, depth=3), block, SAME)
    for layer in block:  # the gates that lead on to the least are left out
        for project, before in ((layer.conv3, layer.sca), (layer.conv5, None)):
            least = norm_of(project.weight, (0, 2, 3)).argsort()[:8]
            with torch.no_grad():
                project.weight[:, least] = 0
                if before is not None:
                    before[1].weight[:, least] = 0
    assert agree(narrow, block, SAME[0])


@pytest.mark.parametrize("stride", [False, True])
def test_csp_takes_after_c3(stride: bool) -> None:
    shapes: Shapes = ((16, 20, 20), (32, 10, 10)) if stride else ((16, 20, 20), (32, 20, 20))
    block: Any = randomised(C3(16, 32, 2, halving=stride))

    def spec(depth: int = 2, width: float = 0.5) -> CspSpec:
        return CspSpec(kernel=3, depth=depth, width=width, activation="swish", output="swish")

    assert agree(heir(spec(), block, shapes), block, shapes[0])
    assert not agree(heir(spec(depth=1), block, shapes), block, shapes[0])
    fewer: Any = heir(spec(depth=1, width=0.25), block, shapes)
    through = block.cv1[0].weight
    assert all(
        any(torch.equal(row, other) for other in through) for row in fewer[-1].through.convolution.weight
    )


def test_separable_layers_take_after_a_tower() -> None:
    block: Any = randomised(SeparableTower(16, 3))

    def spec(depth: int = 3, kernel: int = 3, width: float = 1.0) -> SeparableSpec:
        return SeparableSpec(kernel=kernel, depth=depth, width=width, activation="swish", output="swish")

    assert agree(heir(spec(), block, SAME), block, SAME[0])
    assert agree(heir(spec(kernel=5), block, SAME), block, SAME[0])
    fewer: Any = heir(spec(depth=2), block, SAME)
    assert agree(fewer[:1], block.layers[:4], SAME[0])
    narrow: Any = heir(spec(width=0.5), block, SAME)
    rows = block.layers[1].weight
    assert all(any(torch.equal(row, other) for other in rows) for row in narrow[0].pointwise.weight)


@pytest.mark.parametrize("kind", ["transposed", "pixel-shuffle"])
def test_ends_take_after_waifu2xs_and_espcns(kind: Any) -> None:
    first: Any = nn.Sequential(nn.Conv2d(16, 16, 3), nn.LeakyReLU(0.1))
    end: nn.Module = nn.ConvTranspose2d(16, 3, 4, 2, padding=3)
    if kind == "pixel-shuffle":
        end = nn.Sequential(nn.Conv2d(16, 12, 3), nn.PixelShuffle(2))
    block: Any = nn.Sequential(*first, *(end if isinstance(end, nn.Sequential) else [end])).eval()
    shapes: Shapes = ((16, 20, 20), (3, 32, 32))
    assert agree(heir(upsample(upsample=kind), block, shapes), block, shapes[0])
    narrow: Any = heir(upsample(upsample=kind, width=0.5), block, shapes)
    rows = block[0].weight
    assert all(any(torch.equal(row, other) for other in rows) for row in narrow[0].convolution.weight)


def test_what_a_block_does_otherwise_leaves_a_candidate_as_it_was() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x).tanh() * self.b(x)
            return y

    others = [
        nn.Identity(),
        Crossed(),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(3, 1, 1)),
        AtOneSize(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=4),
    ]
    for (spec, shapes), block in itertools.product(CANDIDATES, others):
        fresh, after = heir(spec, nn.Identity(), shapes), heir(spec, block, shapes)
        if not isinstance(block, nn.Conv2d) or block.groups > 1:
            assert agree(fresh, after, shapes[0]), (spec.name, type(block))


def smooth(images: int, channels: int, side: int, seed: int) -> Tensor:
    """Random maps without fine detail, of variance about one. (images, channels, side, side)"""
    noise = torch.randn(images, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, (side, side), mode="bicubic")


def kinds() -> dict[str, tuple[nn.Module, FamilySpec]]:
    """A block of each kind of reference, and a candidate that is smaller."""
    torch.manual_seed(0)
    return {
        "EDSR's body": (
            nn.Sequential(*(EdsrBlock(16, 0.5) for _ in range(3))),
            ResidualSpec(
                layer="basic",
                kernel=3,
                depth=2,
                width=1.0,
                activation="relu",
                se=False,
                output="linear",
                norm="none",
            ),
        ),
        "DnCNN's body": (chain(16, 3, padding=1, activation=nn.ReLU), convolution(depth=2)),
        "waifu2x's body": (
            chain(16, 3, padding=0, activation=lambda: nn.LeakyReLU(0.1)),
            convolution(kernel=5, depth=2, padded=False, activation="leaky_relu", output="leaky_relu"),
        ),
        "NAFNet's layers": (
            randomised(nn.Sequential(*(NafBlock(16) for _ in range(3)))),
            NafSpec(kernel=3, expand=1.0, depth=3),
        ),
        "C3": (
            randomised(C3(16, 16, 2)),
            CspSpec(kernel=3, depth=1, width=0.5, activation="swish", output="swish"),
        ),
        "EfficientDet's tower": (
            randomised(SeparableTower(16, 3)),
            SeparableSpec(kernel=3, depth=2, width=1.0, activation="swish", output="swish"),
        ),
        "waifu2x's end": (
            nn.Sequential(nn.Conv2d(16, 32, 3), nn.LeakyReLU(0.1), nn.ConvTranspose2d(32, 3, 4, 2, 3)),
            upsample(width=0.5, kernel=3),
        ),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_two_epochs_of_distillation_teach_a_candidate_and_inherited_weights_help(kind: str) -> None:
    block, spec = kinds()[kind]
    train, val = smooth(96, 16, 24, seed=0), smooth(32, 16, 24, seed=1)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    statistics = StatisticsAccumulator()
    with torch.no_grad():
        block.train()(train)
        target, wanted = block.eval()(train), block(val)
    statistics.add(target)
    mean, variance = statistics.result().mean, statistics.result().variance

    def nsr(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = ((module(x) - y).square() / variance[:, None, None]).mean()
        return loss

    def distilled(inherits: bool) -> tuple[float, float]:
        torch.manual_seed(0)
        module = build_replacement(spec, tuple(train.shape[1:]), tuple(target.shape[1:]))
        start_replacement(module, spec, block if inherits else nn.Identity(), mean, variance)
        optimizer = torch.optim.AdamW(module.parameters(), learning_rate(spec), weight_decay=0.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: learning_rate_factor(n, 24))
        with torch.no_grad():
            before = float(nsr(module.eval(), val, wanted))
        for _ in range(2):
            for x, y in zip(torch.split(train, 8), torch.split(target, 8), strict=True):
                optimizer.zero_grad()
                nsr(module.train(), x, y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        with torch.no_grad():
            return before, float(nsr(module.eval(), val, wanted))

    fresh, inherited = distilled(False), distilled(True)
    assert inherited[1] < 0.8 * inherited[0]
    assert fresh[1] < fresh[0]
    assert inherited[1] < fresh[1]
