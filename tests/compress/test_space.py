from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.mobilenetv3 import _gen_mobilenet_v3
from torch import nn

from hwnas.compress.library.candidates import architecture_count, find_candidates
from hwnas.compress.library.space import Space, load_space, space_names
from hwnas.errors import InputError
from hwnas.networks.architecture import Candidate
from hwnas.networks.blocks.families import FAMILIES
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec
from hwnas.networks.blocks.variants import VariantSpec
from hwnas.networks.build import build_part
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count
from hwnas.networks.partition import Partition, partition

COMPRESSION = load_space("compression")
PAPERS = {"compression", "donna", "donnav2", "mobilenetv3"}


@pytest.fixture(scope="module", params=[32, 224])
def b0(request: pytest.FixtureRequest) -> Partition:
    return partition(timm.create_model("efficientnet_b0", num_classes=10).eval(), (3,) + (request.param,) * 2)


def of_blocks(candidates: list[Candidate]) -> list[Candidate]:
    return [c for c in candidates if not isinstance(c.spec, VariantSpec)]


def specs_of(candidates: list[Candidate], part: int) -> list[InvertedBottleneckSpec]:
    specs = [candidate.spec for candidate in candidates if candidate.part == part]
    return [spec for spec in specs if isinstance(spec, InvertedBottleneckSpec)]


def write(folder: Path, *changes: tuple[str, str], name: str = "mine.toml") -> str:
    """A space of one's own: donnav2 with some text replaced."""
    text = (Path(__file__).parents[2] / "hwnas/compress/library/spaces/donnav2.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "per_block"), [("donna", 384), ("donnav2", 192), ("compression", 27), ("mobilenetv3", 27)]
)
def test_the_presets_have_the_sizes_of_the_papers(b0: Partition, name: str, per_block: int) -> None:
    candidates = of_blocks(find_candidates(b0, load_space(name)))
    assert Counter(c.part for c in candidates) == dict.fromkeys(range(1, 6), per_block)
    for block in range(1, 6):
        assert [c.choice for c in candidates if c.part == block] == list(range(1, per_block + 1))
        macs = [c.macs for c in candidates if c.part == block]
        assert macs == sorted(macs)
    assert len({c.name for c in candidates}) == 5 * per_block == len(candidates)


def test_the_donna_space_is_the_one_that_is_printed() -> None:
    values = load_space("donna").tables["inverted-bottleneck"].combinations()
    assert {tuple(sorted(v.items())) for v in values} == {
        (("activation", a), ("depth", d), ("expand", e), ("kernel", k), ("layer", t), ("se", s), ("width", w))
        for k in (3, 5, 7)
        for e in (2, 3, 4, 6)
        for d in (1, 2, 3, 4)
        for a, s in (("relu", False), ("swish", True))
        for t in ("depthwise", "grouped")
        for w in (0.5, 1.0)
    }
    of_families = {
        "residual",
        "convnext",
        "transformer",
        "convolution",
        "naf",
        "csp",
        "separable",
        "upsample",
    }
    assert PAPERS | of_families | {"mixed", "restoration", "cuts", "splits", "shift"} == set(space_names())


def test_the_tables_of_the_docs_are_a_space(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text()
    (example,) = (part for part in text.split("```toml")[1:] if part.lstrip().startswith("name ="))
    (tmp_path / "mine.toml").write_text(example.split("```")[0])
    assert set(load_space(str(tmp_path / "mine.toml")).tables) == set(FAMILIES.names())


@pytest.mark.parametrize("multiplier", [1.0, 1.2])
def test_the_mobilenetv3_space_takes_activation_and_attention_from_the_block(multiplier: float) -> None:
    model = _gen_mobilenet_v3("mobilenetv3_large_100", multiplier, pretrained=False).eval()
    parts = partition(model, (3, 64, 64), Blocks(cuts=tuple([f"blocks.{n}" for n in range(6)])))
    candidates = of_blocks(find_candidates(parts, load_space("mobilenetv3")))
    assert len(candidates) == 135
    kinds = [{(s.activation, s.se) for s in specs_of(candidates, block)} for block in range(1, 6)]
    own = [("relu", False), ("relu", True), ("hswish", False), ("hswish", True), ("hswish", True)]
    assert kinds == [{kind} for kind in own]
    channels = [c * multiplier for c in (24, 40, 80, 112, 160)]
    assert all(abs(shape[0] - c) <= 4 for shape, c in zip(parts.shapes[2:7], channels, strict=True))


def test_a_donna_candidate_of_one_layer_halves_the_map(b0: Partition) -> None:
    candidates = find_candidates(b0, load_space("donna"))
    strides = 0
    for block in range(1, 6):
        in_shape, out_shape = b0.part_shapes(block)
        flat = [spec for spec in specs_of(candidates, block) if spec.depth == 1]
        assert len(flat) == 96
        module = build_part(b0, block, flat[0]).eval()
        with torch.no_grad():
            assert module(torch.zeros(1, *in_shape)).shape[1:] == out_shape
        strides += in_shape[1] != out_shape[1]
    assert strides == 4


@pytest.mark.slow
def test_every_candidate_is_smaller_than_its_block_counted_on_modules(b0: Partition) -> None:
    for candidate in of_blocks(find_candidates(b0, COMPRESSION)):
        shapes = b0.part_shapes(candidate.part)
        macs, params = count(b0.modules[candidate.part], shapes[0])
        own = count(build_part(b0, candidate.part, candidate.spec), shapes[0])
        assert own == (candidate.macs, candidate.params), candidate.name
        assert own[0] < macs, candidate.name
        assert own[1] < params, candidate.name


def test_the_space_covers_the_kinds_and_depends_on_nothing_else(b0: Partition) -> None:
    candidates = find_candidates(b0, COMPRESSION)
    assert candidates == find_candidates(b0, COMPRESSION)
    for block in range(1, 6):
        specs = specs_of(candidates, block)
        assert len({(spec.se, spec.layer) for spec in specs}) == 4
        assert {spec.kernel for spec in specs} == {3, 5}
        macs = [c.macs for c in candidates if c.part == block]
        assert max(macs) > 2 * min(macs)


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("amount", [1, 2, 6])
def test_a_stated_few_of_any_space(b0: Partition, name: str, amount: int) -> None:
    if name == "upsample":
        with pytest.raises(InputError, match="no block has a smaller candidate in 'upsample'"):
            find_candidates(b0, load_space(name), amount)
        return
    everything = of_blocks(find_candidates(b0, load_space(name), 10_000))
    candidates = of_blocks(find_candidates(b0, load_space(name), amount))
    assert {c.name for c in candidates} <= {c.name for c in everything}
    for block in range(1, 6):
        of_space = Counter(c.spec.kind for c in everything if c.part == block)  # type: ignore[union-attr]
        kinds = Counter(c.spec.kind for c in candidates if c.part == block)  # type: ignore[union-attr]
        assert kinds.total() == min(amount, of_space.total())
        assert len(kinds) == min(amount, len(of_space))
        assert all(k == of_space[kind] or max(kinds.values()) - k <= 1 for kind, k in kinds.items())
        for inside in (0, 2 if name in PAPERS else 1):  # the family, and the activation
            if name != "residual" and (name != "mixed" or inside == 0):
                found, all_of_it = ({kind[inside] for kind in of} for of in (kinds, of_space))
                assert len(found) == min(amount, len(all_of_it))


def test_stem_and_head_have_variants_of_themselves(b0: Partition) -> None:
    candidates = find_candidates(b0, COMPRESSION, 1)
    assert sorted(c.name for c in candidates if c.part == 0) == ["stem-no-se", "stem-relu", "stem-relu-no-se"]
    assert [c.name for c in candidates if c.part == 6] == ["head-relu"]
    assert [c.part for c in candidates] == sorted(c.part for c in candidates)


def test_no_more_than_there_are(parts: Partition) -> None:
    everything = find_candidates(parts, COMPRESSION, 10_000)
    assert find_candidates(parts, COMPRESSION, len(everything)) == everything
    per_block = Counter(c.part for c in everything)
    assert architecture_count(everything) == math.prod(1 + amount for amount in per_block.values())
    assert architecture_count([]) == 1


@pytest.mark.parametrize("amount", [-1, 1.5, "6", True])
def test_an_amount_that_is_none_is_refused(parts: Partition, amount: Any) -> None:
    with pytest.raises(InputError, match=f"candidates is {amount!r}"):
        find_candidates(parts, COMPRESSION, amount)


def test_a_network_without_any_smaller_candidate_is_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten())
    with pytest.raises(InputError, match="no block has a smaller candidate"):
        find_candidates(partition(model, (3, 8, 8)), COMPRESSION)


def test_a_space_of_which_nothing_fits_is_told(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 4), nn.Flatten())
    space = load_space(write(tmp_path, ("depth = [1, 2, 3, 4]", "depth = [1]")))
    with pytest.raises(InputError, match="no block has any candidate in 'donnav2'") as error:
        find_candidates(partition(model, (3, 18, 18)), space)
    assert "depth" in error.value.fix
    assert "(8, 16, 16) → (8, 4, 4)" in error.value.cause


def test_a_block_from_a_map_to_tokens_keeps_its_own_choice_alone() -> None:
    large = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 8, 3, padding=1))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), large, nn.Flatten(2), nn.Linear(36, 36), nn.Flatten())
    candidates = find_candidates(partition(model, (3, 8, 8)), COMPRESSION, 5)
    assert {candidate.part for candidate in candidates} == {1}


def test_a_block_that_cannot_be_smaller_keeps_its_own_choice_alone() -> None:
    large = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 8, 3, padding=1))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), large, nn.Flatten())
    candidates = find_candidates(partition(model, (3, 8, 8)), COMPRESSION, 5)
    assert [candidate.part for candidate in candidates] == [2] * 5
    assert architecture_count(candidates) == 6


def test_blocks_that_are_no_maps_are_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2), nn.Linear(36, 36), nn.Flatten())
    with pytest.raises(InputError, match=r"block 1 .* is neither between maps .* nor tokens"):
        find_candidates(partition(model, (3, 8, 8)), COMPRESSION)


def test_a_block_without_a_known_activation_cannot_be_the_model_of_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten())
    with pytest.raises(InputError, match="block 1 has no activation") as error:
        find_candidates(partition(model, (3, 8, 8)), load_space("mobilenetv3"))
    assert "--space FILE.toml" in error.value.fix


def test_a_space_of_ones_own(tmp_path: Path, b0: Partition) -> None:
    text = """
name = "mine"
description = "mine"
smaller = false
per_block = 5
[properties]
kernel = [9]
expand = [1, 2]
depth = [2]
layer = ["grouped"]
[[together]]
activation = "hswish"
se = true
width = 0.25
[[together]]
activation = "reference"
se = "reference"
width = 1.5
"""
    (tmp_path / "mine.toml").write_text(text)
    space = load_space(str(tmp_path / "mine.toml"))
    assert isinstance(space, Space)
    candidates = of_blocks(find_candidates(b0, space))
    assert Counter(c.part for c in candidates) == dict.fromkeys(range(1, 6), 4)
    kinds = {(s.activation, s.se, s.width, s.kernel) for n in range(1, 6) for s in specs_of(candidates, n)}
    assert kinds == {("hswish", True, 0.25, 9), ("swish", True, 1.5, 9)}


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("kernel = [3, 5]", "kernel = [3, 4]", "kernel is 4, it must be odd"),
        ("kernel = [3, 5]", "kernel = []", "properties.kernel is empty"),
        ("kernel = [3, 5]", "kernel = [3, 3]", "properties.kernel holds 3 twice"),
        ("kernel = [3, 5]", 'kernel = "big"', "properties.kernel"),
        ("kernel = [3, 5]", "kernel = [3.5]", "properties.kernel.0"),
        ("kernel = [3, 5]", "kernels = [3, 5]", "properties.kernels"),
        ("kernel = [3, 5]", "", "kernel is missing"),
        ("expand = [2, 3, 4]", "expand = [0]", "properties.expand.0: "),
        ("depth = [1, 2, 3, 4]", "depth = [65]", "depth is 65"),
        ("width = [0.5, 1.0]", "width = [-1]", "properties.width.0: "),
        ('["depthwise", "grouped"]', '["dense"]', "properties.layer.0"),
        ('activation = "relu"\n', 'activation = "tanh"\n', "together.0.activation"),
        ('activation = "relu"\n', "", "activation is missing"),
        ("se = false\n", 'se = "sometimes"\n', "together.0.se"),
        ("se = false\n", "se = 1\n", "together.0.se"),
        ('activation = "relu"\nse = false', 'activation = "swish"\nse = true', "together holds"),
        ("width = [0.5, 1.0]", "width = [1.0]\nse = [true]", "se stands in properties and in together"),
        ("smaller = false", "smaller = 0", "smaller"),
        ("smaller = false", "", "smaller"),
        ("smaller = false", "smaller = false\nper_block = -1", "per_block: "),
        ("smaller = false", "smaller = false\ncolour = 1", "colour"),
        ("smaller = false", "smaller = fals", "not valid TOML"),
    ],
)
def test_a_space_that_is_none_is_told_with_its_key(tmp_path: Path, old: str, new: str, names: str) -> None:
    path = write(tmp_path, (old, new))
    with pytest.raises(InputError) as error:
        load_space(path)
    assert names in error.value.cause
    assert path in error.value.cause
    assert path in error.value.fix


def test_a_space_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no space 'dona'") as error:
        load_space("dona")
    assert "did you mean donna" in error.value.fix
    with pytest.raises(InputError, match="cannot read"):
        load_space(str(tmp_path / "absent.toml"))
    with pytest.raises(InputError, match="cannot read"):
        (tmp_path / "folder.toml").mkdir()
        load_space(str(tmp_path / "folder.toml"))
