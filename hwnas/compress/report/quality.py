"""What the report says of the quality model, its predictor, and the distance from the exact front."""

from __future__ import annotations

import numpy as np

from hwnas.compress.library.stitch import joined_choices
from hwnas.compress.quality.finetuned import block_metrics, metric_rows
from hwnas.compress.quality.kinds import described_quality
from hwnas.compress.quality.model import describe
from hwnas.compress.quality.predictor import MIN_NETWORKS, Predictor, leave_one_out
from hwnas.compress.report import plots
from hwnas.compress.report.stored import Search, StoredRun
from hwnas.compress.search.record import FrontRow
from hwnas.compress.search.strategies import ExactFront
from hwnas.page import Section

HEADING = "Accuracy predictor"


def loss_text(row: FrontRow) -> str:
    """A network's predicted accuracy, with a star where it is an extrapolation, or its loss."""
    if row.predicted_accuracy is None:
        return f"{row.loss:.4f}"
    return f"{row.predicted_accuracy * 100:.1f} %{'*' if row.extrapolates else ''}"


def what_loss_is(stored: StoredRun, search: Search) -> str:
    """What the loss of a search is."""
    return described_quality(search.front.quality).sentence.replace(
        "{block_loss}", stored.settings.loss.upper()
    )


def against_exact(exact: ExactFront) -> str:
    """How far a front is from the exact one under additive costs."""
    return (
        "Where loss and costs are taken as sums over the parts, corrected by all networks that were measured "
        f"(which leaves a mean error of {exact.mean_error * 100:.1f} % in their costs), the best front is "
        f"known exactly: it has {exact.points} networks. The front above has "
        f"{exact.hypervolume * 100:.1f} % of its hypervolume; what it misses may be networks that were "
        "not found, or ones that are not as cheap as their sums."
    )


def predictor(stored: StoredRun, fitted: Predictor) -> Section:
    """How good the accuracy predictor is on networks that it was not fitted to."""
    intro = f"Ridge regression of the second order on the NSR of each part (DONNA), {describe(fitted)}."
    if stored.lost:
        files = ", ".join(str(path.relative_to(stored.path)) for path in stored.lost)
        intro += (
            f" Missing, damaged or trained again since then: {files}; `hwnas compress` with --quality "
            "predictor finetunes them again."
        )
    if len(stored.finetuned) < MIN_NETWORKS:
        lost = f"Of these networks {len(stored.finetuned)} are still intact, too few for a plot."
        return Section(heading=HEADING, content=[f"{intro} {lost}"])
    metrics = block_metrics(list(stored.entries.values()))
    rows = metric_rows(metrics, [network.choices for network in stored.finetuned])
    targets = np.array([network.target for network in stored.finetuned])
    left_out = leave_one_out(rows, targets)
    names = [joined_choices(network.choices) for network in stored.finetuned]
    return Section(
        heading=HEADING,
        content=[
            f"{intro} Each network below is predicted by a fit to all the others, its penalty chosen without "
            "it. Accuracies are on the part that nothing was trained on; without labels they are the share "
            "of answers that are the reference’s.",
            plots.predictor_plot([float(t) for t in targets], [float(p) for p in left_out], names),
        ],
    )
