"""The contracts of what people add beside devices, as tests for pytest.

A package turns them on with subclasses of its own::

    class TestMyStrategy(StrategyContract):
        strategy = staticmethod(my_strategy)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from hwnas.compress.library.stitch import Choices
from hwnas.compress.quality.kinds import QualityModel
from hwnas.compress.search.points import Point
from hwnas.compress.search.strategies import OnRound, Problem
from hwnas.compress.settings import SearchSettings
from hwnas.compress.tasks.task import Task, Tree

CHOICES = [[0, 1, 2], [0, 2], [0], [0, 1, 3, 4]]


def make_problem() -> tuple[Problem, list[Choices]]:
    """Return a problem whose loss and cost are sums over parts, and the list of what it is asked for."""
    generator = np.random.default_rng(0)
    tables = [generator.random((len(of_part), 2)) for of_part in CHOICES]
    asked: list[Choices] = []

    def sums(choices: Choices) -> np.ndarray:
        rows = [table[of.index(c)] for table, of, c in zip(tables, CHOICES, choices, strict=True)]
        total: np.ndarray = np.sum(rows, axis=0)
        return total

    def costs(batch: Sequence[Choices]) -> list[tuple[float, ...] | str]:
        asked.extend(batch)
        return [(float(sums(choices)[1]),) for choices in batch]

    problem = Problem(
        choices=CHOICES,
        loss=lambda choices: float(sums(choices)[0]),
        costs=costs,
        initial=tables,
        sizes=[np.column_stack([np.ones(len(of)), np.arange(1, len(of) + 1)]) for of in CHOICES],
    )
    return problem, asked


class StrategyContract:
    """What every strategy keeps."""

    strategy: Callable[[Problem, SearchSettings, int, OnRound], list[Point]]

    def explore(self, seed: int = 0) -> tuple[list[Point], list[Choices], list[tuple[int, int]]]:
        """Points, what was asked for, and the rounds, of a search of three generations of four networks."""
        settings = SearchSettings(
            device="any",
            objectives=("latency",),
            protocol="once",
            population=4,
            generations=3,
            finetune_epochs=0,
            picks=("knee",),
            filter="none",
            filter_threshold=0.1,
        )
        problem, asked = make_problem()
        rounds: list[tuple[int, int]] = []
        points = type(self).strategy(problem, settings, seed, lambda *at: rounds.append(at))
        return points, asked, rounds

    def test_asks_once_for_what_may_stand_there(self) -> None:
        points, asked, _ = self.explore()
        assert points
        assert len(set(asked)) == len(asked) <= 4 * 3
        assert [point.choices for point in points] == asked
        for choices in asked:
            assert all(choice in of_part for choice, of_part in zip(choices, CHOICES, strict=True))

    def test_points_are_what_the_functions_say(self) -> None:
        points, _, _ = self.explore()
        problem, _ = make_problem()
        for point in points:
            assert point.loss == problem.loss(point.choices)
            assert [point.costs] == problem.costs([point.choices])

    def test_is_the_same_again(self) -> None:
        assert self.explore(3) == self.explore(3)

    def test_tells_its_rounds(self) -> None:
        _, asked, rounds = self.explore()
        assert rounds
        assert all(number < after for (number, _), (after, _) in pairwise(rounds))
        assert rounds[-1][1] == len(asked)


class QualityModelContract:
    """What every quality model keeps."""

    choices: ClassVar[list[list[int]]] = CHOICES
    """What may stand in each part of the networks that the model is made for."""

    def make_model(self) -> QualityModel:
        """Return the model."""
        raise NotImplementedError

    def test_losses_are_finite_and_the_same_again(self) -> None:
        model = self.make_model()
        for choices in (tuple(of[0] for of in self.choices), tuple(of[-1] for of in self.choices)):
            loss = model.loss(choices)
            assert np.isfinite(loss)
            assert model.loss(choices) == loss == self.make_model().loss(choices)
            predicted = model.predicted(choices)
            assert predicted is None or 0 <= predicted[0] <= 1

    def test_each_choice_has_its_loss(self) -> None:
        losses = self.make_model().part_losses(self.choices)
        assert [loss.shape for loss in losses] == [(len(of),) for of in self.choices]
        assert all(np.isfinite(loss).all() for loss in losses)

    def test_names_a_block_metric(self) -> None:
        assert self.make_model().metric in ("nsr", "mse", "relative_l1")


class TaskContract:
    """What every task keeps."""

    task: Task

    def make_batch(self) -> tuple[Tree, Any]:
        """Return the output, (B, …) or a tree of such, and the targets of some images."""
        raise NotImplementedError

    def test_losses_are_of_the_batch_and_can_be_trained(self) -> None:
        output, targets = self.make_batch()
        output = tree_map(lambda leaf: leaf.clone().requires_grad_(), output)
        reference = tree_map(torch.Tensor.detach, output)
        losses = [self.task.distill(output, reference)]
        if self.task.loss is not None:
            losses.append(self.task.loss(output, targets))
        for loss in losses:
            assert loss.shape == ()
            assert torch.isfinite(loss)
            for gradient in torch.autograd.grad(loss, tree_leaves(output)):
                assert torch.isfinite(gradient).all()

    def test_scores_are_of_each_image(self) -> None:
        output, targets = self.make_batch()
        count, evidence = len(tree_leaves(output)[0]), self.task.score(output, targets)
        assert all(len(leaf) == count for leaf in tree_leaves(evidence))
        for measure in (self.task.measure, *self.task.further_metrics):
            figures = measure.total(evidence)
            assert figures.shape in ((), (count,), (0,))
            assert torch.isfinite(figures.double()).all()
            assert not measure.metric.share or (figures.double() <= 1).all()
        agreement = self.task.agreement(output, output)
        assert agreement.shape == (count,)
        assert torch.isfinite(agreement.double()).all()

    def test_an_output_agrees_with_itself_best(self) -> None:
        output, _ = self.make_batch()
        flipped = tree_map(lambda leaf: leaf.flip(0), output)
        own = self.task.agreement(output, output).float().mean()
        other = self.task.agreement(output, flipped).float().mean()
        assert own >= other if self.task.agreement_metric.higher_is_better else own <= other

    def test_takes_outputs_of_its_ranks(self) -> None:
        output, _ = self.make_batch()
        assert not self.task.ranks or output.ndim in self.task.ranks

    def test_has_names(self) -> None:
        if not self.task.name or not self.task.metric.name or not self.task.agreement_metric.name:
            pytest.fail("a task, its metric and its agreement have names for people")
