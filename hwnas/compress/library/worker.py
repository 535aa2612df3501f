"""What candidates are distilled on and networks are finetuned on, here or on another machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from hwnas.compress.executor import OnProgress
from hwnas.compress.library.distill import Distilled, DistillSettings
from hwnas.compress.library.metrics import ChannelStatistics
from hwnas.compress.library.out_of_memory import distill_within_memory
from hwnas.compress.library.teacher import Kept, Teacher
from hwnas.compress.reference.prepare import Reference, open_data
from hwnas.compress.run.directory import versions
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.tasks import load_task
from hwnas.compress.training import loop
from hwnas.compress.training.placement import channels_last, give_back_memory, require_place
from hwnas.errors import InputError
from hwnas.network import export_onnx
from hwnas.networks.architecture import ArchitectureSpec, Candidate
from hwnas.networks.build import build_part, build_reference
from hwnas.networks.partition import partition
from hwnas.progress import Progress


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """A trained reference with its data, and how to train.

    Attributes:
        statistics: of the channels of what candidates learn, by position; empty where nothing is distilled.
        kept: features of the reference that lie in files of this machine.
        scratch: folder of the states that a killed training goes on from; None keeps none.
    """

    reference: Reference
    settings: LibrarySettings
    statistics: Mapping[int, ChannelStatistics] = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)
    scratch: Path | None = None

    @property
    def teacher(self) -> Teacher:
        """The reference as what candidates learn from."""
        return Teacher(self.reference.parts, self.reference.data, self.kept)

    def pack(self) -> PackedContext:
        """Everything but images and features, which each machine opens or computes by itself."""
        reference = self.reference
        state = reference.module().state_dict()
        return PackedContext(
            architecture=reference.architecture([None] * len(reference.parts.modules)),
            weights={key: value.contiguous() for key, value in state.items()},
            whole_classifier=dict(reference.whole_classifier),
            statistics=self.statistics,
            settings=self.settings,
            data_hash=reference.data.hash,
            versions=versions(),
            folder=str(Path.cwd()),
        )


@dataclass(frozen=True, kw_only=True)
class PackedContext:
    """A context on its way to another machine.

    Attributes:
        data_hash: SHA-256 of the images' content.
        versions: of the packages that results depend on.
        folder: the working folder, from which relative paths and modules are found where it exists.
    """

    architecture: ArchitectureSpec
    weights: dict[str, torch.Tensor]
    whole_classifier: dict[str, torch.Tensor]
    statistics: Mapping[int, ChannelStatistics]
    settings: LibrarySettings
    data_hash: str
    versions: dict[str, str]
    folder: str

    @property
    def needs(self) -> dict[str, int]:
        """What a task takes of a machine."""
        return self.settings.needs

    def open(self) -> TrainingContext:
        """The same context here.

        Raises:
            InputError: the model, the data or a GPU are missing here, or the data or the packages are others.
        """
        if versions() != self.versions:
            raise InputError(
                f"{os.uname().nodename} has {_listed(versions())}, the driver {_listed(self.versions)}",
                "install the same versions on all machines",
            )
        require_place(self.settings.train_on)
        loop.tune_allocator()
        torch.set_num_threads(self.settings.threads)
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
            sys.path.insert(0, self.folder)
        settings, spec = self.settings, self.architecture
        data = open_data(settings, Progress())
        if data.hash != self.data_hash:
            raise InputError(
                f"the data {settings.data} on {os.uname().nodename} are not those of the driver",
                "give all machines the same files; HWNAS_DATA_DIR names where they lie",
            )
        reference = Reference(
            spec=spec.reference,
            # The driver's user has named the code; a worker only builds what the driver has built.
            parts=partition(build_reference(spec.reference, allow_code=True), data.image_shape, spec.regions),
            data=replace(data, mean=spec.mean, std=spec.std),
            task=load_task(settings.task),
            whole_classifier=self.whole_classifier,
        )
        module = reference.module()
        module.load_state_dict(self.weights)
        channels_last(module)
        return TrainingContext(reference=reference, settings=settings, statistics=self.statistics)


def _listed(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def distill_settings(settings: LibrarySettings) -> DistillSettings:
    """How the candidates of a library are trained."""
    return DistillSettings(
        loss=settings.loss,
        epochs=settings.epochs,
        steps=settings.steps or None,
        batch_size=settings.batch_size,
        seed=settings.seed,
        trainer=settings.trainer,
    )


def distill_slice(
    context: TrainingContext, candidates: Sequence[Candidate], on_progress: OnProgress
) -> list[tuple[Distilled, bytes]]:
    """Train a slice of candidates and export them; a failed one has no graph."""
    parts, how = context.reference.parts, distill_settings(context.settings)
    results = distill_within_memory(candidates, context.teacher, context.statistics, how, on_progress)
    give_back_memory(context.settings.train_on)
    found = []
    for candidate, result in zip(candidates, results, strict=True):
        graph = b""
        if result.reason is None:
            module = build_part(parts, candidate.part, candidate.spec)
            module.load_state_dict(result.state)
            graph = export_onnx(module, *((1, *shape) for shape in parts.in_shapes(candidate.part_name)))
        found.append((result, graph))
    return found
