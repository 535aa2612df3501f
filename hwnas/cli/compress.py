"""`hwnas compress`"""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.batch_output import show_comparison
from hwnas.cli.options import takes
from hwnas.cli.output import Json, TerminalProgress, print_json, say
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.compress.options import CompressOptions
from hwnas.errors import InputError

if TYPE_CHECKING:
    from hwnas.api import Compression
    from hwnas.compress.pipeline import DeviceResult
    from hwnas.compress.search.record import FrontRow

EXAMPLE = """Examples:

`hwnas compress efficientnet_b0 --device cpu --data digits --preset quick`

`hwnas compress tf_efficientnet_lite0 --weights FILE --data imagenette --device cpu`

`hwnas compress efficientnet_b0 --device s20-gpu --device sim-npu --device cpu --data digits`

`hwnas compress mobilenetv3_large_100 --weights FILE --data folder:photos --device cpu`

`hwnas compress runs/demo/checkpoints/cpu-knee --device cpu --data digits --speedup 1.5 --out runs/again`
"""

PLAN_EXAMPLE = "Example: `hwnas plan efficientnet_b0 --device cpu --data cifar10 --preset donna`"

SHOWN = {
    "latency": ("latency ms", "latency_ms", 3),
    "throughput": ("images/s", "throughput_per_s", 0),
    "energy": ("energy mJ", "energy_mj", 3),
}
"""What stands beside the ratios in the table of the front, by objective: label, key, digits."""

SEARCHED = ("measured", "modelled")
"""Kinds of latencies that a search takes."""

COUNTED = ("macs", "params")
"""Objectives that are known of the reference on any device."""


def _require_device(context: typer.Context, given: list[str] | None) -> list[str] | None:
    """Refuse a call without a device with those that are here, before other options are asked for."""
    if given or context.resilient_parsing:
        return given
    from hwnas.api import reach_devices

    say("no --device is given: looking for those that are here")
    names = [each.device for each in reach_devices() if each.is_here and each.kind in SEARCHED]
    model = shlex.quote(context.params.get("model") or "MODEL")
    first = names[0] if names else "NAME"
    raise InputError(
        f"no device is given; here are {', '.join(names) or 'none'}",
        f"name one or several of them: hwnas {context.info_name} {model} --device {first} …; "
        "hwnas doctor says why others are not here",
    )


@takes(CompressOptions)
def compress(
    model: Annotated[
        str, typer.Argument(help="timm or torchvision name, module:function, or a checkpoint directory.")
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(
            callback=_require_device,
            help="Device profile; see `hwnas devices`. Given again: another device, one library.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory.", show_default="runs/MODEL")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say how much would be trained and measured, and how long."),
    ] = False,
    as_json: Json = False,
    *,
    options: CompressOptions,
) -> None:
    """Compress a network for a device: distil a block library, search it by measuring, finetune the picks.

    One library serves all devices: --device given again, or in a later command for the same run directory.
    A run that was stopped goes on when the same command is given again.
    """
    from hwnas.api import plan_compression

    assert device, "its callback refuses none"

    # What code of the user's own prints is no data.
    with redirect_stdout(sys.stderr), TerminalProgress() as progress:
        compression = plan_compression(options, model, device, out, progress, dry_run=dry_run)
    if dry_run:
        _show_plan(compression, as_json)
        return
    compression.require_consent(lambda text: sys.stdin.isatty() and typer.confirm(text, err=True))
    with redirect_stdout(sys.stderr), TerminalProgress() as progress:
        result = compression.run(shlex.join(["hwnas", *sys.argv[1:]]), progress)
    if as_json:
        print_json(result.to_json())
    else:
        for each in result.devices.values():
            _show(each)
        if result.comparison is not None:
            show_comparison(result.comparison, result.report)
    result.require_all()


@takes(CompressOptions)
def plan(
    model: Annotated[str, typer.Argument(help="As for `hwnas compress`.")],
    device: Annotated[
        list[str] | None, typer.Option(callback=_require_device, help="As for `hwnas compress`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory.", show_default="runs/MODEL")] = None,
    as_json: Json = False,
    *,
    options: CompressOptions,
) -> None:
    """Say what a compression would train and measure, and how long that takes; nothing is done.

    A few steps of training tell this machine's speed. The same as `hwnas compress … --dry-run`.
    """
    from hwnas.api import plan_compression

    assert device, "its callback refuses none"
    with redirect_stdout(sys.stderr), TerminalProgress() as progress:
        compression = plan_compression(options, model, device, out, progress, dry_run=True)
    _show_plan(compression, as_json)


def _show_plan(compression: Compression, as_json: bool) -> None:
    from hwnas.files import encode

    training = compression.training()
    if as_json:
        devices = [encode(plan) for plan in compression.plans]
        print_json({"schema": "hwnas.plan/2", "training": training.to_json(), "devices": devices})
    else:
        print_text("\n".join([training.describe(), *(plan.describe() for plan in compression.plans)]))


def _show(result: DeviceResult) -> None:
    from hwnas.compress.emit.summary import compared_with, in_short, milliseconds, ratio
    from hwnas.compress.tasks.classification import CLASSIFICATION
    from hwnas.compress.tasks.task import difference, quantity

    _show_front(result)
    for path, summary in result.checkpoints:
        alike = f", {summary.agreement_metric.name}"
        if summary.task == CLASSIFICATION.name:
            alike = " of answers are the reference's"
        beside = "".join(
            f"  {each.metric.name:9} {quantity(each.reference, each.metric)} → "
            f"{quantity(each.value, each.metric)}\n"
            f"            {difference(each.difference, each.metric)} on the same images\n"
            for each in summary.further_metrics
        )
        print_text(
            f"\n{path}   (95 % intervals in brackets)\n"
            f"  latency   {milliseconds(summary.latency_reference_ms)} → {milliseconds(summary.latency_ms)}, "
            f"protocol {summary.protocol}\n"
            f"            {ratio(summary.latency_ratio)} of {compared_with(summary)}\n"
            f"  {summary.metric.name:9} {quantity(summary.accuracy_reference, summary.metric)} → "
            f"{quantity(summary.accuracy, summary.metric)}\n"
            f"            {difference(summary.accuracy_difference, summary.metric)} on the same images\n"
            f"{beside}"
            f"  agreement {quantity(summary.agreement, summary.agreement_metric)}{alike}\n"
            f"  MMACs     {summary.macs_reference / 1e6:.2f} → {summary.macs / 1e6:.2f}\n"
            f"  k params  {summary.params_reference / 1e3:.0f} → {summary.params / 1e3:.0f}"
        )
    for path, summary in result.checkpoints:
        lines = [f"  {figure} {words}" for figure, words in in_short(summary)]
        print_text("\n".join(["", f"{path / 'model.onnx'}:", *lines]))
    if result.report is not None:
        typer.echo(f"\nreport with pictures: {result.report}")


def _show_front(result: DeviceResult) -> None:
    front = result.front
    ratios = ["time an image" if name == "throughput" else name for name in front.objectives]
    unit = "anchor" if any(front.anchor) else "reference"
    shown = [SHOWN[name] for name in front.objectives if name in SHOWN] or [SHOWN["latency"]]
    columns = [
        Column(name="choices", kind="name"),
        Column(name="pick", kind="name"),
        *figures("predicted" if front.predicts else "loss"),
        *figures(*(f"{name} / {'reference' if name in COUNTED else unit}" for name in ratios)),
        *figures(*(label for label, _, _ in shown), rank=1),
        *figures("MMACs", "k params", rank=len(SHOWN) + 1),
    ]
    picked = {summary.choices: summary.pick for _, summary in result.checkpoints}
    rows = []
    for row in front.front:
        rule = picked.get(row.choices)
        known = [(getattr(row, key), digits) for _, key, digits in shown]
        rows.append(
            [
                "-".join(map(str, row.choices)),
                f"← {rule}" if rule else "",
                _loss(row),
                *(f"{row.cost_ratios[name]:.3f}" for name in front.objectives),
                *("–" if figure is None else f"{figure:.{digits}f}" for figure, digits in known),
                f"{row.macs / 1e6:.2f}",
                f"{row.params / 1e3:.0f}",
            ]
        )
    title = f"front on {front.device}: {len(front.front)} of {front.evaluated} networks"
    print_table(columns, [rows], title, is_marked=lambda row: bool(row[1]))
    if any(row.extrapolates for row in front.front):
        print_text("* beyond the networks that the predictor was fitted to")
    if any(front.anchor):
        anchor = "-".join(map(str, front.anchor))
        print_text(f"The device refuses the reference; the anchor is architecture {anchor}.")


def _loss(row: FrontRow) -> str:
    """The loss of a network, or its predicted accuracy, with a star where that is an extrapolation."""
    if row.predicted_accuracy is None:
        return f"{row.loss:.4f}"
    return f"{row.predicted_accuracy * 100:.1f} %{'*' if row.extrapolates else ''}"
