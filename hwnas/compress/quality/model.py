"""Quality models: what stands for the accuracy of a network that nobody has trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.run import Run
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.quality.finetune import finetune_all, finetuned_networks
from hwnas.compress.quality.finetuned import (
    METRIC,
    Metrics,
    block_metrics,
    is_known,
    metric_rows,
    metrics_sha256,
)
from hwnas.compress.quality.kinds import QualityKind, QualityModel, quality_kind
from hwnas.compress.quality.predictor import Predictor
from hwnas.compress.quality.sampling import sample_networks
from hwnas.compress.settings import SearchSettings
from hwnas.compress.tasks.task import Task
from hwnas.errors import InputError, RunDirectoryError

DNA_METRIC = "relative_l1"
"""The block metric of the DNA score (DNA eq. 8)."""


def prepare_quality(device: DeviceRun) -> QualityModel:
    """Make the quality model that a search names. Raises InputError: there is none, or it cannot be made."""
    return quality_kind(device.search.quality)(device)


def require_judged(search: SearchSettings, task: Task, *, has_targets: bool) -> None:
    """Refuse a quality model that expects right answers, where the task has none.

    Raises:
        InputError: it does, and the metric is no share, or a share of what is wrong.
    """
    judged = task.judged(has_targets)
    is_right = judged.share and judged.higher_is_better
    if not is_right and quality_kind(search.quality).expects_share:
        raise InputError(
            f"the {search.quality} expects a share of right answers, {task.name} is judged by {judged.name}",
            "search by the sum of block losses: --quality loss",
        )


class Quality:
    """The quality models `loss`, `dna` and `predictor`.

    `loss` is Σ of the block losses (DONNAv2), `dna` Σ of the relative L1 errors (DNA), `predictor` 1 − the
    accuracy that DONNA's predictor expects.

    Attributes:
        predictor: None for the sums.
    """

    def __init__(self, stitcher: Stitcher, metric: str, predictor: Predictor | None = None) -> None:
        self.stitcher = stitcher
        self.metric = metric
        self.predictor = predictor
        self._metrics = block_metrics(stitcher.library.entries(), metric)

    def loss(self, choices: Choices) -> float:
        """What a search lowers beside the costs."""
        predicted = self.predicted(choices)
        return self.stitcher.loss(choices, self.metric) if predicted is None else 1 - predicted[0]

    def predicted(self, choices: Choices) -> tuple[float, bool] | None:
        """The predicted accuracy, as a share, and whether it extrapolates; None for the sums."""
        if self.predictor is None:
            return None
        row = metric_rows(self._metrics, [choices])
        return float(self.predictor.predict(row)[0]), bool(self.predictor.extrapolates(row)[0])

    def part_losses(self, choices: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """What each choice adds to the loss: (M_n,) of each part."""
        return part_losses(self._metrics, choices, self.predictor)


def part_losses(
    metrics: Metrics, choices: Sequence[Sequence[int]], predictor: Predictor | None
) -> list[np.ndarray]:
    """What each choice adds to the sum of a metric, or to 1 − the predicted accuracy: (M_n,) of each part.

    Exact for the sum. For the predictor these are its main effects over these choices: for a quadratic
    function, each choice's mean over all architectures, up to a constant.
    """
    tables = [
        np.array([metrics[part, choice] if choice else 0.0 for choice in of_part])
        for part, of_part in enumerate(choices)
    ]
    if predictor is None:
        return tables
    middle = np.array([table.mean() for table in tables])
    losses = []
    for part, table in enumerate(tables):
        rows = np.repeat(middle[None], len(table), axis=0)
        rows[:, part] = table
        losses.append(1 - predictor.predict(rows))
    whole = float(1 - predictor.predict(middle[None])[0])
    return [loss - whole + whole / len(tables) for loss in losses]


def _predicting(device: DeviceRun) -> QualityModel:
    """Predict the accuracy (DONNA); networks are finetuned until the predictor has enough.

    What was finetuned before for as many epochs counts, whatever for. A search that is repeated in the same
    library keeps its predictor, so it finds the same again, its picks having been finetuned since or not.
    The predictor is kept in the device's folder, as `quality-predictor.json` or the like.

    Raises:
        InputError: too few networks for a predictor can be made of the library.
    """
    stitcher, settings = device.stitcher, device.search
    file = device.folder / f"quality{settings.suffix}.json"
    predictor = _kept(file, settings, block_metrics(stitcher.library.entries()))
    _finetune_again(device, _lost(device.run, predictor, settings.predictor_epochs))
    if predictor is None:
        _finetune_missing(device)
    newest = _fit(device.run, settings.predictor_epochs)
    if predictor is None:
        predictor = newest
        predictor.save(file)
    device.run.progress.say(f"accuracy predictor: {describe(predictor)}")
    return Quality(stitcher, METRIC, predictor)


SUM = "The loss is Σ of the held-out {} of the chosen blocks, not finetuned; 0 is the reference."

by_loss = QualityKind(  # DONNAv2
    make=lambda device: Quality(device.stitcher, device.run.settings.loss),
    axis="quality loss: Σ of block losses",
    sentence=SUM.format("{block_loss}"),
)
by_dna = QualityKind(  # DNA eq. 8
    make=lambda device: Quality(device.stitcher, DNA_METRIC),
    axis="DNA score: Σ of relative L1 errors",
    sentence=SUM.format("relative L1 error (DNA)"),
)
by_predictor = QualityKind(  # DONNA
    make=_predicting,
    axis="1 − predicted accuracy",
    sentence="The loss is 1 − the accuracy that the predictor expects after finetuning.",
    expects_share=True,
    prepares=True,
)


def _kept(file: Path, settings: SearchSettings, metrics: Metrics) -> Predictor | None:
    """The predictor that a search had before; None where it is missing, damaged or not what is wanted."""
    try:
        predictor = Predictor.read(file)
    except InputError:
        return None
    enough = predictor.networks >= settings.predictor_networks
    same_library = predictor.blocks_sha256 == metrics_sha256(metrics)
    same_epochs = predictor.epochs == settings.predictor_epochs
    return predictor if enough and same_epochs and same_library else None


def refit(run: Run) -> None:
    """Fit a predictor that is there again, if networks were finetuned since then for as many epochs."""
    networks, progress = finetuned_networks(run), run.progress
    if not networks.has_predictor:
        return
    try:
        predictor = networks.predictor()
    except RunDirectoryError as error:
        networks.forget_predictor()
        progress.say(f"{error.cause}; it is removed, --quality predictor fits it again")
        return
    if predictor.epochs is None:
        return
    if lost := networks.missed(predictor) | networks.damaged(predictor.epochs):
        progress.say(
            f"{describe_lost(lost)}; the predictor stays as it was, --quality predictor finetunes again"
        )
        return
    if len(networks.networks(predictor.epochs)) > predictor.networks:
        fitted = _fit(run, predictor.epochs)
        progress.say(f"accuracy predictor for the searches to come: {describe(fitted)}")


def _finetune_missing(device: DeviceRun) -> None:
    """Networks are sampled until there are enough."""
    settings = device.search
    known = {each.choices for each in finetuned_networks(device.run).networks(settings.predictor_epochs)}
    wanted = sample_networks(
        dna_scores(device.stitcher), settings.predictor_networks, device.run.settings.seed
    )
    fresh = [choices for choices in wanted if choices not in known]
    _finetune_networks(device, fresh[: max(0, settings.predictor_networks - len(known))])


def _lost(run: Run, kept: Predictor | None, epochs: int) -> dict[Choices, Path]:
    """Networks of so many epochs that were finetuned once and are damaged, or that a predictor misses."""
    networks = finetuned_networks(run)
    lost = networks.damaged(epochs)
    fitted = [] if kept is None else [kept]
    if networks.has_predictor:
        with suppress(RunDirectoryError):  # it is fitted again in any case
            fitted.append(networks.predictor())
    for predictor in fitted:
        if predictor.epochs == epochs:
            missed = networks.missed(predictor)
            lost |= {choices: path for choices, path in missed.items() if not path.is_file()}
    return lost


def _finetune_again(device: DeviceRun, lost: Mapping[Choices, Path]) -> None:
    """Damaged networks are made again, as far as the library still has their candidates."""
    metrics = block_metrics(device.run.library.entries())
    if lost:
        device.run.progress.say(f"{describe_lost(lost)}; finetuned again")
    _finetune_networks(device, [choices for choices in lost if is_known(metrics, choices)])


def describe_lost(lost: Mapping[Choices, Path]) -> str:
    """Which networks are not what they were, for people."""
    return f"{', '.join(map(str, lost.values()))}: missing or damaged"


def _finetune_networks(device: DeviceRun, networks: Sequence[Choices]) -> None:
    if not networks:
        return
    epochs, finished = device.search.predictor_epochs, dict[Choices, int]()

    def after_epoch(choices: Choices, done: int, loss: float) -> None:
        finished[choices] = done
        remark = f"network {len(finished)} of {len(networks)}, loss {loss:.3f}"
        total = len(networks) * epochs
        device.run.progress.advance("finetune predictor networks", sum(finished.values()), total, remark)

    finetune_all(device, networks, epochs, "predictor networks", after_epoch, device.run.executor)


def _fit(run: Run, epochs: int) -> Predictor:
    """Fit the predictor of a run to all networks that were finetuned for so many epochs."""
    return finetuned_networks(run).fit(block_metrics(run.library.entries()), epochs)


def describe(predictor: Predictor) -> str:
    """How good a predictor is, for people."""
    left_out = predictor.left_out
    tau = "–" if left_out.kendall_tau is None else f"{left_out.kendall_tau:.3f}"
    useless = "" if predictor.is_useful else ", no better than their mean: give more --predictor-networks"
    return (
        f"fitted to {predictor.networks} networks after {predictor.epochs} epochs of finetuning, "
        f"penalty {predictor.penalty:.3g}; "
        f"on networks left out of the fit: Kendall tau {tau}, "
        f"mean squared error {left_out.mse_points2:.3g} points²{useless}"
    )


def dna_scores(stitcher: Stitcher) -> list[dict[int, float]]:
    """The DNA score of every distilled choice, by part."""
    scores: list[dict[int, float]] = [{0: 0.0} for _ in stitcher.parts.modules]
    for (part, choice), score in block_metrics(stitcher.library.entries(), DNA_METRIC).items():
        scores[part][choice] = score
    return scores
