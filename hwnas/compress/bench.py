"""What slices of candidates are distilled on, here or on another machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hwnas.compress import training
from hwnas.compress.architecture import ArchitectureSpec, assemble, build_part
from hwnas.compress.data import Data
from hwnas.compress.distill import Distilled, DistillSettings, teacher_statistics
from hwnas.compress.executor import Tell
from hwnas.compress.memory import distill_within_memory
from hwnas.compress.metrics import ChannelStatistics
from hwnas.compress.partition import Partition, partition
from hwnas.compress.prepare import Reference, open_data
from hwnas.compress.progress import Progress
from hwnas.compress.reference import build_reference
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.space import Candidate
from hwnas.errors import InputError
from hwnas.network import export_onnx


@dataclass(frozen=True, kw_only=True)
class DistillBench:
    """The teacher, its statistics, the data and how to train."""

    parts: Partition
    data: Data
    statistics: Sequence[ChannelStatistics]
    how: DistillSettings
    architecture: ArchitectureSpec
    settings: LibrarySettings

    @staticmethod
    def of(reference: Reference, how: DistillSettings, settings: LibrarySettings) -> DistillBench:
        """The bench of a trained reference. Its layout in memory is fixed, since results depend on it."""
        reference.module().to(memory_format=torch.channels_last)
        return DistillBench(
            parts=reference.parts,
            data=reference.data,
            statistics=teacher_statistics(reference.parts, reference.data, how.batch_size),
            how=how,
            architecture=reference.architecture([None] * len(reference.parts.modules)),
            settings=settings,
        )

    def pack(self) -> PackedBench:
        """Everything but the images, which each machine opens by itself."""
        state = assemble(self.parts, self.parts.modules).state_dict()
        return PackedBench(
            architecture=self.architecture,
            weights={key: value.contiguous() for key, value in state.items()},
            statistics=tuple(self.statistics),
            how=self.how,
            settings=self.settings,
            data_hash=self.data.hash,
            folder=str(Path.cwd()),
        )


@dataclass(frozen=True, kw_only=True)
class PackedBench:
    """A bench on its way to another machine.

    Attributes:
        data_hash: SHA-256 of the images' content.
        folder: the working folder, from which relative paths and modules are found where it exists.
    """

    architecture: ArchitectureSpec
    weights: dict[str, torch.Tensor]
    statistics: tuple[ChannelStatistics, ...]
    how: DistillSettings
    settings: LibrarySettings
    data_hash: str
    folder: str

    @property
    def threads(self) -> int:
        """CPU threads of training."""
        return self.settings.threads

    def open(self) -> DistillBench:
        """The same bench here.

        Raises:
            InputError: the model or the data are missing here, or the data are others.
        """
        training.tune_allocator()
        torch.set_num_threads(self.threads)
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
        # The driver's user has named the code; a worker only builds what the driver has built.
        model = build_reference(spec.reference, allow_code=True)
        parts = partition(model, spec.input_shape, spec.cuts)
        whole = assemble(parts, parts.modules)
        whole.load_state_dict(self.weights)
        whole.to(memory_format=torch.channels_last)
        return DistillBench(
            parts=parts,
            data=replace(data, mean=spec.mean, std=spec.std),
            statistics=self.statistics,
            how=self.how,
            architecture=spec,
            settings=settings,
        )


def distill_slice(
    bench: DistillBench, candidates: Sequence[Candidate], tell: Tell
) -> list[tuple[Distilled, bytes]]:
    """Train a slice of candidates and export them; a failed one has no graph."""
    found = []
    for candidate, result in zip(
        candidates,
        distill_within_memory(candidates, bench.parts, bench.data, bench.statistics, bench.how, tell),
        strict=True,
    ):
        graph = b""
        if result.reason is None:
            module = build_part(bench.parts, candidate.part, candidate.spec)
            module.load_state_dict(result.state)
            graph = export_onnx(module, (1, *bench.parts.shapes[candidate.part]))
        found.append((result, graph))
    return found
