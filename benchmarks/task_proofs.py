"""Other tasks than classification: what is left of a reference at a bound on measured latency.

    python benchmarks/task_proofs.py denoising           # or another of the studies below
    python benchmarks/task_proofs.py denoising --peer    # then torch-pruning at the same bound
    python benchmarks/task_proofs.py                     # the table of those that are done

Run it in the repository's root. Networks, weights and images are those of ../shared/data; none has labels
but what an image itself says; the references of the detection and multi-task studies are trained first, on
collages of Imagenette. `test` is looked at once, by the checkpoint. Stopped, a study goes on by the same
command. demosaicking and detection want their networks: pip install demosaicnet wget 'setuptools<81' effdet
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import collages
from finalists import Bench, Finalist, measured, pruned
from pruning_peer import RATES
from result_tables import OWN, Row

import hwnas
from hwnas.cli.output import TerminalProgress
from hwnas.compress.emit.summary import Summary
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.open_run import open_inputs, open_run
from hwnas.compress.quality.finetune import finetune
from hwnas.compress.run.directory import recorded_settings
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import DEFAULT_THRESHOLD, SearchSettings
from hwnas.compress.tasks.task import difference, quantity
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import measured_difference
from hwnas.measurement import Interval
from hwnas.networks.count import count
from hwnas.profiles.protocols import load_protocol

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
CHOOSE_EPOCHS = 2
MARGIN = 0.02  # of the bound, that noise may take
WAYS = "magnitude", "Taylor"
"""Of torch-pruning; the networks have little or no batch normalisation."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One network, compressed to a bound.

    Attributes:
        model: `module:function` of the network.
        data: as `hwnas.compress` takes it.
        weights: a file of ../shared/data, a network of `collages`; None where the network brings them.
        options: of `hwnas.compress`.
        bound: on latency, in units of the reference.
        goal: the loss of the first metric that is allowed.
    """

    model: str
    data: str
    weights: str | None
    task: str
    bound: float
    goal: float
    options: Mapping[str, Any]


def _space(name: str) -> str:
    return str(Path(__file__).with_name(f"{name}.toml"))


SMALL = {"batch_size": 16, "population": 12, "generations": 6, "protocol": "quick"}
PLAIN = {
    **SMALL,
    "batch_size": 8,
    "space": _space("narrow"),
    "epochs": 3,
    "finetune_epochs": 24,
    "measure_size": "96",
}
"""Of plain convolutions, trained on small crops."""
COLLAGE = {**SMALL, "space": _space("thin"), "epochs": 1, "finetune_epochs": 6}
DETECTION: dict[str, Any] = {
    "model": "benchmarks.collages:detector",
    "data": f"folder:{collages.FOLDER}",
    "weights": "detector",
    "task": collages.DETECTION,
    "bound": 0.7,
    "goal": 0.0,
}
STUDIES = {
    "denoising": Study(
        model="benchmarks.task_networks:denoising",
        data="benchmarks.task_networks:denoising_data",
        weights="dncnn_gray_sigma25.safetensors",
        task="denoising:25",
        bound=0.5,
        goal=0.15,
        options={**PLAIN, "space": "cuts", "epochs": 2},
    ),
    "super-resolution": Study(
        model="benchmarks.task_networks:super_resolution",
        data="benchmarks.task_networks:super_resolution_data",
        weights="waifu2x_upconv7_photo_x2.safetensors",
        task="super-resolution:2",
        bound=0.45,
        goal=0.16,
        options={**PLAIN, "batch_size": 16, "finetune_epochs": 40},
    ),
    "text-segmentation": Study(
        model="benchmarks.task_networks:text_segmentation",
        data="benchmarks.task_networks:text_segmentation_data",
        weights="ppocrv4_text_detector.safetensors",
        task="segmentation",
        bound=0.5,
        goal=0.01,
        options={**SMALL, "space": _space("thin"), "epochs": 2, "finetune_epochs": 15},
    ),
    "demosaicking": Study(
        model="benchmarks.task_networks:demosaicking",
        data="benchmarks.task_networks:demosaicking_data",
        weights=None,
        task="benchmarks.task_networks:DEMOSAICKING",
        bound=0.5,
        goal=0.5,
        options=PLAIN,
    ),
    "detection": Study(**DETECTION, options=COLLAGE),
    "detection-backbone": Study(**DETECTION, options={**COLLAGE, "only": "backbone"}),
    "multi-task": Study(
        model="benchmarks.collages:overview",
        data="benchmarks.collages:overview_data",
        weights="overview",
        task="benchmarks.collages:SEVERAL",
        bound=0.75,
        goal=0.01,
        options=COLLAGE,
    ),
}


def run(name: str, out: Path, device: str) -> None:
    """Compress the network of a study."""
    study, progress = STUDIES[name], TerminalProgress()
    weights = "auto" if study.weights is None else str(SHARED / study.weights)
    if study.weights in collages.NETWORKS:
        weights = str(collages.reference(study.weights, out, progress))
    hwnas.compress(
        study.model,
        data=study.data,
        devices=[device],
        out=out / name,
        progress=progress,
        weights=weights,
        task=study.task,
        speedup=[1 / study.bound],
        preset="standard",
        **study.options,
    )


def prune(name: str, out: Path, device: str) -> str:
    """Compress a study's network by torch-pruning as well; a row for each, measured in one session."""
    study, folder, progress = STUDIES[name], out / name, TerminalProgress()
    settings, summary = recorded_settings(folder), hwnas.open_run(folder).checkpoints()[0].summary
    assert settings is not None
    search = SearchSettings(
        device=device,
        objectives=("latency",),
        protocol=study.options["protocol"],
        population=study.options["population"],
        generations=study.options["generations"],
        finetune_epochs=study.options["finetune_epochs"],
        picks=(),
        filter="device",
        filter_threshold=DEFAULT_THRESHOLD,
    )
    target, peers = target_of(search), out / f"{name}-peer"
    peers.mkdir(exist_ok=True)
    with open_run(open_inputs(settings, progress), [(search, target)], folder, progress) as opened:
        device_run = DeviceRun(run=opened, search=search, target=target)
        module, _ = finetune(device_run, summary.choices, summary.finetune_epochs, lambda *_: None)
        own: Finalist = (Row(method=OWN, bound=study.bound), module)
        bench = Bench(out=peers, device=device_run, margin=MARGIN)
        others = pruned(bench, CHOOSE_EPOCHS, [study.bound], ways=WAYS, rates=RATES[:1])
        rows = measured(bench, [own, *others], load_protocol("report"))
        reference = opened.reference
        task = reference.task
        evidence = loop.scores(reference.module(), reference.data, task)
        macs, _ = count(reference.module(), reference.measured.image_shape)
    lines = [
        f"{name} at ≤ {study.bound:g} of the latency, {search.finetune_epochs} epochs of finetuning each\n",
        "| method | difference in " + task.measure.metric.name + " | latency ratio | MACs ratio | network |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row.latency_ratio is None:
            lines.append(f"| {row.method} | {row.reason} | | | |")
            continue
        lost = measured_difference(row.scores, evidence, task.measure)
        lines.append(
            f"| {row.method} | {difference(lost, task.measure.metric)} | {_ratio(row.latency_ratio)} "
            f"| {row.macs / macs:.3f} | {row.network} |"
        )
    return "\n".join(lines)


def table(out: Path) -> str:
    """A row for each metric of each study that has ended."""
    rows = [
        "| study | metric | reference | compressed | difference [95 %] | latency ratio [95 %] | MACs ratio "
        "| goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, study in STUDIES.items():
        if (out / name / "checkpoints").is_dir():
            for each in hwnas.open_run(out / name).checkpoints():
                rows += _rows(name, study, each.summary)
    return "\n".join(rows)


def _rows(name: str, study: Study, summary: Summary) -> list[str]:
    """The first metric, by which the goal is judged, and the others."""
    reached, reference, lost = summary.accuracy, summary.accuracy_reference, summary.accuracy_difference
    assert reached and reference and lost
    ratio = summary.latency_ratio
    is_met = -lost.value <= study.goal and ratio.value <= study.bound
    first = (
        f"| {name} | {summary.metric.name} | {quantity(reference, summary.metric)} "
        f"| {quantity(reached, summary.metric)} | {difference(lost, summary.metric)} | {_ratio(ratio)} "
        f"| {summary.macs / summary.macs_reference:.3f} "
        f"| ≥ −{study.goal:g} at ≤ {study.bound:g}: {'met' if is_met else 'missed'} |"
    )
    return [
        first,
        *(
            f"| | {each.metric.name} | {quantity(each.reference, each.metric)} "
            f"| {quantity(each.value, each.metric)} | {difference(each.difference, each.metric)} | | | |"
            for each in summary.further_metrics
        ),
    ]


def _ratio(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def main() -> None:
    """Run the study that is named, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", choices=sorted(STUDIES))
    parser.add_argument("--peer", action="store_true", help="torch-pruning in the place of hwnas")
    parser.add_argument("--out", type=Path, default=Path("runs/task_proofs"))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.study and options.peer:
        print(prune(options.study, options.out, options.device))
        return
    if options.study:
        run(options.study, options.out, options.device)
    print(table(options.out))


if __name__ == "__main__":
    main()
