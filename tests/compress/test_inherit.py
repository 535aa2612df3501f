"""What candidates take over from the blocks that they replace."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
from tiny import make_spec
from torch import nn

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import initial_module
from hwnas.compress.library.metrics import ChannelStatistics
from hwnas.compress.library.space import load_space
from hwnas.networks.blocks.bottleneck import InvertedBottleneck
from hwnas.networks.blocks.inherit import find_bottlenecks, inherit
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec, build_candidate
from hwnas.networks.partition import partition

IN, OUT = (16, 12, 12), (24, 6, 6)
SAME = (24, 12, 12)


spec_of = partial(make_spec, expand=4, depth=3)


def make(spec: InvertedBottleneckSpec, in_shape: Any = IN, out_shape: Any = OUT) -> Any:
    """A module whose weights and statistics are all random."""
    module = build_candidate(spec, in_shape, out_shape).eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(
                    torch.rand_like(value) + 0.5 if "running_var" in name else torch.randn_like(value)
                )
    return module


def heir(block: nn.Module, spec: InvertedBottleneckSpec, in_shape: Any = IN, out_shape: Any = OUT) -> Any:
    module = make(spec, in_shape, out_shape)
    inherit(module, block, torch.arange(1.0, out_shape[0] + 1))
    return module


def agree(a: Any, b: Any, shape: Any = IN) -> bool:
    x = torch.randn(2, *shape)
    with torch.inference_mode():
        return torch.allclose(a(x), b(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changed", [{}, {"se": True, "activation": "swish"}, {"kernel": 5}, {"depth": 1}])
def test_a_candidate_like_its_block_is_its_block(changed: dict[str, Any]) -> None:
    block = make(spec_of(**changed))
    assert agree(heir(block, spec_of(**changed)), block)


def test_more_than_the_block_has_changes_nothing() -> None:
    block = make(spec_of())
    assert agree(heir(block, spec_of(kernel=5)), block)
    assert agree(heir(block, spec_of(expand=6)), block)
    assert agree(heir(block, spec_of(layer="grouped")), block)


def test_a_smaller_kernel_is_the_middle_of_the_larger_one() -> None:
    block = make(spec_of(kernel=5))
    small = heir(block, spec_of(kernel=3))
    with torch.no_grad():
        for layer in block:
            kernel = layer.spatial[0].weight
            middle = kernel[..., 1:4, 1:4].clone()
            kernel.zero_()
            kernel[..., 1:4, 1:4] = middle
    assert agree(small, block)


def test_the_hidden_channels_that_matter_least_are_left_out() -> None:
    block = make(spec_of(expand=4))
    narrow = heir(block, spec_of(expand=2))
    with torch.no_grad():
        for layer, small in zip(block, narrow.children(), strict=True):
            weight = layer.project[0].weight
            matter = layer.spatial[1].weight.abs() * weight.flatten(1).square().sum(0).sqrt()
            kept = set(matter.sort(descending=True).indices[: small.spatial[0].out_channels].tolist())
            for channel in set(range(weight.shape[1])) - kept:
                weight[:, channel] = 0
    assert agree(narrow, block)


def test_fewer_layers_take_after_the_first_ones() -> None:
    block = make(spec_of(depth=3))
    assert agree(heir(block, spec_of(depth=2)), block[:2])


def test_a_narrow_candidate_takes_the_channels_that_vary_most() -> None:
    block = make(spec_of(), SAME, SAME)
    narrow = heir(block, spec_of(width=0.5, expand=4), SAME, SAME)
    inner, first = narrow[0].project[0].out_channels, narrow[0].project[0].weight
    rows = block[0].project[0].weight[24 - inner :]  # `heir` says that later channels vary more
    for row in first.flatten(1):
        assert any(set(row.tolist()) <= set(other.tolist()) for other in rows.flatten(1))


def test_a_block_that_ends_wider_than_it_begins_gives_its_last_layer_too() -> None:
    """As where two stages are one block: 24 channels inside, 40 at the end."""
    wide = (40, 6, 6)
    block = make(spec_of(depth=3, width=0.6), IN, wide)
    assert agree(heir(block, spec_of(depth=3, width=0.6), IN, wide), block)
    assert agree(heir(block, spec_of(depth=2, width=0.6), IN, wide), nn.Sequential(block[0], block[2]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_large_100", "mnasnet_100", "ghostnet_100"],
)
def test_any_candidate_of_a_real_network_starts_finite(name: str) -> None:
    model = timm.create_model(name, num_classes=10).eval()
    parts = partition(model, (3, 64, 64))
    found = 0
    for candidate in find_candidates(parts, load_space("compression"), 6):
        if not 0 < candidate.part <= parts.block_count:
            continue
        channels = parts.shapes[candidate.part + 1][0]
        statistics = ChannelStatistics(mean=torch.zeros(channels), variance=torch.rand(channels) + 0.1)
        module = initial_module(candidate, parts, {candidate.part + 1: statistics}, 0).eval()
        with torch.inference_mode():
            assert module(torch.randn(2, *parts.shapes[candidate.part])).isfinite().all()
        found += len(find_bottlenecks(parts.modules[candidate.part]))
    assert found > 0 or name == "ghostnet_100"


def test_other_blocks_leave_a_candidate_as_it_was() -> None:
    for block in (
        nn.Sequential(nn.Conv2d(16, 24, 3, 2, padding=1), nn.BatchNorm2d(24)),
        make(spec_of(), (8, 12, 12), (40, 6, 6)),
        nn.Identity(),
    ):
        torch.manual_seed(1)
        before = make(spec_of())
        torch.manual_seed(1)
        after = heir(block, spec_of())
        assert isinstance(before[0], InvertedBottleneck)
        assert agree(before, after)
