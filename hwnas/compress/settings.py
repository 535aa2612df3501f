"""What a run is asked to do. Presets fill in what the user leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from hwnas.compress.distill import Loss
from hwnas.errors import InputError
from hwnas.measurement import STRICT

Objective = Literal["latency", "throughput", "energy", "macs", "params"]
TIMED: tuple[Objective, ...] = ("latency", "throughput")
MEASURED: tuple[Objective, ...] = (*TIMED, "energy")


@dataclass(frozen=True, kw_only=True)
class LibrarySettings:
    """Everything that decides the block library. A run directory belongs to one such set.

    Attributes:
        model: timm name, `module:function` or checkpoint directory.
        weights: a file, `pretrained` (the hub), `none` (train on the data), or `given` (those that a
            checkpoint or function brings).
        cuts: modules behind which to cut; empty finds the stages.
        per_block: candidates a block.
        train_epochs: of a reference without weights for the data.
        epochs, steps: of each candidate's distillation; `steps` 0 sets no further limit.
        slice_size: candidates that are distilled side by side; a kill loses one slice at most.
        threads: CPU threads of training; results are bitwise the same only with the same number.
    """

    __pydantic_config__ = STRICT
    model: str
    weights: str
    data: str
    cuts: tuple[str, ...]
    space: Literal["compression"]
    per_block: int
    loss: Loss
    train_epochs: int
    epochs: int
    steps: int
    batch_size: int
    slice_size: int
    seed: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Everything that decides one device's search and checkpoints.

    Attributes:
        device: a profile's name or the path of a profile.
        protocol: by which the networks of the search are measured.
        picks: `knee`, `latency-ms=X` or `speedup=X`.
        batch: images a run; None is the profile's own.
        any_gpu: measure on another chip than the profile is for.
        allow_fallback: let a phone's CPU run what its accelerator cannot.
        max_measurements: networks that may be measured in all searches of this run directory on this device,
            what else is measured by the same protocol included; None is no bound.
    """

    __pydantic_config__ = STRICT
    device: str
    objective: Objective
    protocol: str
    population: int
    generations: int
    finetune_epochs: int
    picks: tuple[str, ...]
    batch: int | None = None
    any_gpu: bool = False
    allow_fallback: bool = False
    max_measurements: int | None = None


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "per_block": 6,
        "epochs": 10,
        "train_epochs": 40,
        "protocol": "quick",
        "population": 20,
        "generations": 10,
        "finetune_epochs": 20,
    },
    "standard": {
        "per_block": 27,
        "epochs": 10,
        "train_epochs": 60,
        "protocol": "search",
        "population": 32,
        "generations": 16,
        "finetune_epochs": 40,
    },
    "paper": {
        "per_block": 27,
        "epochs": 1,
        "train_epochs": 450,
        "protocol": "search",
        "population": 100,
        "generations": 50,
        "finetune_epochs": 50,
    },
}


def preset(name: str) -> Mapping[str, Any]:
    """A preset's values by option. Raises InputError for an unknown name."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown preset {name!r}", f"{hint}presets: {', '.join(PRESETS)}")
    return PRESETS[name]
