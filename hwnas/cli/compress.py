"""`hwnas compress`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hwnas.cli.batch_output import show_comparison
from hwnas.cli.device_options import AllowFallback, AnyGpu, Batch, NoDeviceCheck, cluster_of
from hwnas.cli.output import (
    AllowCode,
    Cut,
    Json,
    Space,
    TerminalProgress,
    parse_cuts,
    print_json,
    print_table,
)
from hwnas.cli.parsing import a_number
from hwnas.compress.settings import DEFAULT_THRESHOLD
from hwnas.errors import HwnasError
from hwnas.ranges import LARGEST_FIGURE, LARGEST_SIZE, LARGEST_THREADS

EXAMPLE = """Examples:

`hwnas compress efficientnet_b0 --device cpu --data digits --preset quick`

`hwnas compress tf_efficientnet_lite0 --weights FILE --data imagenette --device cpu`

`hwnas compress efficientnet_b0 --device s20-gpu --device sim-npu --device cpu --data digits`

`hwnas compress mobilenetv3_large_100 --weights FILE --data folder:photos --device cpu`

`hwnas compress runs/demo/checkpoints/cpu-knee --device cpu --data digits --speedup 1.5 --out runs/again`
"""


SHOWN = {
    "latency": ("latency ms", "latency_ms", 3),
    "throughput": ("images/s", "throughput_per_s", 0),
    "energy": ("energy mJ", "energy_mj", 3),
}
"""What stands beside the ratios in the table of the front, by objective: label, key, digits."""

COUNTED = ("macs", "params")
"""Objectives that are known of the reference on any device."""


class LossName(StrEnum):
    """Block losses."""

    nsr = "nsr"
    mse = "mse"


class FilterName(StrEnum):
    """What the filter compares."""

    device = "device"
    macs = "macs"
    none = "none"


class PlaceName(StrEnum):
    """Where networks are trained."""

    cpu = "cpu"
    cuda = "cuda"


class ExecutorName(StrEnum):
    """Where tasks run."""

    local = "local"
    ray = "ray"


class QualityName(StrEnum):
    """Quality models."""

    loss = "loss"
    predictor = "predictor"
    dna = "dna"


class StrategyName(StrEnum):
    """Which networks a search asks for."""

    nsga2 = "nsga2"
    exact = "exact"
    scale = "scale"
    random = "random"


class ObjectiveName(StrEnum):
    """Costs that a search can lower."""

    latency = "latency"
    throughput = "throughput"
    energy = "energy"
    macs = "macs"
    params = "params"


def compress(
    model: Annotated[str, typer.Argument(help="timm name, module:function, or a checkpoint directory.")],
    device: Annotated[
        list[str],
        typer.Option(help="Device profile; see `hwnas devices`. Given again: another device, one library."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Images to distil with: digits, fashion-mnist, cifar10, imagenette (looked for in "
            "$HWNAS_DATA_DIR, downloaded once), folder:PATH (a folder for each class, or no labels), or "
            "module:function of one's own."
        ),
    ],
    out: Annotated[Optional[Path], typer.Option(help="Run directory.", show_default="runs/MODEL")] = None,  # noqa: UP045
    preset: Annotated[
        str, typer.Option(help="Defaults of the options below: quick, standard, paper.")
    ] = "standard",
    weights: Annotated[
        str,
        typer.Option(
            help="A .safetensors or .pth file, `pretrained` (from the hub), or `none` (train on the data). "
            "`auto` takes published weights where their classes are those of the data."
        ),
    ] = "auto",
    image_size: Annotated[
        int,
        typer.Option(
            min=0,
            max=LARGEST_SIZE,
            help="Side of the images in pixels; 0: the data's own, for a folder the model's.",
        ),
    ] = 0,
    task: Annotated[
        str, typer.Option(help="classification, regression, segmentation, or one's own: module:NAME.")
    ] = "classification",
    cut: Cut = "",
    space: Space = "compression",
    loss: Annotated[LossName, typer.Option(help="Block loss: nsr (DONNA) or mse (DONNAv2).")] = LossName.nsr,
    candidates: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            max=LARGEST_SIZE,
            help="Candidates a block at most.",
            show_default="the space's own; quick: 6",
        ),
    ] = None,
    train_epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=LARGEST_SIZE, help="Epochs of a reference that has no weights for the data."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=LARGEST_SIZE, help="Epochs of distillation.")
    ] = None,
    steps: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SIZE, help="Stop distilling after this many batches; 0: no limit."),
    ] = 0,
    batch_size: Annotated[int, typer.Option(min=2, max=LARGEST_SIZE, help="Images a batch.")] = 64,
    slice_size: Annotated[
        int,
        typer.Option(
            min=1, max=LARGEST_SIZE, help="Candidates distilled side by side; a kill loses one slice at most."
        ),
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")] = 0,
    threads: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_THREADS, help="CPU threads of training; 0: those of the run, or all cores."
        ),
    ] = 0,
    train_on: Annotated[
        Optional[PlaceName],  # noqa: UP045
        typer.Option(
            help="Where everything is trained.",
            show_default="where the run was begun, or a GPU if there is one",
        ),
    ] = None,
    objective: Annotated[
        Optional[list[ObjectiveName]],  # noqa: UP045
        typer.Option(help="Cost to lower beside the loss; may be repeated.", show_default="latency"),
    ] = None,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="How the search measures: quick, search, report, or a .toml file.",
            show_default="the profile's, or the preset's",
        ),
    ] = None,
    batch: Batch = None,
    any_gpu: AnyGpu = False,
    allow_fallback: AllowFallback = False,
    max_measurements: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1, max=LARGEST_SIZE, help="Networks that the run may measure before it emits checkpoints."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how much would be measured, and by how many jobs.")
    ] = False,
    filter_by: Annotated[
        Optional[FilterName],  # noqa: UP045
        typer.Option(
            "--filter",
            help="Leave out candidates that another one of the block beats by far, in its cost on the device "
            "or in MACs.",
            show_default="device, or macs where no objective is measured",
        ),
    ] = None,
    filter_threshold: Annotated[
        float,
        typer.Option(
            min=-LARGEST_FIGURE,
            max=LARGEST_FIGURE,
            callback=a_number,
            help="How much cheaper another candidate is, in units of the reference's block.",
        ),
    ] = DEFAULT_THRESHOLD,
    quality: Annotated[
        QualityName,
        typer.Option(
            help="What stands for the accuracy: loss (Σ of block losses, DONNAv2), predictor (DONNA's, "
            "fitted to networks that are finetuned for it), dna (Σ of relative L1)."
        ),
    ] = QualityName.loss,
    predictor_networks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=4, max=LARGEST_SIZE, help="Networks that the predictor is fitted to at least."),
    ] = None,
    predictor_epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=LARGEST_SIZE, help="Epochs for which each of them is finetuned."),
    ] = None,
    strategy: Annotated[
        StrategyName,
        typer.Option(
            help="nsga2; exact (the exact front of the block costs, corrected by what is measured); "
            "baselines: scale (uniform depth and width), random."
        ),
    ] = StrategyName.nsga2,
    population: Annotated[
        int | None, typer.Option(min=2, max=LARGEST_SIZE, help="Networks a generation.")
    ] = None,
    generations: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=LARGEST_SIZE, help="At most; a search ends when its front no longer moves."),
    ] = None,
    pick: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="knee, speedup=X or latency-ms=X; may be repeated.", show_default="knee"),
    ] = None,
    speedup: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(
            help="Pick the best network that is X times as fast as the reference.",
        ),
    ] = None,
    latency_ms: Annotated[
        list[float] | None,
        typer.Option(help="Pick the best network that takes X ms at most."),
    ] = None,
    finetune_epochs: Annotated[
        Optional[int], typer.Option(min=1, max=LARGEST_SIZE, help="Epochs of each picked network.")  # noqa: UP045
    ] = None,
    executor: Annotated[
        ExecutorName,
        typer.Option(
            help="Where blocks are distilled and devices hang: on this machine, or on a Ray cluster."
        ),
    ] = ExecutorName.local,
    ray_address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Of the Ray cluster, HOST:PORT; this machine belongs to it.",
            show_default="the cluster that runs on this machine",
        ),
    ] = None,
    no_device_check: NoDeviceCheck = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Compress a network for a device: distil a block library, search it by measuring, finetune the picks.

    One library serves all devices: --device given again, or in a later command for the same run directory.
    A run that was stopped goes on when the same command is given again.
    """
    from hwnas.compress.budget import plan_of, require_consent
    from hwnas.compress.executor import executor_at
    from hwnas.compress.library.store import added_candidates
    from hwnas.compress.multi_device import compress_all, failure_of
    from hwnas.compress.pipeline import compress as run_compress
    from hwnas.compress.pipeline import open_job
    from hwnas.compress.run.device_check import check_devices
    from hwnas.compress.run.directory import recorded_settings
    from hwnas.compress.search.search import target_of
    from hwnas.compress.settings import MEASURED, LibrarySettings, Objective, SearchSettings
    from hwnas.compress.settings import preset as load_preset
    from hwnas.compress.training.placement import find_place
    from hwnas.devices.machine import usable_cores
    from hwnas.files import encode
    from hwnas.profiles.catalogue import load_profile

    values = load_preset(preset)
    path = out or Path("runs") / Path(model.replace(":", "-")).name
    rules = [*(pick or []), *(f"speedup={x:g}" for x in speedup or [])]
    rules += [f"latency-ms={x:g}" for x in latency_ms or []]
    known = recorded_settings(path)
    library = LibrarySettings(
        model=model,
        weights=weights,
        data=data,
        image_size=image_size,
        task=task,
        cuts=parse_cuts(cut),
        space=space,
        per_block=candidates or values["per_block"],
        loss=loss.value,
        train_epochs=train_epochs or values["train_epochs"],
        epochs=epochs or values["epochs"],
        steps=steps,
        batch_size=batch_size,
        slice_size=slice_size,
        seed=seed,
        threads=threads or (known.threads if known else usable_cores()),
        train_on=train_on.value if train_on else known.train_on if known else find_place(),
    )
    objectives: tuple[Objective, ...] = tuple(name.value for name in objective or [ObjectiveName.latency])
    measures = any(name in MEASURED for name in objectives)
    search = SearchSettings(
        device=device[0],
        objectives=objectives,
        filter=filter_by.value if filter_by else "device" if measures else "macs",
        filter_threshold=filter_threshold,
        protocol=values["protocol"],
        population=population or values["population"],
        generations=generations or values["generations"],
        finetune_epochs=finetune_epochs or values["finetune_epochs"],
        picks=tuple(rules) or ("knee",),
        batch=batch,
        any_gpu=any_gpu,
        allow_fallback=allow_fallback,
        max_measurements=max_measurements,
        quality=quality.value,
        predictor_networks=predictor_networks or values["predictor_networks"],
        predictor_epochs=predictor_epochs or values["predictor_epochs"],
        strategy=strategy.value,
    )
    protocols = [protocol or load_profile(name).protocol or values["protocol"] for name in device]
    searches = [
        replace(search, device=name, protocol=of_device)
        for name, of_device in zip(device, protocols, strict=True)
    ]
    cluster = cluster_of(executor, ray_address)
    targets = [replace(target_of(each), cluster=cluster) for each in searches]
    # What code of the user's own prints is no data.
    with redirect_stdout(sys.stderr), TerminalProgress() as progress:
        if not (dry_run or no_device_check):
            check_devices([(target.profile, cluster) for target in targets], progress)
        job = open_job(library, progress, allow_code=allow_code)
    choice_count = job.choice_count + len(added_candidates(path))
    others = len(device) - 1
    plans = [
        plan_of(each, target, choice_count, others) for each, target in zip(searches, targets, strict=True)
    ]
    if dry_run:
        if as_json:
            plain = [{"schema": "hwnas.plan/1", **encode(plan)} for plan in plans]
            print_json(plain[0] if len(plain) == 1 else plain)
        else:
            typer.echo("\n".join(plan.describe() for plan in plans))
        return
    for plan in plans:
        require_consent(plan, lambda text: sys.stdin.isatty() and typer.confirm(text, err=True))
    command = shlex.join(["hwnas", *sys.argv[1:]])
    failures: Mapping[str, HwnasError] = {}
    with (
        redirect_stdout(sys.stderr),
        executor_at(cluster) as runner,
        TerminalProgress() as progress,
    ):
        if len(device) == 1:
            result = run_compress(job, searches[0], targets[0], path, command, progress, runner)
        else:
            wanted = list(zip(searches, targets, strict=True))
            result, failures = compress_all(
                job, wanted, path, command, progress, runner, allow_code=allow_code
            )
    if as_json:
        print_json(result)
    elif len(device) == 1:
        _show(result)
    else:
        for each in result["devices"].values():
            _show(each)
        show_comparison(result)
    if failures:
        raise failure_of(failures)


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    from hwnas.compress.data.task import CLASSIFICATION, difference, quantity
    from hwnas.compress.emit.summary import Summary, compared_with, milliseconds, ratio
    from hwnas.files import decode

    front = result["front"]
    rows = front["front"]
    objectives = front["objectives"]
    ratios = ["time an image" if name == "throughput" else name for name in objectives]
    unit = "anchor" if any(front["anchor"]) else "reference"
    shown = [SHOWN[name] for name in objectives if name in SHOWN] or [SHOWN["latency"]]
    title = f"front on {front['device']}: {len(rows)} of {front['evaluated']} networks"
    table = Table(title=title, title_justify="left")
    columns = [
        *(f"{name} / {'reference' if name in COUNTED else unit}" for name in ratios),
        *(label for label, _, _ in shown),
    ]
    predicts = front["quality"] == "predictor"
    for column in ("choices", "predicted" if predicts else "loss", *columns, "MMACs", "k params"):
        table.add_column(column, justify="left" if column == "choices" else "right", no_wrap=True)
    picked = {tuple(checkpoint["choices"]): checkpoint["pick"] for checkpoint in result["checkpoints"]}
    for row in rows:
        rule = picked.get(tuple(row["choices"]))
        table.add_row(
            "-".join(str(choice) for choice in row["choices"]) + (f"  ← {rule}" if rule else ""),
            _predicted(row) if predicts else f"{row['loss']:.4f}",
            *(f"{row['cost_ratios'][name]:.3f}" for name in objectives),
            *("–" if row[key] is None else f"{row[key]:.{digits}f}" for _, key, digits in shown),
            f"{row['macs'] / 1e6:.2f}",
            f"{row['params'] / 1e3:.0f}",
            style="bold" if rule else None,
        )
    print_table(table)
    if predicts and any(row["extrapolates"] for row in rows):
        typer.echo("* beyond the networks that the predictor was fitted to")
    if any(front["anchor"]):
        anchor = "-".join(str(choice) for choice in front["anchor"])
        typer.echo(f"The device refuses the reference; the anchor is architecture {anchor}.")
    for checkpoint in result["checkpoints"]:
        path = checkpoint["path"]
        summary = decode(Summary, {key: checkpoint[key] for key in checkpoint if key != "path"}, path)
        alike = f", {summary.agreement_metric.name}"
        if summary.task == CLASSIFICATION.name:
            alike = " of answers are the reference's"
        typer.echo(
            f"\n{path}   (95 % intervals in brackets)\n"
            f"  latency   {milliseconds(summary.latency_reference_ms)} → {milliseconds(summary.latency_ms)}, "
            f"protocol {summary.protocol}\n"
            f"            {ratio(summary.latency_ratio)} of {compared_with(summary)}\n"
            f"  {summary.metric.name:9} {quantity(summary.accuracy_reference, summary.metric)} → "
            f"{quantity(summary.accuracy, summary.metric)}\n"
            f"            {difference(summary.accuracy_difference, summary.metric)} on the same images\n"
            f"  agreement {quantity(summary.agreement, summary.agreement_metric)}{alike}\n"
            f"  MMACs     {summary.macs_reference / 1e6:.2f} → {summary.macs / 1e6:.2f}\n"
            f"  k params  {summary.params_reference / 1e3:.0f} → {summary.params / 1e3:.0f}"
        )
    if result["report"]:
        typer.echo(f"\nreport: {result['report']}")


def _predicted(row: dict[str, Any]) -> str:
    """The predicted accuracy of a network of the front, with a star where it is an extrapolation."""
    return f"{row['predicted_accuracy'] * 100:.1f} %{'*' if row['extrapolates'] else ''}"
