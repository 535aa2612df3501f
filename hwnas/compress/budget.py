"""What a run will measure and train, known before anything is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from hwnas.compress.emit.picking import trained_for
from hwnas.compress.library.open_run import Inputs, prepare_training
from hwnas.compress.library.target import Target
from hwnas.compress.run.cost_log import Step
from hwnas.compress.settings import Place, SearchSettings
from hwnas.compress.training import loop
from hwnas.compress.training.placement import placed
from hwnas.devices.base import Device
from hwnas.devices.queue import QueueDevice
from hwnas.errors import InputError
from hwnas.files import encode
from hwnas.networks.build import assemble
from hwnas.networks.count import count_parts
from hwnas.networks.tensors import tensors_of
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.protocols import least_seconds, load_protocol, queued

WORKERS = 8
"""Ray workers for which the hours are told beside those of one machine."""
SPEED_STEPS = 3
"""Of training, by which this machine's speed is measured, behind one that does not count."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """At most what a run measures; what its run directory knows already is not asked again.

    Attributes:
        blocks: choices of parts that are measured on their own for the filter.
        networks: of the search, the reference among them.
        checkpoints: networks measured at the end, the reference among them.
        elsewhere: networks that were picked for other devices, measured on this one as well.
        jobs: that a device with a queue is given; None for any other device.
        measuring_s: seconds that the runs of so many networks take at least; None where nobody here measures.
        needs_consent: so many networks that somebody must have agreed to them.
    """

    device: str
    blocks: int
    networks: int
    checkpoints: int
    elsewhere: int
    jobs: int | None
    measuring_s: float | None
    needs_consent: bool

    def describe(self) -> str:
        """One line for people."""
        blocks = f"{self.blocks} blocks, " if self.blocks else ""
        networks = f"{self.networks} networks in the search, {self.checkpoints} afterwards"
        others = f", {self.elsewhere} of other devices" if self.elsewhere else ""
        text = f"{self.device}: at most {blocks}{networks}{others}"
        if self.measuring_s is not None:
            text += f"; at least {self.measuring_s / 60:.0f} min of measuring, beside the training"
        return text if self.jobs is None else f"{text}, {self.jobs} jobs in all"


def plan_of(settings: SearchSettings, target: Target, choice_count: int, other_devices: int = 0) -> Plan:
    """The plan of a run with these settings.

    Args:
        target: of the settings, checked.
        choice_count: the choices of all parts together.
        other_devices: of the same command, whose picks are measured on this one too.

    Raises:
        InputError: `max_measurements` leaves nothing for the search once the blocks are measured.
    """
    device = open_device(target.profile)
    blocks = choice_count if settings.filter == "device" else 0
    networks = settings.population * settings.generations if settings.measures else 0
    if settings.max_measurements is not None:
        if networks and settings.max_measurements <= blocks:
            raise InputError(
                f"{settings.max_measurements} measurements are not enough for the {blocks} blocks "
                "and a search",
                "raise --max-measurements, take fewer --candidates, or spare the blocks: --filter macs",
            )
        networks = min(networks, settings.max_measurements - blocks)
    checkpoints = len(settings.picks) + 1
    elsewhere = len(settings.picks) * other_devices if settings.measures else 0
    if settings.max_measurements is not None:
        elsewhere = min(elsewhere, max(0, settings.max_measurements - blocks - networks))
    final, jobs = load_protocol(settings.checkpoint_protocol), None
    if isinstance(device, QueueDevice):
        jobs = (blocks + networks + elsewhere) * (
            device.preparation_jobs + queued(target.protocol).max_repeats
        )
        jobs += checkpoints * (device.preparation_jobs + queued(final).max_repeats)
    measuring_s = None
    if isinstance(device, Device) and device.kind == "measured":
        measuring_s = (blocks + networks + elsewhere) * least_seconds(target.protocol)
        measuring_s += checkpoints * least_seconds(final)
    return Plan(
        device=target.profile.name,
        blocks=blocks,
        networks=networks,
        checkpoints=checkpoints,
        elsewhere=elsewhere,
        jobs=jobs,
        measuring_s=measuring_s,
        needs_consent=device.unconfirmed is not None
        and settings.max_measurements is None
        and blocks + networks > device.unconfirmed,
    )


def require_consent(plan: Plan, ask: Callable[[str], bool]) -> None:
    """Let nobody pay for many measurements by surprise.

    Args:
        ask: puts a question to the user; False where there is nobody to ask.

    Raises:
        InputError: nobody agreed.
    """
    if plan.needs_consent and not ask(f"{plan.describe()}. Go on?"):
        raise InputError(
            f"{plan.describe()}, and nobody agreed to that",
            f"bound them: --max-measurements {plan.blocks + plan.networks} for all; "
            "--dry-run shows what a bound costs",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """A step of a run.

    Attributes:
        networks: that are trained: the reference, candidates, networks of the predictor, picks.
        epochs: of all of them together; one of a candidate is that of its block alone.
        training_flops: 3 × 2 × MACs × images; picks and the predictor's networks as large as the reference.
        spreads: Ray workers share it.
    """

    step: Step
    networks: int
    epochs: int
    training_flops: int
    spreads: bool


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """At most what a run trains; what its run directory has already is not trained again.

    Attributes:
        flops_per_s: of training the reference on this machine, measured.
    """

    steps: tuple[TrainingStep, ...]
    flops_per_s: float

    @property
    def epochs(self) -> int:
        """All epochs together, as the papers count."""
        return sum(step.epochs for step in self.steps)

    def hours(self, workers: int = 1) -> float:
        """How long training takes with so many Ray workers as fast as this machine."""
        shared = sum(step.training_flops / (workers if step.spreads else 1) for step in self.steps)
        return shared / self.flops_per_s / 3600

    def to_json(self) -> dict[str, Any]:
        """Plain data; see docs/json.md."""
        hours = {"hours": self.hours(), f"hours_with_{WORKERS}_workers": self.hours(WORKERS)}
        return {**encode(self), "epochs": self.epochs, **hours}

    def describe(self) -> str:
        """One line a step for people, and one for all."""
        lines = [
            f"{step.step}: {step.networks} network{'s' * (step.networks != 1)}, {step.epochs:,} epochs"
            for step in self.steps
            if step.epochs
        ]
        lines.append(
            f"training in all: {self.epochs:,} epochs, about {_duration(self.hours())} on this machine, "
            f"{_duration(self.hours(WORKERS))} with {WORKERS} Ray workers like it"
        )
        return "\n".join(lines)


def training_plan(inputs: Inputs, wanted: Sequence[SearchSettings]) -> TrainingPlan:
    """What a run trains, with this machine's speed measured by a few steps of the reference.

    Args:
        wanted: the search of each device.
    """
    settings, candidates = inputs.settings, inputs.candidates
    costs = count_parts(inputs.parts)
    macs = costs.joints[0] + sum(of_part for of_part, _ in costs.parts)
    epochs = float(settings.epochs)
    if settings.steps:
        epochs = min(epochs, settings.steps / inputs.data.steps_per_epoch(settings.batch_size))
    predicting = [search for search in wanted if search.quality == "predictor"]
    sampled = max((search.predictor_networks for search in predicting), default=0)
    of_sample = max((search.predictor_epochs for search in predicting), default=0)
    picked = [trained_for(rule, search) for search in wanted for rule in search.picks]
    to_train = int(inputs.initial.to_train)
    of_picks = sum(networks * tuned for networks, tuned in picked)
    # Each with its networks, their epochs together, and MACs times epochs.
    trained: Sequence[tuple[Step, int, float, float, bool]] = (
        (
            "reference training",
            to_train,
            to_train * settings.train_epochs,
            to_train * settings.train_epochs * macs,
            False,
        ),
        (
            "distillation",
            len(candidates),
            len(candidates) * epochs,
            epochs * sum(candidate.macs for candidate in candidates),
            True,
        ),
        ("predictor networks", sampled, sampled * of_sample, sampled * of_sample * macs, True),
        ("finetuning", sum(networks for networks, _ in picked), of_picks, of_picks * macs, False),
    )
    images = loop.images_per_epoch(inputs.data, settings.batch_size)
    steps = tuple(
        TrainingStep(
            step=name,
            networks=networks,
            epochs=round(of_all),
            training_flops=round(3 * 2 * mac_epochs * images),
            spreads=spreads,
        )
        for name, networks, of_all, mac_epochs, spreads in trained
    )
    return TrainingPlan(steps=steps, flops_per_s=_flops_per_s(inputs, macs))


def _flops_per_s(inputs: Inputs, macs: int) -> float:
    """How fast the whole reference is trained here."""
    prepare_training(inputs)
    data, batch_size = inputs.data, inputs.settings.batch_size
    model = assemble(inputs.parts, deepcopy(inputs.parts.modules)).train()
    images, start_s = 0, 0.0
    with torch.random.fork_rng(), placed(data.place, model):
        for number in range(SPEED_STEPS + 1):
            if number == 1:  # the first one is slower
                _wait(data.place)
                start_s = time.perf_counter()
            x, _ = next(data.train_batches(batch_size, 0, number, augment=True))
            output = [leaf for leaf in tensors_of(model(x)) if leaf.requires_grad]
            sum(leaf.square().mean() for leaf in output).backward()  # type: ignore[union-attr]
            images += len(x) if number else 0
        _wait(data.place)
        seconds = time.perf_counter() - start_s
    return 3 * 2 * macs * images / seconds


def _wait(place: Place) -> None:
    if place == "cuda":
        torch.cuda.synchronize()


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return "less than a minute"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.1f} h"
