"""Predictions for networks of a run, made from what its directory holds; nothing is trained or measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.compress.library.stitch import Choices
from hwnas.compress.library.store import Entry, Library
from hwnas.compress.quality.finetuned import PREDICTOR_FILE, FinetunedNetworks, block_metrics, metric_rows
from hwnas.compress.quality.model import describe_lost
from hwnas.compress.quality.predictor import Predictor
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.errors import InputError, RunDirectoryError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is expected of one network.

    Attributes:
        predicted_accuracy: as a share, on the part `val`; without labels the agreement with the reference.
        extrapolates: whether it is beyond the networks that the predictor was fitted to.
        finetuned_accuracy: what it reached, where it was finetuned for as many epochs.
        dna_score, nsr: Σ of the blocks' relative L1 errors and noise-to-signal ratios.
    """

    choices: Choices
    predicted_accuracy: float
    extrapolates: bool
    finetuned_accuracy: float | None
    dna_score: float
    nsr: float
    macs: int
    params: int


def predict_networks(run: Path, architectures: Sequence[str]) -> tuple[Predictor, list[Prediction]]:
    """Predict the accuracy of some architectures, such as `0-3-1-2-0`.

    Raises:
        InputError: no run, no predictor in it, or an architecture that its library does not have.
        RunDirectoryError: a file of the run is damaged.
    """
    if not (run / "library" / "library.db").is_file():
        raise InputError(
            f"{run} is not a run directory with a library",
            "give the directory that `hwnas compress --out` named, such as runs/demo",
        )
    reference = ReferenceRecord.read(run / "reference")
    with Library(run / "library") as library:
        entries = {(e.candidate.part, e.candidate.choice): e for e in library.entries() if e.state == "done"}
    known = FinetunedNetworks(run / "architectures")
    predictor = known.predictor()
    if predictor.parts != len(reference.parts):
        raise RunDirectoryError(
            f"{known.folder / PREDICTOR_FILE} is of another network: it expects {predictor.parts} parts, not "
            f"{len(reference.parts)}",
            "remove it: it is fitted again by --quality predictor",
        )
    lost = known.missed(predictor)
    if predictor.epochs is not None:
        lost |= known.damaged(predictor.epochs)
    if lost:
        raise RunDirectoryError(
            f"{describe_lost(lost)}, or not what the predictor was fitted to",
            "give the run's `hwnas compress` command with --quality predictor: it finetunes them again",
        )
    networks = [_parse(text, len(reference.parts), entries) for text in architectures]
    metrics = {name: block_metrics(list(entries.values()), name) for name in ("nsr", "relative_l1")}
    finetuned = {network.choices: network.target for network in known.networks(predictor.epochs)}
    rows = metric_rows(metrics["nsr"], networks)
    scores = metric_rows(metrics["relative_l1"], networks).sum(1)
    found = []
    for choices, row, predicted, extrapolates, dna_score in zip(
        networks, rows, predictor.predict(rows), predictor.extrapolates(rows), scores, strict=True
    ):
        macs, params = reference.counts(
            [entries[key].candidate if key[1] else None for key in enumerate(choices)]
        )
        found.append(
            Prediction(
                choices=choices,
                predicted_accuracy=float(predicted),
                extrapolates=bool(extrapolates),
                finetuned_accuracy=finetuned.get(choices),
                dna_score=float(dna_score),
                nsr=float(row.sum()),
                macs=macs,
                params=params,
            )
        )
    return predictor, found


def _parse(text: str, parts: int, entries: Mapping[tuple[int, int], Entry]) -> Choices:
    """The choices in `0-3-1-2-0`; all but 0 must be among the entries."""
    numbers = text.split("-")
    if len(numbers) != parts or not all(re.fullmatch("[0-9]{1,6}", number) for number in numbers):
        raise InputError(
            f"{text!r} does not name one choice for each of the {parts} parts",
            f"give them as the front shows them, such as {'-'.join(['0'] * parts)}, the reference",
        )
    choices = tuple(int(number) for number in numbers)
    for part, choice in enumerate(choices):
        if choice and (part, choice) not in entries:
            last = max((c for p, c in entries if p == part), default=0)
            raise InputError(
                f"{text}: part {part} has no distilled choice {choice}",
                f"its choices go up to {last}; a choice that failed is no choice",
            )
    return choices
