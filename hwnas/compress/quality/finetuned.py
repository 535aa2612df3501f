"""Networks that were finetuned from the library: kept, found again, and what a predictor is fitted to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from hwnas.compress.library.stitch import Choices, joined_choices
from hwnas.compress.library.store import Entry
from hwnas.compress.quality.predictor import Predictor, fit_predictor
from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import (
    decode,
    encode,
    read_bytes,
    read_signed,
    sha256,
    sha256_of_plain,
    sha256_of_unchanged,
    write_signed,
)
from hwnas.measurement import STRICT, Interval
from hwnas.ranges import SizeOrNone

SCHEMA = "hwnas.finetuned/1"
PREDICTOR_FILE = "predictor.json"
METRIC = "nsr"
"""The block metric that the predictor gets (DONNA eq. 1)."""

Metrics = Mapping[tuple[int, int], float]
"""A block metric by part and choice; the reference's own are not in it, they have 0."""


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """A network that was finetuned, and how good it is on the part `val`, which nothing was trained on.

    Attributes:
        epochs: of its finetuning.
        accuracy: None without labels.
        agreement: share of images on which it answers what the reference answers.
    """

    __pydantic_config__ = STRICT
    choices: Choices
    epochs: SizeOrNone
    accuracy: Interval | None
    agreement: Interval
    weights_sha256: str

    @property
    def name(self) -> str:
        """`1-0-3-2-e10`: the choices and the epochs."""
        return finetuned_name(self.choices, self.epochs)

    @property
    def sha256(self) -> str:
        """The hash of the record."""
        return sha256_of_plain(encode(self))

    @property
    def target(self) -> float:
        """What a predictor predicts: the accuracy, or without labels the agreement."""
        return (self.accuracy or self.agreement).value


def finetuned_name(choices: Choices, epochs: int) -> str:
    """The name of a network's files."""
    return f"{joined_choices(choices)}-e{epochs}"


def _choices_of(name: str) -> Choices:
    """The choices in a network's name."""
    return tuple(int(choice) for choice in name.rpartition("-e")[0].split("-"))


class FinetunedNetworks:
    """`architectures/` of a run directory: a record and weights for each network, and the predictor.

    A record is written once its weights are on disk; a network whose weights do not match is not known.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def networks(self, epochs: int | None = None) -> list[Finetuned]:
        """The networks whose records and weights are intact, by name; those of so many epochs, or all."""
        ending = "*" if epochs is None else epochs
        paths = sorted(self.folder.glob(f"[!.]*-e{ending}.json"))
        return [found for path in paths if (found := self._read(path)) is not None]

    def find(self, choices: Choices, epochs: int) -> Finetuned | None:
        """A network that was finetuned for so many epochs; None if it was not, or is damaged."""
        path = self.folder / f"{finetuned_name(choices, epochs)}.json"
        return self._read(path) if path.is_file() else None

    def damaged(self, epochs: int) -> dict[Choices, Path]:
        """The records of networks that were finetuned for so many epochs and are not intact, by choices."""
        paths = [path for path in sorted(self.folder.glob(f"*-e{epochs}.json")) if _is_named(path)]
        return {_choices_of(path.stem): path for path in paths if self._read(path) is None}

    def missed(self, predictor: Predictor) -> dict[Choices, Path]:
        """The records of networks that a predictor was fitted to and that are not what they were then.

        They are missing, damaged, or of another training.
        """
        found = {}
        for name, digest in predictor.fitted_to.items():
            path = self.folder / f"{name}.json"
            known = self._read(path) if path.is_file() else None
            if known is None or known.sha256 != digest:
                found[_choices_of(name)] = path
        return found

    def store(
        self,
        state: Mapping[str, Tensor],
        choices: Choices,
        epochs: int,
        accuracy: Interval | None,
        agreement: Interval,
    ) -> Finetuned:
        """Keep a network's weights and how good it is."""
        from hwnas.networks.serialize import save_state

        weights = self.folder / f"{finetuned_name(choices, epochs)}.safetensors"
        save_state(state, weights)
        found = Finetuned(
            choices=choices,
            epochs=epochs,
            accuracy=accuracy,
            agreement=agreement,
            weights_sha256=sha256(read_bytes(weights)),
        )
        write_signed(weights.with_suffix(".json"), {"schema": SCHEMA, **encode(found)})
        return found

    def load(self, network: Finetuned, module: nn.Module) -> nn.Module:
        """Load a network's weights into its module, which is left in eval mode."""
        from hwnas.networks.weights import load_weights

        load_weights(module, self.folder / f"{network.name}.safetensors")
        return module.eval()

    def fit(self, metrics: Metrics, epochs: int) -> Predictor:
        """Fit the predictor to every network that was finetuned for so many epochs, and keep it.

        Networks of candidates that the library does not have any more are left out.

        Raises:
            InputError: there are too few of them.
        """
        networks = [one for one in self.networks(epochs) if is_known(metrics, one.choices)]
        rows = metric_rows(metrics, [network.choices for network in networks])
        predictor = fit_predictor(rows, np.array([network.target for network in networks]))
        predictor = replace(
            predictor,
            epochs=epochs,
            blocks_sha256=metrics_sha256(metrics),
            fitted_to={network.name: network.sha256 for network in networks},
        )
        predictor.save(self.folder / PREDICTOR_FILE)
        return predictor

    @property
    def has_predictor(self) -> bool:
        """Whether a predictor was fitted."""
        return (self.folder / PREDICTOR_FILE).is_file()

    def predictor(self) -> Predictor:
        """The predictor as it was fitted last.

        Raises:
            InputError: there is none.
            RunDirectoryError: it is damaged.
        """
        path = self.folder / PREDICTOR_FILE
        if not self.has_predictor:
            raise InputError(
                f"{self.folder.parent} has no accuracy predictor yet",
                "give its `hwnas compress` command with --quality predictor",
            )
        try:
            return Predictor.read(path)
        except InputError as error:
            raise RunDirectoryError(
                error.cause, f"remove {path}: it is fitted again by --quality predictor"
            ) from None

    def forget_predictor(self) -> None:
        """Remove a predictor that is damaged; what it was fitted to stays."""
        (self.folder / PREDICTOR_FILE).unlink()

    def _read(self, path: Path) -> Finetuned | None:
        try:
            found = decode(Finetuned, read_signed(path, SCHEMA), path)
            intact = sha256_of_unchanged(path.with_suffix(".safetensors")) == found.weights_sha256
        except InputError:
            return None
        return found if intact and found.name == path.stem else None


def _is_named(path: Path) -> bool:
    """Whether a file has the name of a network's record."""
    return re.fullmatch(r"[0-9]{1,6}(-[0-9]{1,6})*-e[0-9]{1,6}", path.stem) is not None


def block_metrics(entries: Sequence[Entry], metric: str = METRIC) -> Metrics:
    """A metric of every distilled candidate of a library."""
    return {
        (entry.candidate.part, entry.candidate.choice): float(getattr(entry.metrics, metric))
        for entry in entries
        if entry.state == "done"
    }


def metrics_sha256(metrics: Metrics) -> str:
    """The hash of a metric of all candidates of a library."""
    return sha256_of_plain([[*key, value] for key, value in sorted(metrics.items())])


def is_known(metrics: Metrics, choices: Choices) -> bool:
    """Whether a network's choices are distilled candidates, or the reference's own parts."""
    return all(key in metrics for key in enumerate(choices) if key[1])


def metric_rows(metrics: Metrics, networks: Sequence[Choices]) -> np.ndarray:
    """The metrics (S, N) of some networks, as a predictor takes them; the reference's own parts have 0.

    Raises:
        KeyError: a choice that is not in the library.
    """
    return np.array(
        [
            [metrics[part, choice] if choice else 0.0 for part, choice in enumerate(choices)]
            for choices in networks
        ]
    )
