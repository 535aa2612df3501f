from __future__ import annotations

import importlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from features import features_of
from torch import nn

from hwnas.compress.data import Data, Images, load_data
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import (
    Distilled,
    DistillSettings,
    distill,
    initial_module,
    teacher_statistics,
    total_steps,
)
from hwnas.compress.library.metrics import ChannelStatistics
from hwnas.compress.library.space import load_space
from hwnas.compress.library.teacher import Teacher
from hwnas.compress.settings import Loss
from hwnas.networks.architecture import Candidate
from hwnas.networks.build import build_part
from hwnas.networks.partition import Partition

Statistics = dict[int, ChannelStatistics]
HOW = DistillSettings(loss="nsr", epochs=2, steps=None, batch_size=16, seed=0)


@pytest.fixture
def candidates(parts: Partition) -> list[Candidate]:
    """Three of each block, squeeze-and-excitation and grouped layers among them."""
    return find_candidates(parts, load_space("compression"), 3)


@pytest.fixture
def teacher(parts: Partition, data: Data) -> Teacher:
    return Teacher(parts, data, {})


@pytest.fixture
def statistics(teacher: Teacher) -> Statistics:
    return teacher_statistics(teacher, range(len(teacher.parts.modules)), 16)


def same(a: Distilled, b: Distilled) -> bool:
    """Bitwise, the time apart."""
    return (
        a.metrics == b.metrics
        and a.end_slope == b.end_slope
        and a.reason == b.reason
        and a.state.keys() == b.state.keys()
        and all(torch.equal(value, b.state[key]) for key, value in a.state.items())
    )


def test_a_candidate_does_not_know_its_neighbours(
    candidates: list[Candidate], teacher: Teacher, statistics: Statistics
) -> None:
    together = distill(candidates, teacher, statistics, HOW)
    backwards = distill(candidates[::-1], teacher, statistics, HOW)[::-1]
    pairs = [candidates[i : i + 2] for i in (0, 2, 4)]
    sliced = [result for pair in pairs for result in distill(pair, teacher, statistics, HOW)]
    torch.manual_seed(77)
    torch.randn(1000)
    alone = [distill([candidate], teacher, statistics, HOW)[0] for candidate in candidates]
    for others in (backwards, sliced, alone):
        assert all(same(a, b) for a, b in zip(together, others, strict=True))
    assert not same(together[0], together[1])
    assert all(result.metrics is not None for result in together)


def test_nothing_is_dropped_by_chance(
    candidates: list[Candidate],
    teacher: Teacher,
    statistics: Statistics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room: Any = importlib.import_module("hwnas.compress.library.distill")
    real, real_match, inputs = room.build_block, room.start_replacement, []

    class DropPath(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inputs.append(self.training)
            return x

    def dropping(whole: object, part: int, spec: object) -> nn.Module:
        module: nn.Module = real(whole, part, spec)
        return nn.Sequential(nn.Dropout(0.5), DropPath(), module)

    plain = distill(candidates[:1], teacher, statistics, HOW)[0]
    monkeypatch.setattr(room, "build_block", dropping)
    monkeypatch.setattr(room, "start_replacement", lambda module, *how: real_match(module[2], *how))
    assert distill(candidates[:1], teacher, statistics, HOW)[0].metrics == plain.metrics
    assert set(inputs) == {False}


def test_another_seed_is_another_result(
    candidates: list[Candidate], teacher: Teacher, statistics: Statistics
) -> None:
    one, other = (distill(candidates[:1], teacher, statistics, replace(HOW, seed=seed))[0] for seed in (0, 1))
    assert not same(one, other)


@pytest.mark.parametrize("space", ["compression", "mixed"])
def test_the_start_of_a_candidate_of_any_family_is_that_of_its_seed_and_name(
    space: str, parts: Partition, statistics: Statistics
) -> None:
    candidates = find_candidates(parts, load_space(space), 8)

    def starts(seed: int, order: int) -> dict[str, dict[str, torch.Tensor]]:
        return {c.name: initial_module(c, parts, statistics, seed).state_dict() for c in candidates[::order]}

    first, again, other = starts(0, 1), starts(0, -1), starts(1, 1)
    for candidate in candidates:
        name = candidate.name
        assert all(torch.equal(value, again[name][key]) for key, value in first[name].items()), name
        assert not all(torch.equal(value, other[name][key]) for key, value in first[name].items()), name
    kinds = {type(candidate.spec).__name__ for candidate in candidates}
    assert space == "compression" or kinds >= {"ConvNextSpec", "TransformerSpec", "ResidualSpec"}


def test_global_random_numbers_are_left_alone(
    candidates: list[Candidate], parts: Partition, statistics: Statistics
) -> None:
    before = torch.get_rng_state()
    initial_module(candidates[0], parts, statistics, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("loss", ["nsr", "mse"])
def test_training_lowers_the_loss_that_it_trains_with(
    loss: Loss, candidates: list[Candidate], parts: Partition
) -> None:
    digits = load_data("digits")
    train, val = (
        Images(pixels=images.pixels[:count], labels=None)
        for images, count in ((digits.train, 256), (digits.val, 64))
    )
    data = replace(digits, train=train, val=val)
    teacher = Teacher(parts, data, {})
    statistics = teacher_statistics(teacher, range(len(parts.modules)), 64)
    how = replace(HOW, loss=loss)
    short = distill(candidates, teacher, statistics, replace(how, steps=1))
    long = distill(candidates, teacher, statistics, replace(how, epochs=6))
    for before, after in zip(short, long, strict=True):
        assert before.metrics is not None
        assert after.metrics is not None
        assert getattr(after.metrics, loss) < 0.7 * getattr(before.metrics, loss)


def test_the_held_out_metrics_are_those_of_the_stored_weights(
    candidates: list[Candidate], teacher: Teacher, statistics: Statistics
) -> None:
    for candidate, result in zip(candidates, distill(candidates, teacher, statistics, HOW), strict=True):
        module = build_part(teacher.parts, candidate.part, candidate.spec)
        module.load_state_dict(result.state)
        features = features_of(teacher.parts, teacher.data.normalize(teacher.data.val.pixels))
        with torch.no_grad():
            y_hat = module.eval()(features[candidate.part]).double().numpy()
        y = features[candidate.part + 1].double().numpy()
        train = features_of(teacher.parts, teacher.data.normalize(teacher.data.train.pixels))[
            candidate.part + 1
        ]
        variance = train.double().numpy().var((0, 2, 3))
        variance = np.maximum(variance, 1e-3 * variance.mean())
        metrics = result.metrics
        assert metrics is not None
        assert metrics.nsr == pytest.approx((((y - y_hat) ** 2).mean((0, 2, 3)) / variance).mean(), rel=1e-4)
        assert metrics.mse == pytest.approx(((y - y_hat) ** 2).mean(), rel=1e-4)
        assert metrics.relative_l1 == pytest.approx(np.abs(y - y_hat).mean() / y.std(), rel=1e-4)


def test_the_teacher_is_left_as_it_was(
    candidates: list[Candidate], teacher: Teacher, statistics: Statistics
) -> None:
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in teacher.parts.modules]
    distill(candidates, teacher, statistics, HOW)
    for part, state in zip(teacher.parts.modules, before, strict=True):
        assert not part.training
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())
        assert all(parameter.grad is None for parameter in part.parameters())


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(2, None, 8), (2, 3, 3), (2, 5, 5), (1, 100, 4), (3, 1, 1)]
)
def test_the_steps_have_a_limit(
    epochs: int,
    steps: int | None,
    expected: int,
    candidates: list[Candidate],
    teacher: Teacher,
    statistics: Statistics,
) -> None:
    how = replace(HOW, epochs=epochs, steps=steps)
    seen: list[int] = []
    distill(candidates[:1], teacher, statistics, how, lambda step, loss: seen.append(step))
    assert total_steps(teacher.data, how) == expected
    assert seen == list(range(1, expected + 1))


def test_a_candidate_that_diverges_is_failed_and_the_others_do_not_notice(
    monkeypatch: pytest.MonkeyPatch,
    candidates: list[Candidate],
    teacher: Teacher,
    statistics: Statistics,
) -> None:
    healthy = distill(candidates, teacher, statistics, HOW)
    room: Any = importlib.import_module("hwnas.compress.library.distill")
    real = room.build_block

    def poisoned(whole: object, part: int, spec: object) -> nn.Module:
        module: nn.Module = real(whole, part, spec)
        if spec == candidates[1].spec:
            with torch.no_grad():
                next(module.parameters()).view(-1)[0] = math.nan
        return module

    monkeypatch.setattr(room, "build_block", poisoned)
    remarks: list[float] = []
    results = distill(candidates, teacher, statistics, HOW, lambda _, loss: remarks.append(loss))
    failed = results[1]
    assert failed.reason == "loss became nan at step 1"
    assert (failed.metrics, failed.state, failed.end_slope) == (None, {}, None)
    assert len(results) == len(candidates) == 6
    for index in (0, 2, 3, 4, 5):
        assert same(results[index], healthy[index])
    assert all(math.isfinite(loss) for loss in remarks)


def test_an_absurd_learning_rate_fails_everything_without_an_exception(
    candidates: list[Candidate], teacher: Teacher, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.compress.library.distill.learning_rate", lambda _: 1e38)
    results = distill(candidates[:2], teacher, statistics, HOW)
    for result in results:
        assert result.reason is not None
        assert "nan" in result.reason or "inf" in result.reason or "finite" in result.reason
        assert result.metrics is None


def test_data_without_labels_serve_as_well(
    candidates: list[Candidate], teacher: Teacher, statistics: Statistics
) -> None:
    blind = replace(
        teacher.data,
        **{name: replace(getattr(teacher.data, name), labels=None) for name in ("train", "val", "test")},
    )
    seeing = distill(candidates[:1], teacher, statistics, HOW)[0]
    assert same(distill(candidates[:1], Teacher(teacher.parts, blind, {}), statistics, HOW)[0], seeing)
