from __future__ import annotations

import math
from collections import Counter

import pytest
import timm
from torch import nn

from hwnas.compress.architecture import build_part
from hwnas.compress.blocks import InvertedBottleneckSpec, count
from hwnas.compress.partition import Partition, partition
from hwnas.compress.space import Candidate, architecture_count, compression_space
from hwnas.errors import InputError


@pytest.fixture(scope="module", params=[32, 224])
def b0(request: pytest.FixtureRequest) -> Partition:
    return partition(timm.create_model("efficientnet_b0", num_classes=10).eval(), (3,) + (request.param,) * 2)


def specs_of(candidates: list[Candidate], part: int) -> list[InvertedBottleneckSpec]:
    specs = [candidate.spec for candidate in candidates if candidate.part == part]
    return [spec for spec in specs if isinstance(spec, InvertedBottleneckSpec)]


def test_the_compression_space_of_b0_is_the_papers(b0: Partition) -> None:
    candidates = compression_space(b0)
    assert len(candidates) == 135
    assert Counter(c.part for c in candidates) == dict.fromkeys(range(1, 6), 27)
    assert [c.choice for c in candidates] == list(range(1, 28)) * 5
    assert len({c.name for c in candidates}) == 135
    assert architecture_count(candidates) == 28**5


def test_every_candidate_is_smaller_than_its_block_counted_on_modules(b0: Partition) -> None:
    for candidate in compression_space(b0):
        shapes = b0.part_shapes(candidate.part)
        macs, params = count(b0.modules[candidate.part], shapes[0])
        own = count(build_part(b0, candidate.part, candidate.spec), shapes[0])
        assert own == (candidate.macs, candidate.params), candidate.name
        assert own[0] < macs, candidate.name
        assert own[1] < params, candidate.name


def test_the_space_covers_the_kinds_and_depends_on_nothing_else(b0: Partition) -> None:
    candidates = compression_space(b0)
    assert candidates == compression_space(b0)
    for block in range(1, 6):
        specs = specs_of(candidates, block)
        assert len({(spec.se, spec.layer) for spec in specs}) == 4
        assert {spec.kernel for spec in specs} == {3, 5}
        macs = [c.macs for c in candidates if c.part == block]
        assert macs == sorted(macs)
        assert max(macs) > 2 * min(macs)


@pytest.mark.parametrize("amount", [1, 2, 6])
def test_a_stated_few(b0: Partition, amount: int) -> None:
    candidates = compression_space(b0, amount)
    assert Counter(c.part for c in candidates) == dict.fromkeys(range(1, 6), amount)
    if amount == 6:
        for block in range(1, 6):
            assert len({(spec.se, spec.layer) for spec in specs_of(candidates, block)}) == 4


def test_no_more_than_there_are(parts: Partition) -> None:
    everything = compression_space(parts, 10_000)
    assert compression_space(parts, len(everything)) == everything
    per_block = Counter(c.part for c in everything)
    assert architecture_count(everything) == math.prod(1 + amount for amount in per_block.values())
    assert architecture_count([]) == 1


def test_a_network_without_any_smaller_candidate_is_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten())
    with pytest.raises(InputError, match="no block has a smaller candidate"):
        compression_space(partition(model, (3, 8, 8)))


def test_a_block_that_cannot_be_smaller_keeps_its_own_choice_alone() -> None:
    large = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 8, 3, padding=1))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), large, nn.Flatten())
    candidates = compression_space(partition(model, (3, 8, 8)), 5)
    assert [candidate.part for candidate in candidates] == [2] * 5
    assert architecture_count(candidates) == 6


def test_blocks_that_are_no_maps_are_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2), nn.Linear(36, 36), nn.Flatten())
    with pytest.raises(InputError, match=r"block 1 .* does not turn a map"):
        compression_space(partition(model, (3, 8, 8)))
