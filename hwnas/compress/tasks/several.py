"""Several tasks on one network: losses are added, and every metric is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from hwnas.compress.data import Data
from hwnas.compress.tasks.restoration import BEST_DB
from hwnas.compress.tasks.task import Compared, Evidence, Measure, Metric, Task, Tree
from hwnas.errors import InputError

Quality = Literal["mean", "worst"]
QUALITIES = ("mean", "worst")


def several(
    tasks: Mapping[str, Task], *, weights: Mapping[str, float] | None = None, quality: Quality = "mean"
) -> Task:
    """Make one task of several, by the names of the network's outputs and of the targets.

    The network gives a dictionary with these names, or a tuple or list in their order. Targets are a
    dictionary with these names. The first task's metric is the headline, the others' stand beside it.

    Args:
        tasks: by name, the most important first.
        weights: of their losses; 1 for those that are left out.
        quality: what the accuracy predictor of a search is fitted to: of each task the share of the
            reference's figure that a network keeps, 1 at most, their mean or the worst.

    Raises:
        InputError: no task, one that makes its own input, or a weight that means nothing.

    >>> from hwnas.compress.tasks.several import several
    >>> from hwnas.compress.tasks.classification import CLASSIFICATION
    >>> from hwnas.compress.tasks.regression import REGRESSION
    >>> task = several({"kind": CLASSIFICATION, "age": REGRESSION}, weights={"age": 0.1})
    >>> [measure.metric.name for measure in task.further_metrics]
    ['age: mean absolute error']
    """
    factors = _checked(tasks, weights or {}, quality)
    measures = [_named(name, task, measure) for name, task in tasks.items() for measure in _measures(task)]
    distilled: dict[str, Compared] = {name: task.distill for name, task in tasks.items()}
    losses = {name: task.loss for name, task in tasks.items() if task.loss is not None}

    def added(functions: Mapping[str, Compared]) -> Compared:
        def loss(output: Tree, other: Any) -> Tensor:
            outputs, others = outputs_of(output, tasks), outputs_of(other, tasks)
            parts = [
                factors[name] * function(outputs[name], others[name]) for name, function in functions.items()
            ]
            return torch.stack(parts).sum()

        return loss

    def score(output: Tree, targets: Any) -> Evidence:
        outputs, wanted = outputs_of(output, tasks), outputs_of(targets, tasks)
        return {name: task.score(outputs[name], wanted[name]) for name, task in tasks.items()}

    def agreement(output: Tree, reference: Tree) -> Tensor:
        outputs, others = outputs_of(output, tasks), outputs_of(reference, tasks)
        return _together(
            torch.stack([_as_share(task, outputs[name], others[name]) for name, task in tasks.items()]),
            quality,
        )

    return Task(
        name=" + ".join(f"{name}: {task.name}" for name, task in tasks.items()),
        metric=measures[0].metric,
        total=measures[0].total,
        further_metrics=tuple(measures[1:]),
        agreement_metric=Metric(
            name=f"agreement ({'mean of' if quality == 'mean' else 'the worst of'} {', '.join(tasks)})",
            share=True,
            higher_is_better=True,
        ),
        loss=added(losses) if losses else None,
        distill=added(distilled),
        score=score,
        agreement=agreement,
        kept=lambda evidence, reference: _kept(tasks, evidence, reference, quality),
        plain_pixels=any(task.plain_pixels for task in tasks.values()),
        output=f"outputs named {', '.join(tasks)}, or as many in this order",
        ranks=(),
        check=lambda output, data, model: _check(tasks, output, data, model),
    )


def outputs_of(output: Tree, tasks: Mapping[str, Task]) -> Mapping[str, Any]:
    """An output or targets by the tasks' names. Raises InputError: they are not there."""
    if isinstance(output, dict) and tasks.keys() <= output.keys():
        return output
    if isinstance(output, tuple | list) and len(output) == len(tasks):
        return dict(zip(tasks, output, strict=True))
    what = f"a {type(output).__name__}"
    if isinstance(output, dict):
        what = f"a dictionary of {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        what = f"{len(output)} of them"
    raise InputError(
        f"outputs or targets named {', '.join(tasks)} are wanted, there is {what}",
        "give a dictionary with these names, or as many in this order",
    )


def _checked(tasks: Mapping[str, Task], weights: Mapping[str, float], quality: Quality) -> dict[str, float]:
    """The weight of each task. Raises InputError."""
    if not tasks:
        raise InputError("several() is given no task", "give tasks by the names of the network's outputs")
    for name, task in tasks.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(
                f"{name!r} is no name of an output and its targets",
                "name them by words, such as boxes; a tuple's outputs are taken in the order of the names",
            )
        if not isinstance(task, Task):
            raise InputError(
                f"{name} is a {type(task).__name__}, not a task", "give a hwnas.Task for each name"
            )
        if task.given is not None:
            raise InputError(
                f"{name}: {task.name} makes its own input, which the other tasks do not know",
                "take it without its argument, and give its targets by name",
            )
    unknown = [name for name in weights if name not in tasks]
    if unknown:
        raise InputError(
            f"weights are given for {', '.join(map(str, unknown))}, the tasks are {', '.join(tasks)}",
            "name the tasks as they are named",
        )
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise InputError(f"the weight of {name} is {weight}", "give a number, 0 or more")
    if quality not in QUALITIES:
        raise InputError(f"quality is {quality!r}", f"take one of {', '.join(QUALITIES)}")
    return {name: float(weights.get(name, 1.0)) for name in tasks}


def _measures(task: Task) -> tuple[Measure, ...]:
    return (task.measure, *task.further_metrics)


def _named(name: str, task: Task, measure: Measure) -> Measure:
    return Measure(
        metric=replace(measure.metric, name=f"{name}: {measure.metric.name}"),
        total=lambda evidence: measure.total(evidence[name]),
    )


def _together(shares: Tensor, quality: Quality) -> Tensor:
    """Shares (tasks, …) as one: their mean, or the lowest."""
    return shares.mean(0) if quality == "mean" else shares.amin(0)


def _as_share(task: Task, output: Tree, reference: Tree) -> Tensor:
    """The agreement with the reference as a share, (B,): decibels of 100, and 1 / (1 + distance)."""
    found = task.agreement(output, reference).double()
    metric = task.agreement_metric
    if not metric.higher_is_better:
        return 1 / (1 + found)
    return found if metric.share else (found / BEST_DB).clamp(0, 1)


def _kept(tasks: Mapping[str, Task], evidence: Evidence, reference: Evidence, quality: Quality) -> Tensor:
    """The share of the reference's figures that is kept, (); 1 for a task in which the reference has none."""
    shares = []
    for name, task in tasks.items():
        value, before = (task.total(each[name]).double().mean() for each in (evidence, reference))
        if not task.metric.higher_is_better:
            value, before = before, value
        shares.append((value / before).clamp(0, 1) if before > 0 else torch.ones((), dtype=torch.float64))
    return _together(torch.stack(shares), quality)


def _check(tasks: Mapping[str, Task], output: Tree, data: Data, model: str) -> None:
    """Make sure that each output fits its task and its targets. Raises InputError."""
    from hwnas.compress.tasks.checks import check_output

    outputs = outputs_of(output, tasks)
    if data.has_targets:
        outputs_of(data.train.labels, tasks)
    for name, task in tasks.items():
        own = data
        if data.has_targets:
            train, val, test = (
                replace(part, labels=part.labels[name]) for part in (data.train, data.val, data.test)
            )
            own = replace(data, train=train, val=val, test=test, name=f"{data.name} ({name})")
        check_output(replace(task, takes_classes=False), outputs[name], own, f"{model} ({name})")
