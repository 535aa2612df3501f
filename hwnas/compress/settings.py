"""What a run is asked to do, with nothing left open."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hwnas.errors import InputError
from hwnas.measurement import STRICT, Option
from hwnas.ranges import Figure, Seed, Size, SizeOrNone, Threads

if TYPE_CHECKING:
    from hwnas.networks.chosen_blocks import Blocks

Place = Literal["cpu", "cuda"]
Loss = Literal["nsr", "mse"]
Objective = Literal["latency", "throughput", "energy", "macs", "params"]
Filter = Literal["device", "macs", "none"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""Of a block trainer, a quality model or a strategy; names of files hold it."""
TIMED: tuple[Objective, ...] = ("latency", "throughput")
MEASURED: tuple[Objective, ...] = (*TIMED, "energy")
USUAL_OBJECTIVES: tuple[Objective, ...] = ("latency",)
DEFAULT_THRESHOLD = 0.1  # of the filter


@dataclass(frozen=True, kw_only=True)
class LibrarySettings:
    """Everything that decides the block library. A run directory belongs to one such set.

    Attributes:
        model: timm name, `module:function` or checkpoint directory.
        weights: a file, `pretrained` (the hub), `none` (train on the data), or `given` (those that a
            checkpoint or function brings).
        image_size: side of the images in pixels; 0 takes the data's own, for a folder the model's.
        measure_size: rows and columns of the images for which networks are measured; empty where they are
            those of the training.
        task: a name of `task.TASKS`, or one's own by `module:NAME`.
        cuts, regions, only, layers: which blocks are replaced; see `Blocks`.
        space: the name of a space, or the path of a `.toml` file.
        per_block: candidates a block; 0 leaves it to the space.
        train_epochs: of a reference without weights for the data.
        epochs, steps: of each candidate's distillation; `steps` 0 sets no further limit.
        trainer: by which the candidates are trained.
        slice_size: candidates that are distilled side by side; a kill loses one slice at most.
        threads: CPU threads of training; results are bitwise the same only with the same number.
        train_on: where everything is trained; results of a GPU are not bitwise the same twice.
    """

    __pydantic_config__ = STRICT
    model: str
    weights: str
    data: str
    cuts: tuple[str, ...]
    space: str
    per_block: SizeOrNone
    loss: Loss
    train_epochs: Size
    epochs: Size
    steps: SizeOrNone
    batch_size: Size
    slice_size: Size
    seed: Seed
    threads: Threads
    regions: tuple[str, ...] = ()
    only: str = ""
    layers: bool = False
    image_size: SizeOrNone = 0
    measure_size: tuple[Size, ...] = ()
    task: str = "classification"
    train_on: Place = "cpu"
    trainer: Name = "distill"

    @property
    def blocks(self) -> Blocks:
        """Which blocks are replaced."""
        from hwnas.networks.chosen_blocks import Blocks

        return Blocks(cuts=self.cuts, regions=self.regions, only=self.only, layers=self.layers)

    @property
    def needs(self) -> dict[str, int]:
        """What a task of training takes of a machine."""
        return {"CPU": self.threads} | ({"GPU": 1} if self.train_on == "cuda" else {})


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Everything that decides one device's search and checkpoints.

    Attributes:
        device: a profile's name or the path of a profile.
        objectives: the costs that are minimised beside the loss.
        protocol: by which the networks of the search are measured.
        checkpoint_protocol: by which checkpoints are measured beside the reference.
        picks: `knee`, `latency-ms=X`, `speedup=X` or `max-drop=X`.
        filter: by what the filter compares the candidates of a block: their cost on the device, or MACs.
        filter_threshold: DONNAv2's D, in units of the cost of the reference's block.
        batch: images a run; None is the profile's own.
        device_options: over those of the profile, such as `any_gpu`.
        quality: what stands for a network's accuracy in the search.
        predictor_networks: that are finetuned to fit the accuracy predictor to.
        predictor_epochs: of each of them.
        strategy: which networks the search asks for.
        max_measurements: networks that may be measured in all searches of this run directory on this device,
            what else is measured by the same protocol included; None is no bound.
    """

    __pydantic_config__ = STRICT
    device: str
    objectives: tuple[Objective, ...]
    protocol: str
    population: Size
    generations: Size
    finetune_epochs: SizeOrNone
    picks: tuple[str, ...]
    filter: Filter
    filter_threshold: Figure
    batch: Size | None = None
    device_options: dict[str, Option] = field(default_factory=dict)
    max_measurements: SizeOrNone | None = None
    checkpoint_protocol: str = "report"
    quality: Name = "loss"
    predictor_networks: Size = 24
    predictor_epochs: SizeOrNone = 10
    strategy: Name = "nsga2"

    def __post_init__(self) -> None:
        """Refuse a threshold without meaning, and objectives that say the same twice.

        Raises:
            InputError: for either.
        """
        check_threshold(self.filter_threshold)
        names = ["time" if objective in TIMED else objective for objective in self.objectives]
        if len(set(names)) < len(names):
            raise InputError(
                f"the objectives {', '.join(self.objectives)} say the same twice",
                "name each once, and one of latency and throughput",
            )

    @property
    def suffix(self) -> str:
        """What tells the files of searches apart; nothing for NSGA-II by loss and latency alone."""
        usual = SearchSettings
        named: list[str] = [] if self.objectives == USUAL_OBJECTIVES else [*self.objectives]
        named += [self.quality] * (self.quality != usual.quality)
        named += [self.strategy] * (self.strategy != usual.strategy)
        return "".join(f"-{name}" for name in named)

    @property
    def measures(self) -> bool:
        """Whether any objective has to be measured on the device."""
        return any(objective in MEASURED for objective in self.objectives)

    @property
    def uses_device(self) -> bool:
        """Whether the search needs the device at all."""
        return self.measures or self.filter == "device"


def check_threshold(threshold: float) -> None:
    """Refuse a threshold below zero or not finite. Raises InputError."""
    if not 0 <= threshold < math.inf:
        raise InputError(f"the filter's threshold is {threshold:g}", "give --filter-threshold 0 or more")
