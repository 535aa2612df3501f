"""What a user may ask of a compression: each option once, with its help, its default and its step.

The command line, plan files and `hwnas.compress` are made from this; `presets` fills in what is left open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from hwnas.compress.library.space_files import space_files
from hwnas.compress.settings import (
    DEFAULT_THRESHOLD,
    USUAL_OBJECTIVES,
    Filter,
    LibrarySettings,
    Loss,
    Name,
    Objective,
    Place,
    SearchSettings,
)
from hwnas.errors import InputError
from hwnas.measurement import STRICT
from hwnas.options import Help
from hwnas.profiles.options import DeviceOption
from hwnas.ranges import LARGEST_SIZE, Figure, Seed, Size, SizeOrNone, Threads

AtLeastTwo = Annotated[int, Interval(ge=2, le=LARGEST_SIZE)]
AtLeastFour = Annotated[int, Interval(ge=4, le=LARGEST_SIZE)]


SPACES = f"{', '.join(space_files())}, or a .toml file"
"""What names a space, for people."""

NETWORK, LIBRARY, DEVICE = "The network", "The block library", "The device"
SEARCH, CHECKPOINTS, PLACE = "The search", "Checkpoints", "Where it runs"


Cut = Annotated[str, Help("Modules behind which to cut, NAME,NAME.", NETWORK, shown="the stages")]
Region = Annotated[
    tuple[str, ...],
    Help("What is replaced: MODULE, or FIRST:LAST. May be repeated.", NETWORK, shown="the stages"),
]
Only = Annotated[
    str, Help("Replace blocks of this module alone, such as backbone.", NETWORK, shown="all of them")
]
Layers = Annotated[
    bool,
    Help("Each residual or bottleneck layer is a block of its own, not each stage.", NETWORK),
]
AllowCode = Annotated[bool, Help("Let a checkpoint import and call the module:function it names.", NETWORK)]
Space = Annotated[str, Help(f"Candidates of the blocks: {SPACES}.", LIBRARY)]
Candidates = Annotated[SizeOrNone, Help("Candidates a block at most.", LIBRARY, shown="the space's own")]


@dataclass(frozen=True, kw_only=True)
class PartitionOptions:
    """Options of `hwnas partition`, beside the model."""

    cut: Cut = ""
    region: Region = ()
    only: Only = ""
    layers: Layers = False
    image_size: Annotated[
        SizeOrNone, Help("Rows and columns of the images.", NETWORK, shown="the model's own")
    ] = 0
    allow_code: AllowCode = False


@dataclass(frozen=True, kw_only=True)
class SpaceOptions(PartitionOptions):
    """Options of `hwnas space`, beside the model."""

    space: Space = "compression"
    candidates: Candidates = 0


@dataclass(frozen=True, kw_only=True)
class ExtendOptions:
    """Options of `hwnas extend`, beside the run directory."""

    space: Annotated[str, Help(f"The new candidates: {SPACES}.")]
    candidates: Candidates = 0
    allow_code: AllowCode = False


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `hwnas evaluate`, beside the checkpoint and the device."""

    data: Annotated[str, Help("Images whose test part is run, as `hwnas compress` takes them.")]
    device_option: DeviceOption = ()
    allow_code: AllowCode = False


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """Options of `hwnas compress`, beside the model, its devices and the run directory.

    None, 0 and empty texts leave a value open where the help says so.
    """

    __pydantic_config__ = STRICT
    data: Annotated[
        str,
        Help(
            "Images to distil with: digits, fashion-mnist, cifar10, imagenette (looked for in "
            "$HWNAS_DATA_DIR, downloaded once), folder:PATH (a folder for each class, or no "
            "labels), or module:function of one's own."
        ),
    ]
    preset: Annotated[
        str, Help("Defaults of the options below: quick, standard, or the papers' ways donna, donnav2.")
    ] = "standard"
    pick: Annotated[
        tuple[str, ...], Help("knee, speedup=X, latency-ms=X or max-drop=X; may be repeated.", shown="knee")
    ] = ()
    speedup: Annotated[
        tuple[Figure, ...], Help("Pick the best network that is X times as fast as the reference.")
    ] = ()
    latency_ms: Annotated[tuple[Figure, ...], Help("Pick the best network that takes X ms at most.")] = ()
    max_drop: Annotated[
        tuple[Figure, ...],
        Help("Pick the fastest network that, finetuned, loses X points at most on the part val."),
    ] = ()

    weights: Annotated[
        str,
        Help(
            "A .safetensors or .pth file, `pretrained` (from the hub), or `none` (train on the "
            "data). `auto` takes published weights where their classes are those of the data.",
            NETWORK,
        ),
    ] = "auto"
    image_size: Annotated[
        SizeOrNone,
        Help("Side of the images in pixels; 0: the data's own, for a folder the model's.", NETWORK),
    ] = 0
    measure_size: Annotated[
        str,
        Help(
            "Side of the images in pixels for which networks are measured, or HEIGHTxWIDTH.",
            NETWORK,
            shown="that of the training",
        ),
    ] = ""
    task: Annotated[
        str,
        Help(
            "classification, regression, segmentation, super-resolution:SCALE, denoising:SIGMA, "
            "detection:KIND, or one's own: module:NAME.",
            NETWORK,
        ),
    ] = LibrarySettings.task
    cut: Cut = ""
    region: Region = ()
    only: Only = ""
    layers: Layers = False
    allow_code: AllowCode = False

    space: Annotated[
        str | None,
        Help(
            f"Candidates of the blocks: {SPACES}.",
            LIBRARY,
            shown="compression; donna and donnav2: the papers'",
        ),
    ] = None
    candidates: Annotated[
        SizeOrNone | None,
        Help("Candidates a block at most; 0: the space's own.", LIBRARY, shown="the space's own; quick: 6"),
    ] = None
    trainer: Annotated[Name, Help("How candidates are trained: distill, or an added one.", LIBRARY)] = (
        LibrarySettings.trainer
    )
    loss: Annotated[
        Loss | None, Help("Block loss: nsr (DONNA) or mse (DONNAv2).", LIBRARY, shown="nsr; donnav2: mse")
    ] = None
    train_epochs: Annotated[
        Size | None, Help("Epochs of a reference that has no weights for the data.", LIBRARY)
    ] = None
    epochs: Annotated[Size | None, Help("Epochs of distillation.", LIBRARY)] = None
    steps: Annotated[SizeOrNone, Help("Stop distilling after this many batches; 0: no limit.", LIBRARY)] = 0
    batch_size: Annotated[AtLeastTwo, Help("Images a batch.", LIBRARY)] = 64
    slice_size: Annotated[
        Size, Help("Candidates distilled side by side; a kill loses one slice at most.", LIBRARY)
    ] = 10
    seed: Annotated[Seed, Help("Of everything random.", LIBRARY)] = 0
    threads: Annotated[
        Threads, Help("CPU threads of training; 0: those of the run, or all cores.", LIBRARY)
    ] = 0
    train_on: Annotated[
        Place | None,
        Help(
            "Where everything is trained.", LIBRARY, shown="where the run was begun, or a GPU if there is one"
        ),
    ] = None

    protocol: Annotated[
        str | None,
        Help(
            "How the search measures: quick, search, report, or a .toml file.",
            DEVICE,
            shown="the profile's, or the preset's",
        ),
    ] = None
    batch: Annotated[
        Size | None, Help("Images a run, where the device has batches.", DEVICE, shown="the profile's")
    ] = None
    device_option: Annotated[
        tuple[str, ...],
        Help(
            "KEY=VALUE over the device profile's options, such as any_gpu=true; may be repeated. "
            "docs/devices.md has those of each device.",
            DEVICE,
        ),
    ] = ()
    max_measurements: Annotated[
        Size | None, Help("Networks that the run may measure before it emits checkpoints.", DEVICE)
    ] = None
    no_device_check: Annotated[
        bool, Help("Train without asking first whether the devices are there and can be used.", DEVICE)
    ] = False

    objective: Annotated[
        tuple[Objective, ...],
        Help("Cost to lower beside the loss; may be repeated.", SEARCH, shown="latency"),
    ] = USUAL_OBJECTIVES
    filter: Annotated[
        Filter | None,
        Help(
            "Leave out candidates that another one of the block beats by far, in its cost on the "
            "device or in MACs.",
            SEARCH,
            shown="device, or macs where no objective is measured; donna: none",
        ),
    ] = None
    filter_threshold: Annotated[
        Figure, Help("How much cheaper another candidate is, in units of the reference's block.", SEARCH)
    ] = DEFAULT_THRESHOLD
    quality: Annotated[
        Name | None,
        Help(
            "What stands for the accuracy: loss (Σ of block losses, DONNAv2), predictor (DONNA's, "
            "fitted to networks that are finetuned for it), output (Σ of what the output feels of each "
            "choice alone), dna (Σ of relative L1).",
            SEARCH,
            shown="loss; donna: predictor",
        ),
    ] = None
    predictor_networks: Annotated[
        AtLeastFour | None, Help("Networks that the predictor is fitted to at least.", SEARCH)
    ] = None
    predictor_epochs: Annotated[Size | None, Help("Epochs for which each of them is finetuned.", SEARCH)] = (
        None
    )
    strategy: Annotated[
        Name,
        Help(
            "nsga2; exact (the exact front of the block costs, corrected by what is measured); "
            "baselines: scale (uniform depth and width), random.",
            SEARCH,
        ),
    ] = SearchSettings.strategy
    population: Annotated[AtLeastTwo | None, Help("Networks a generation.", SEARCH)] = None
    generations: Annotated[
        Size | None, Help("At most; a search ends when its front no longer moves.", SEARCH)
    ] = None

    finetune_epochs: Annotated[Size | None, Help("Epochs of each picked network.", CHECKPOINTS)] = None

    executor: Annotated[
        Literal["local", "ray"],
        Help("Where blocks are distilled and devices hang: on this machine, or on a Ray cluster.", PLACE),
    ] = "local"
    ray_address: Annotated[
        str | None,
        Help(
            "Of the Ray cluster, HOST:PORT; this machine belongs to it.",
            PLACE,
            shown="the cluster that runs on this machine",
        ),
    ] = None

    @property
    def rules(self) -> tuple[str, ...]:
        """By which networks are picked from the front."""
        bounds = {"speedup": self.speedup, "latency-ms": self.latency_ms, "max-drop": self.max_drop}
        named = [f"{kind}={x:g}" for kind, values in bounds.items() for x in values]
        return (*self.pick, *named) or ("knee",)

    @property
    def cluster(self) -> str:
        """The address of the Ray cluster; empty without one. Raises InputError: one without executor."""
        if self.executor == "ray":
            return self.ray_address or "auto"
        if self.ray_address:
            raise InputError("--ray-address is of use with --executor ray only", "add --executor ray")
        return ""


def parse_cuts(text: str) -> tuple[str, ...]:
    """Return the names in `NAME,NAME`; none for an empty text."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def parse_size(text: str) -> tuple[int, ...]:
    """Return rows and columns of `SIDE` or `HEIGHTxWIDTH`; none for an empty text. Raises InputError."""
    sides = text.lower().split("x") if text else []
    if not all(side.isascii() and side.isdigit() and 0 < int(side) <= LARGEST_SIZE for side in sides) or (
        len(sides) > 2
    ):
        raise InputError(
            f"--measure-size {text}: that is no size in pixels",
            "give the side, --measure-size 256, or height and width, --measure-size 720x1280",
        )
    return tuple(int(side) for side in (sides * 2)[:2])
