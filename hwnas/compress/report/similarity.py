"""How much alike the layers of a device's networks are, beside their losses (DONNAv2 4.2.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau
from torch import Tensor, nn

from hwnas.compress.data import Data
from hwnas.compress.executor import LocalExecutor
from hwnas.compress.library.open_run import open_inputs, prepare_training, run_of
from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.store import Library
from hwnas.compress.quality.cka import LEAST_IMAGES, layer_similarity
from hwnas.compress.report.layers import Matrix, NetworkSimilarity, SimilarityRecord, StitchedSimilarity
from hwnas.compress.report.stored import read_run
from hwnas.compress.run.directory import RunDirectory
from hwnas.errors import InputError
from hwnas.networks.serialize import load_module
from hwnas.progress import Progress

BATCH, BATCHES = 32, 8
LEAST_NETWORKS = 3
DIGITS = 3


def compare_layers(
    path: Path, folder: Path, progress: Progress, *, allow_code: bool = False
) -> SimilarityRecord:
    """Compare the layers of the reference, a device's checkpoints, and its front's stitched networks.

    Args:
        path: of the run.
        folder: of the device in it.
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: there is no run, or what it was made from has changed.
        RunDirectoryError: a file of the run is damaged.
    """
    stored = read_run(path, folder)
    inputs = open_inputs(stored.settings, progress, allow_code=allow_code)
    prepare_training(inputs)
    with (
        RunDirectory.open(path, stored.settings, inputs.hashes) as directory,
        Library(directory.library) as library,
    ):
        reference = run_of(inputs, directory, library, progress, LocalExecutor()).reference
        teacher, stitcher = reference.module(), Stitcher(reference.parts, library)
        batches = list(_batches(reference.data))
        if not batches:
            raise InputError(
                f"layers are compared on {LEAST_IMAGES} images of val at least, it has "
                f"{len(reference.data.val)}",
                "give more images",
            )
        accuracy = None if stored.reference.accuracy is None else stored.reference.accuracy.value
        networks = [_network("reference", [teacher], batches, 0.0, accuracy)]
        for checkpoint in stored.checkpoints:
            module = load_module(directory.checkpoints / checkpoint.name, allow_code=inputs.allow_code)
            summary = checkpoint.summary
            accuracy = None if summary.accuracy is None else summary.accuracy.value
            loss = stitcher.loss(summary.choices, stored.settings.loss)
            networks.append(_network(checkpoint.name, [module, teacher], batches, loss, accuracy))
        front, rows = [], stored.searches[0].front.front
        for number, row in enumerate(rows, 1):
            ((names,), matrix) = layer_similarity([stitcher.module(row.choices)], batches)
            value = between_blocks(names, matrix)
            front.append(StitchedSimilarity(choices=row.choices, loss=row.loss, between_blocks=value))
            progress.advance("layers of the front", number, len(rows))
    record = SimilarityRecord(
        device=stored.device,
        images=sum(map(len, batches)),
        networks=tuple(networks),
        front=tuple(front),
        kendall_tau=_tau([each.between_blocks for each in front], [each.loss for each in front]),
    )
    record.write(folder)
    return record


def between_blocks(layers: Sequence[str], matrix: np.ndarray) -> float:
    """The mean similarity of two layers of different parts; 0 where there are none.

    Args:
        layers: names that begin with the part's.
        matrix: (L, L).
    """
    parts = np.array([name.partition(".")[0] for name in layers])
    others = parts[:, None] != parts[None]
    return float(matrix[others].mean()) if others.any() else 0.0


def _network(
    name: str, networks: Sequence[nn.Module], batches: Sequence[Tensor], loss: float, accuracy: float | None
) -> NetworkSimilarity:
    """Compare the layers of a network, and with those of the reference where that is the second one."""
    names, matrix = layer_similarity(networks, batches)
    own = len(names[0])
    return NetworkSimilarity(
        name=name,
        layers=tuple(names[0]),
        own=_rounded(matrix[:own, :own]),
        with_reference=_rounded(matrix[:own, own:]) if len(networks) > 1 else None,
        between_blocks=between_blocks(names[0], matrix[:own, :own]),
        loss=loss,
        accuracy=accuracy,
    )


def _batches(data: Data) -> Iterator[Tensor]:
    """Images of `val`, all of one size, in batches that are large enough."""
    images = replace(data, place="cpu").batches(data.val, BATCH)
    for x, _ in islice(images, BATCHES):
        if len(x) >= LEAST_IMAGES:
            yield x


def _tau(values: Sequence[float], losses: Sequence[float]) -> float | None:
    if len(values) < LEAST_NETWORKS:
        return None
    tau = float(kendalltau(values, losses).statistic)
    return tau if math.isfinite(tau) else None


def _rounded(matrix: np.ndarray) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in matrix.round(DIGITS))
