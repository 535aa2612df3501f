"""The reference's features: the same bits whether they are kept or made anew, and never damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from features import features_of

from hwnas.compress.data import Data, Images
from hwnas.compress.library import teacher as teachers
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import (
    DistillSettings,
    distill,
    positions_of,
    targets_of,
    teacher_statistics,
)
from hwnas.compress.library.space import load_space
from hwnas.compress.library.teacher import Split, Teacher, keep_features
from hwnas.networks.partition import Partition, partition

BATCH = 16


@pytest.fixture
def plain(parts: Partition, data: Data) -> Teacher:
    return Teacher(parts, data, {})


def all_positions(teacher: Teacher) -> range:
    return range(len(teacher.parts.shapes))


def keeping(plain: Teacher, folder: Path, say: Callable[[str], None] = lambda text: None) -> Teacher:
    kept = keep_features(plain, folder, all_positions(plain), BATCH, say)
    return Teacher(plain.parts, plain.data, kept)


class NoPass(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the teacher was run")


def without_network(teacher: Teacher) -> Teacher:
    """The same one, which can only read."""
    parts = replace(teacher.parts, modules=tuple(NoPass() for _ in teacher.parts.modules))
    return Teacher(parts, teacher.data, teacher._kept)


def assert_same(a: Teacher, b: Teacher) -> None:
    positions = all_positions(a)
    passes = [(t.train_batches(BATCH, 3, 1, positions), *both_splits(t)) for t in (a, b)]
    for first, second in zip(*passes, strict=True):
        for x, y in zip(first, second, strict=True):
            assert x.keys() == y.keys() == set(positions)
            assert all(torch.equal(x[p], y[p]) and x[p].stride() == y[p].stride() for p in positions)


def both_splits(teacher: Teacher) -> list[object]:
    splits: tuple[Split, ...] = ("train", "val")
    return [teacher.batches(split, BATCH, all_positions(teacher)) for split in splits]


def test_kept_features_are_the_same_bits(plain: Teacher, tmp_path: Path) -> None:
    assert_same(plain, without_network(keeping(plain, tmp_path / "features")))


@pytest.mark.parametrize("model", ["mobilenetv3_large_100", "vit_tiny_patch16_224"])
def test_of_networks_with_attention_and_tokens_too(model: str, tmp_path: Path) -> None:
    """The last batches are not full: 37 and 5 images."""
    pixels = torch.randint(0, 256, (42, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    train, val = Images(pixels=pixels[:37], labels=None), Images(pixels=pixels[37:], labels=None)
    data = Data(name="noise", train=train, val=val, test=val, mean=(0.5,) * 3, std=(0.25,) * 3)
    options = {"img_size": 32} if model.startswith("vit") else {}
    parts = partition(timm.create_model(model, num_classes=10, **options).eval(), data.image_shape)
    plain = Teacher(parts, data, {})
    assert_same(plain, without_network(keeping(plain, tmp_path / "features")))


def test_features_are_those_of_the_parts(plain: Teacher) -> None:
    images = plain.data.val.pixels
    expected = features_of(plain.parts, plain.data.normalize(images))
    batches = list(plain.batches("val", BATCH, all_positions(plain)))
    for position, whole in enumerate(expected):
        found = torch.cat([features[position] for features in batches])
        assert torch.allclose(found, whole, atol=1e-5)
        assert len(found) == len(images)


def test_only_what_is_asked_for_is_kept(plain: Teacher, tmp_path: Path) -> None:
    kept = keep_features(plain, tmp_path / "features", [0, 2], BATCH, pytest.fail)
    assert kept.keys() == {("train", 2), ("val", 2)}
    only = without_network(Teacher(plain.parts, plain.data, kept))
    assert next(iter(only.batches("val", BATCH, [0, 2]))).keys() == {0, 2}
    with pytest.raises(AssertionError, match="was run"):
        next(iter(only.batches("val", BATCH, [1])))


def test_candidates_are_the_same_bits_whatever_is_kept(
    parts: Partition, plain: Teacher, tmp_path: Path
) -> None:
    candidates = find_candidates(parts, load_space("compression"), 2)
    how = DistillSettings(loss="nsr", epochs=2, steps=None, batch_size=BATCH, seed=0)
    kept = keep_features(plain, tmp_path / "features", positions_of(parts, candidates), BATCH, pytest.fail)
    results = []
    for teacher in (plain, Teacher(parts, plain.data, kept)):
        statistics = teacher_statistics(teacher, targets_of(parts, candidates), BATCH)
        results.append(distill(candidates, teacher, statistics, how))
    for one, other in zip(*results, strict=True):
        assert one.metrics == other.metrics is not None
        assert all(torch.equal(value, other.state[key]) for key, value in one.state.items())


class Files(NamedTuple):
    folder: Path
    made_ns: dict[str, int]


@pytest.fixture
def files(plain: Teacher, tmp_path: Path) -> Files:
    folder = tmp_path / "features"
    keeping(plain, folder)
    return Files(folder, times(folder))


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_what_a_killed_process_left_is_read_again(plain: Teacher, files: Files) -> None:
    assert_same(plain, without_network(keeping(plain, files.folder)))
    assert times(files.folder) == files.made_ns


@pytest.mark.parametrize("damage", ["bit", "short", "missing", "record", "no record"])
def test_damaged_features_are_made_again(damage: str, plain: Teacher, files: Files) -> None:
    folder, _ = files
    victim = folder / "train-2.f32"
    content = bytearray(victim.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "short":
        victim.write_bytes(content[:-4])
    elif damage == "missing":
        victim.unlink()
    elif damage == "record":
        (folder / "features.json").write_text('{"schema": "hwnas.features/1", "sha256": 3}')
    else:
        (folder / "features.json").unlink()
    assert_same(plain, without_network(keeping(plain, folder)))


def test_features_that_are_too_large_are_not_kept(
    plain: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "BOUND_BYTES", 1000)
    said: list[str] = []
    assert_same(plain, keeping(plain, tmp_path / "features", said.append))
    assert "are not kept" in said[0]
    assert not list((tmp_path / "features").glob("*.f32"))


def test_a_full_disk_keeps_nothing_and_says_so(
    plain: Teacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(teachers, "write_json", full)
    said: list[str] = []
    assert keep_features(plain, tmp_path / "features", [1], BATCH, said.append) == {}
    assert "No space left on device" in said[0]
    assert not (tmp_path / "features").exists()
