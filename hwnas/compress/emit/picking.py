"""Which network of a front a rule picks, where finetuning some of them tells more than the search knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hwnas.compress.data import Data
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.stitch import Choices, joined_choices
from hwnas.compress.quality.finetune import finetune, quality_on_val
from hwnas.compress.quality.finetuned import Finetuned
from hwnas.compress.search.pick import KNEE, allowed_drop, by_first_cost, contenders
from hwnas.compress.search.points import Point
from hwnas.compress.search.record import FrontRecord
from hwnas.compress.settings import SearchSettings
from hwnas.compress.tasks.task import Metric
from hwnas.compress.training import loop
from hwnas.errors import InputError

RACERS, RACE_EPOCHS = 4, 1
"""Networks that race for a bound, and for how many epochs each."""


def require_targets(search: SearchSettings, data: Data) -> None:
    """Refuse to pick by what a network loses where nothing tells it. Raises InputError."""
    if not data.has_targets and any(allowed_drop(rule) is not None for rule in search.picks):
        raise InputError(
            f"--max-drop bounds what a network loses of its quality, and {data.name} has no targets",
            "give data with labels; or use --pick knee, --speedup X or --latency-ms X",
        )


def trained_for(rule: str, search: SearchSettings) -> tuple[int, float]:
    """How many networks are finetuned at most for a rule, and for how many epochs in the mean.

    A front is taken to have no more networks than a population.
    """
    epochs = search.finetune_epochs
    if allowed_drop(rule) is not None:
        return search.population.bit_length(), epochs
    if rule == KNEE or epochs <= RACERS * RACE_EPOCHS:
        return 1, epochs
    return RACERS, RACE_EPOCHS + epochs / RACERS


def choose(device: DeviceRun, found: FrontRecord, rule: str) -> Choices:
    """Return the network that a rule picks from a front.

    Raises:
        InputError: no network of the front reaches it.
    """
    front = [row.point for row in found.front]
    drop = allowed_drop(rule)
    if drop is not None:
        return fastest_within(device, by_first_cost(front, found.objectives), drop)
    best = contenders(front, rule, found.objectives, found.anchor_latency_ms)
    return race(device, best[:RACERS], rule)


def race(device: DeviceRun, points: Sequence[Point], rule: str) -> Choices:
    """The network that is nearest to the reference's output on `val` after one epoch of finetuning.

    The search's own order decides where finetuning is no longer than the race.

    Args:
        points: the best first, as the search has them.
    """
    run = device.run
    if len(points) == 1 or device.search.finetune_epochs <= len(points) * RACE_EPOCHS:
        return points[0].choices
    reference, distances = run.reference, {}
    for point in points:
        try:
            module, _ = _finetuned(device, point.choices, RACE_EPOCHS)
        except loop.DivergedError:
            distances[point.choices] = math.inf
            continue
        found = loop.distance_on_val(module, reference.module(), reference.data, reference.task)
        distances[point.choices] = found if math.isfinite(found) else math.inf
    best = min(distances, key=lambda choices: distances[choices])
    told = ", ".join(f"{joined_choices(choices)} {distance:.4g}" for choices, distance in distances.items())
    run.progress.say(f"race for {rule}, loss on val after an epoch: {told}; {joined_choices(best)} goes on")
    return best


def fastest_within(device: DeviceRun, front: Sequence[Point], limit: float) -> Choices:
    """The fastest network that loses at most so much against the reference on `val` once it is finetuned.

    Slower networks are taken to be better: of n networks about log2(n) are finetuned, and kept.

    Args:
        front: by rising time.
        limit: in points of a share, or in the metric's own unit.

    Raises:
        InputError: each network loses more.
    """
    run = device.run
    reference = run.reference
    teacher, data, task = reference.module(), reference.data, reference.task
    of_reference = quality_on_val(teacher, teacher, data, task)
    assert of_reference is not None
    metric = task.judged(data.has_targets)
    what = f"points of {metric.name}" if metric.share else f"of {metric.name}"
    found: Choices | None = None
    least, low, high = math.inf, 0, len(front)
    while low < high:
        middle = (low + high) // 2
        choices = front[middle].choices
        try:
            _, tuned = _finetuned(device, choices, device.search.finetune_epochs)
        except loop.DivergedError:
            lost = math.inf
        else:
            assert tuned.accuracy is not None
            lost = _drop(metric, of_reference.value, tuned.accuracy.value)
        run.progress.say(f"{joined_choices(choices)} loses {lost:.2f} {what} on val, {limit:g} are allowed")
        least = min(least, lost)
        if lost <= limit:
            found, high = choices, middle
        else:
            low = middle + 1
    if found is None:
        raise InputError(
            f"no network of the front loses {limit:g} {what} at most on val; the best loses {least:.2f}",
            f"allow more: --max-drop {least + 0.005:.2f}; or finetune longer (--finetune-epochs), or give "
            "larger candidates",
        )
    return found


def _finetuned(device: DeviceRun, choices: Choices, epochs: int) -> tuple[nn.Module, Finetuned]:
    def progress(done: int, loss: float) -> None:
        device.run.progress.advance(f"finetune {joined_choices(choices)}", done, epochs, f"loss {loss:.3f}")

    return finetune(device, choices, epochs, progress)


def _drop(metric: Metric, reference: float, value: float) -> float:
    lost = reference - value if metric.higher_is_better else value - reference
    return 100 * lost if metric.share else lost
