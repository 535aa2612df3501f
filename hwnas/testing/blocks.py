"""The contracts of families of blocks and block trainers, as tests for pytest; used as those of `parts`."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from hwnas.compress.data import Data, Images
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import Distilled, DistillSettings, targets_of, teacher_statistics
from hwnas.compress.library.metrics import MetricsAccumulator
from hwnas.compress.library.space import load_space
from hwnas.compress.library.teacher import Teacher
from hwnas.errors import InputError
from hwnas.files import decode, encode
from hwnas.networks.architecture import Candidate
from hwnas.networks.blocks.families import (
    build_replacement,
    find_family,
    replacement_cost,
    start_replacement,
)
from hwnas.networks.blocks.family import Family, FamilySpec, Original
from hwnas.networks.build import build_part
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count
from hwnas.networks.partition import partition


class FamilyContract:
    """What every family of blocks keeps. It has to be installed, as a run finds it by its name."""

    family: Family[Any, Any]
    table: Any
    """A table as a space may hold it."""
    shapes: ClassVar[Sequence[tuple[Sequence[int], Sequence[int]]]] = (
        ((16, 8, 8), (24, 4, 4)),
        ((16, 7, 5), (16, 7, 5)),
        ((16, 7, 9), (32, 4, 5)),
        ((17, 24), (17, 32)),
    )
    """Inputs and outputs of blocks between which at least one candidate of the table stands."""

    def block(self) -> Original:
        """What the candidates are made for; a Swish."""
        return Original(nn.SiLU(), (16, 8, 8), "a Swish")

    def specs(self) -> list[FamilySpec]:
        """The candidates of the table for that block."""
        found: list[FamilySpec] = self.family.specs(self.table, self.block())
        return found

    def fitting(self, shape: tuple[Sequence[int], Sequence[int]]) -> list[tuple[FamilySpec, nn.Module]]:
        """Candidates that stand between two shapes, with their modules."""
        found = []
        for spec in self.specs():
            try:
                found.append((spec, build_replacement(spec, *shape)))
            except InputError:
                with pytest.raises(InputError):
                    replacement_cost(spec, *shape)
        assert found, f"no candidate of the table stands between {shape}"
        return found

    def test_candidates_are_plain_data_with_names_of_their_own(self) -> None:
        specs = self.specs()
        assert len({spec.name for spec in specs}) == len(set(specs)) == len(specs) > 0
        for spec in specs:
            assert find_family(spec.family) is self.family
            assert spec.kind[0] == spec.family
            assert spec.depth >= 1
            assert spec.inside > 0
            assert decode(self.family.spec, encode(spec), "a file") == spec

    def test_modules_keep_the_shapes_and_cost_what_is_said(self) -> None:
        for shape in self.shapes:
            for spec, module in self.fitting(shape):
                for batch in (1, 3):
                    with torch.no_grad():
                        assert module.eval()(torch.randn(batch, *shape[0])).shape == (batch, *shape[1])
                assert replacement_cost(spec, *shape) == count(module, shape[0])

    def test_a_fresh_output_is_about_as_large_as_the_blocks(self) -> None:
        for shape in self.shapes:
            tokens = len(shape[1]) == 2
            channels = shape[1][1 if tokens else 0]
            mean, variance = torch.linspace(-40, 40, channels), torch.linspace(1e-2, 25, channels)
            for spec, module in self.fitting(shape):
                start_replacement(module, spec, nn.Identity(), mean, variance)
                with torch.no_grad():
                    y = module.train()(torch.randn(64, *shape[0]))
                rows = (y[:, 1:] if tokens else y.movedim(1, -1)).reshape(-1, channels)
                wanted = (mean.square() + variance).mean()
                kept = shape[0] == shape[1]  # there it may start as the identity
                assert kept or 0.3 < rows.square().mean() / wanted < 3

    def test_every_weight_learns(self) -> None:
        for shape in self.shapes:
            for spec, _ in self.fitting(shape):
                silent = [self.silent_weights(spec, shape, seed) for seed in range(4)]
                assert set.intersection(*silent) == set(), spec.name

    def silent_weights(
        self, spec: FamilySpec, shape: tuple[Sequence[int], Sequence[int]], seed: int
    ) -> set[str]:
        """Weights of a candidate without a gradient in the last of three steps, from one start."""
        channels = shape[1][1 if len(shape[1]) == 2 else 0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_replacement(spec, *shape).train()
            start_replacement(module, spec, nn.Identity(), torch.zeros(channels), torch.ones(channels))
            optimizer = torch.optim.SGD(module.parameters(), 1e-2)
            x, target = torch.randn(8, *shape[0]), torch.randn(8, *shape[1])
            for _ in range(3):  # what starts by adding nothing learns from the second step on
                optimizer.zero_grad()
                (module(x) - target).square().mean().backward()
                optimizer.step()
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        return {name for name, grad in gradients.items() if grad is None or not grad.any()}


class BlockTrainerContract:
    """What every block trainer keeps."""

    trainer: Callable[..., list[Distilled]]
    settings = DistillSettings(loss="nsr", epochs=1, steps=None, batch_size=16, seed=0)

    def train(self, which: slice = slice(None), **changed: Any) -> list[tuple[Candidate, Distilled]]:
        """Train candidates of a tiny reference that is made of random weights and images."""
        teacher, candidates = make_teacher()
        statistics = teacher_statistics(teacher, targets_of(teacher.parts, candidates), 16)
        settings = dataclasses.replace(self.settings, **changed)
        results = type(self).trainer(candidates[which], teacher, statistics, settings)
        return list(zip(candidates[which], results, strict=True))

    def test_results_are_weights_of_the_candidates_and_what_they_are_said_to_be(self) -> None:
        teacher, _ = make_teacher()
        statistics = teacher_statistics(teacher, range(len(teacher.parts.shapes)), 16)
        for candidate, result in self.train():
            assert result.reason is None
            assert result.metrics is not None
            module = build_part(teacher.parts, candidate.part, candidate.spec)
            module.load_state_dict(result.state)
            metrics = MetricsAccumulator(statistics[candidate.part + 1].variance)
            with torch.no_grad():
                for features in teacher.batches("val", 16, [candidate.part, candidate.part + 1]):
                    metrics.add(module.eval()(features[candidate.part]), features[candidate.part + 1])
            assert result.metrics.nsr == pytest.approx(metrics.result().nsr, rel=1e-3)

    def test_is_the_same_again_and_another_by_another_seed(self) -> None:
        first, again, other = (self.train(seed=seed) for seed in (0, 0, 1))
        for (_, a), (_, b), (_, c) in zip(first, again, other, strict=True):
            assert a.state.keys() == b.state.keys()
            assert all(torch.equal(value, b.state[key]) for key, value in a.state.items())
            assert any(not torch.equal(value, c.state[key]) for key, value in a.state.items())

    def test_a_candidate_does_not_know_its_neighbours(self) -> None:
        ((_, alone),), (_, (_, beside), *_) = self.train(slice(1, 2)), self.train()
        assert all(torch.equal(value, beside.state[key]) for key, value in alone.state.items())

    def test_leaves_the_teacher_as_it_is(self) -> None:
        teacher, candidates = make_teacher()
        before = [{k: v.clone() for k, v in m.state_dict().items()} for m in teacher.parts.modules]
        statistics = teacher_statistics(teacher, targets_of(teacher.parts, candidates), 16)
        type(self).trainer(candidates, teacher, statistics, self.settings)
        for module, state in zip(teacher.parts.modules, before, strict=True):
            assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def make_teacher() -> tuple[Teacher, list[Candidate]]:
    """Return a tiny network with random images, and candidates of its one block."""
    generator, shape = torch.Generator().manual_seed(0), (3, 16, 16)
    train, val = (
        Images(
            pixels=torch.randint(0, 256, (amount, 3, 16, 16), dtype=torch.uint8, generator=generator),
            labels=None,
        )
        for amount in (32, 16)
    )
    data = Data(name="random", train=train, val=val, test=val, mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = {
            "stem": nn.Conv2d(3, 16, 3, 2, 1),
            "block": nn.Sequential(*(nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()) for _ in range(4))),
            "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
        }
    module = nn.Sequential(OrderedDict(layers)).eval()
    parts = partition(module, shape, Blocks(cuts=("stem", "block")))
    candidates = [c for c in find_candidates(parts, load_space("compression"), 3) if c.part == 1]
    return Teacher(parts, data, {}), candidates
