"""`hwnas compress`"""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hwnas.cli.device_options import AllowFallback, AnyGpu, Batch
from hwnas.cli.output import AllowCode, Cut, Json, TerminalProgress, parse_cuts, print_json, print_table

EXAMPLE = """Examples:

`hwnas compress efficientnet_b0 --device cpu --data digits --preset quick`

`hwnas compress runs/demo/checkpoints/cpu-knee --device cpu --data digits --speedup 1.5 --out runs/again`
"""


SHOWN = {
    "latency": ("latency ms", "latency_ms", 3),
    "throughput": ("images/s", "throughput_per_s", 0),
    "energy": ("energy mJ", "energy_mj", 3),
}
"""What stands beside the cost in the table of the front, by objective: label, key, digits."""


class LossName(StrEnum):
    """Block losses."""

    nsr = "nsr"
    mse = "mse"


class ObjectiveName(StrEnum):
    """Costs that a search can lower."""

    latency = "latency"
    throughput = "throughput"
    energy = "energy"
    macs = "macs"
    params = "params"


def compress(
    model: Annotated[str, typer.Argument(help="timm name, module:function, or a checkpoint directory.")],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    data: Annotated[str, typer.Option(help="Data set to distil with: digits.")],
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
    cut: Cut = "",
    loss: Annotated[LossName, typer.Option(help="Block loss: nsr (DONNA) or mse (DONNAv2).")] = LossName.nsr,
    candidates: Annotated[Optional[int], typer.Option(min=1, help="Candidates a block.")] = None,  # noqa: UP045
    train_epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Epochs of a reference that has no weights for the data."),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(min=1, help="Epochs of distillation.")] = None,  # noqa: UP045
    steps: Annotated[
        int, typer.Option(min=0, help="Stop distilling after this many batches; 0: no limit.")
    ] = 0,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a batch.")] = 64,
    slice_size: Annotated[
        int, typer.Option(min=1, help="Candidates distilled side by side; a kill loses one slice at most.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")] = 0,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of training; 0: those of the run, or all cores.")
    ] = 0,
    objective: Annotated[
        ObjectiveName, typer.Option(help="Cost to lower beside the loss.")
    ] = ObjectiveName.latency,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="How the search measures: quick, search, report, or a .toml file."),
    ] = None,
    batch: Batch = None,
    any_gpu: AnyGpu = False,
    allow_fallback: AllowFallback = False,
    max_measurements: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Networks that the run may measure before it emits checkpoints."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how much would be measured, and by how many jobs.")
    ] = False,
    population: Annotated[Optional[int], typer.Option(min=2, help="Of NSGA-II.")] = None,  # noqa: UP045
    generations: Annotated[Optional[int], typer.Option(min=1, help="Of NSGA-II.")] = None,  # noqa: UP045
    pick: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="knee, speedup=X or latency-ms=X; may be repeated.", show_default="knee"),
    ] = None,
    speedup: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="Pick the best network that is X times as fast as the reference."),
    ] = None,
    latency_ms: Annotated[
        Optional[list[float]], typer.Option(help="Pick the best network that takes X ms at most.")  # noqa: UP045
    ] = None,
    finetune_epochs: Annotated[
        Optional[int], typer.Option(min=1, help="Epochs of each picked network.")  # noqa: UP045
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Compress a network for a device: distil a block library, search it by measuring, finetune the picks.

    A run that was stopped goes on when the same command is given again.
    """
    from hwnas.compress.pipeline import compress as run_compress
    from hwnas.compress.plan import plan_of, require_consent
    from hwnas.compress.run import recorded_threads
    from hwnas.compress.settings import LibrarySettings, SearchSettings
    from hwnas.compress.settings import preset as load_preset
    from hwnas.devices.machine import usable_cores
    from hwnas.files import encode

    values = load_preset(preset)
    path = out or Path("runs") / Path(model.replace(":", "-")).name
    rules = [*(pick or []), *(f"speedup={x:g}" for x in speedup or [])]
    rules += [f"latency-ms={x:g}" for x in latency_ms or []]
    library = LibrarySettings(
        model=model,
        weights=weights,
        data=data,
        cuts=parse_cuts(cut),
        space="compression",
        per_block=candidates or values["per_block"],
        loss=loss.value,
        train_epochs=train_epochs or values["train_epochs"],
        epochs=epochs or values["epochs"],
        steps=steps,
        batch_size=batch_size,
        slice_size=slice_size,
        seed=seed,
        threads=threads or recorded_threads(path) or usable_cores(),
    )
    search = SearchSettings(
        device=device,
        objective=objective.value,
        protocol=protocol or values["protocol"],
        population=population or values["population"],
        generations=generations or values["generations"],
        finetune_epochs=finetune_epochs or values["finetune_epochs"],
        picks=tuple(rules) or ("knee",),
        batch=batch,
        any_gpu=any_gpu,
        allow_fallback=allow_fallback,
        max_measurements=max_measurements,
    )
    plan = plan_of(search)
    if dry_run:
        print_json(encode(plan)) if as_json else typer.echo(plan.describe())
        return
    require_consent(plan, lambda text: sys.stdin.isatty() and typer.confirm(text, err=True))
    command = shlex.join(["hwnas", *sys.argv[1:]])
    with TerminalProgress() as progress:
        result = run_compress(library, search, path, command, progress, allow_code=allow_code)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    from hwnas.compress.checkpoint import milliseconds, percent, points, ratio
    from hwnas.measurement import Interval

    front = result["front"]
    rows = front["front"]
    cost = "time an image" if front["objective"] == "throughput" else front["objective"]
    label, key, digits = SHOWN.get(front["objective"], SHOWN["latency"])
    title = f"front on {front['device']}: {len(rows)} of {front['evaluated']} networks"
    table = Table(title=title, title_justify="left")
    for column in ("choices", "loss", f"{cost} / reference", label, "MMACs", "k params"):
        table.add_column(column, justify="left" if column == "choices" else "right", no_wrap=True)
    picked = {tuple(checkpoint["choices"]): checkpoint["pick"] for checkpoint in result["checkpoints"]}
    for row in rows:
        rule = picked.get(tuple(row["choices"]))
        table.add_row(
            "-".join(str(choice) for choice in row["choices"]) + (f"  ← {rule}" if rule else ""),
            f"{row['loss']:.4f}",
            f"{row['cost_ratio']:.3f}",
            "–" if row[key] is None else f"{row[key]:.{digits}f}",
            f"{row['macs'] / 1e6:.2f}",
            f"{row['params'] / 1e3:.0f}",
            style="bold" if rule else None,
        )
    print_table(table)
    for checkpoint in result["checkpoints"]:
        summary = {
            key: Interval(**value) if isinstance(value, dict) else value for key, value in checkpoint.items()
        }
        typer.echo(
            f"\n{checkpoint['path']}   (95 % intervals in brackets)\n"
            f"  latency   {milliseconds(summary['latency_reference_ms'])} → "
            f"{milliseconds(summary['latency_ms'])}, protocol {summary['protocol']}\n"
            f"            {ratio(summary['latency_ratio'])} of the reference\n"
            f"  accuracy  {percent(summary['accuracy_reference'])} → {percent(summary['accuracy'])}\n"
            f"            {points(summary['accuracy_difference'])} on the same images\n"
            f"  MMACs     {checkpoint['macs_reference'] / 1e6:.2f} → {checkpoint['macs'] / 1e6:.2f}\n"
            f"  k params  {checkpoint['params_reference'] / 1e3:.0f} → {checkpoint['params'] / 1e3:.0f}"
        )
