"""`hwnas profile`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.device_options import (
    AllowFallback,
    AllowUnknown,
    AnyGpu,
    Batch,
    Mode,
    RuntimeDir,
    Stacks,
    Tile,
)
from hwnas.cli.output import Json, TerminalProgress, messages, print_json, print_table
from hwnas.errors import HwnasError, InputError

if TYPE_CHECKING:
    from hwnas.devices.simulator import Result
    from hwnas.measurement import MeasurementResult

EXAMPLE = """Examples:

`hwnas profile efficientnet_b0 mobilenetv2_100 --device cpu`

`hwnas profile runs/demo/checkpoints/cpu-knee --device cpu --protocol report --json`

`hwnas profile efficientnet_b0 --device sim-npu --explain`
"""


def profile(
    models: Annotated[
        list[str], typer.Argument(help="timm name, .onnx file, checkpoint directory, or module:function.")
    ],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    protocol: Annotated[
        str,
        typer.Option(help="quick, search, report, or a .toml file.", show_default="the profile's, or search"),
    ] = "",
    batch: Batch = None,
    any_gpu: AnyGpu = False,
    allow_fallback: AllowFallback = False,
    runtime_dir: RuntimeDir = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which layers a simulated device fuses, and why it pays.")
    ] = False,
    mode: Mode = None,
    tile: Tile = None,
    stacks: Stacks = None,
    allow_unknown: AllowUnknown = False,
    as_json: Json = False,
) -> None:
    """Measure how long whole networks take on a device; several are interleaved in one session."""
    from hwnas.compress.models import find_network
    from hwnas.compress.progress import watch_queue
    from hwnas.devices.simulated import SimulatorDevice
    from hwnas.files import hwnas_home
    from hwnas.profiles.catalogue import load_profile, open_device, with_options
    from hwnas.profiles.protocols import describe, load_protocol
    from hwnas.profiles.session import Session
    from hwnas.profiles.statistics import overhead_of
    from hwnas.profiles.store import MeasurementStore

    changed = with_options(
        load_profile(device),
        batch=batch,
        any_gpu=any_gpu or None,
        allow_fallback=allow_fallback or None,
        runtime_dir=None if runtime_dir is None else str(runtime_dir),
        mode=mode,
        tile=tile,
        stacks=stacks,
        allow_unknown=allow_unknown or None,
    )
    opened = open_device(changed)
    if explain and not isinstance(opened, SimulatorDevice):
        raise InputError(f"--explain needs a simulated device, {device} is none", "take --device sim-npu")
    how = load_protocol(protocol or changed.protocol or "search")
    networks = [find_network(model) for model in models]
    with (
        MeasurementStore(hwnas_home() / "history.db") as store,
        TerminalProgress() as progress,
        Session(opened, how, store, recall=False, watch=watch_queue(progress)) as session,
    ):
        if not as_json:
            progress.say(f"{session.fingerprint.chip}; {describe(session.protocol)}")
        results = dict(session.measure(networks))
        schedules: dict[str, dict[str, Result]] = {}
        if explain and isinstance(opened, SimulatorDevice):
            schedules = {
                network.hash: opened.explain(network)
                for network in networks
                if _measured(results[network.hash])
            }
    rows = [(model, results[network.hash]) for model, network in zip(models, networks, strict=True)]
    if as_json:
        print_json([_plain(model, result, schedules.get(result.network_hash)) for model, result in rows])
    else:
        _show(rows)
        overhead = overhead_of([result for _, result in rows])
        if overhead:
            messages().print(overhead, highlight=False)
        for named in schedules.values():
            _show_schedules(named)
    failed = [(model, result) for model, result in rows if not _measured(result)]
    if failed:
        raise HwnasError(
            f"{len(failed)} of {len(rows)} networks could not be measured: {failed[0][1].reason}",  # type: ignore[union-attr]
            "see the reason; the measured ones are above",
        )


def _measured(result: MeasurementResult) -> bool:
    from hwnas.measurement import Measurement

    return isinstance(result, Measurement)


def _show_schedules(schedules: dict[str, Result]) -> None:
    from hwnas.devices.simulator import explain

    typer.echo("\n" + explain(schedules["chosen"], {k: v for k, v in schedules.items() if k != "chosen"}))


def _plain(model: str, result: MeasurementResult, schedules: dict[str, Result] | None) -> dict[str, Any]:
    from hwnas.files import encode
    from hwnas.measurement import Measurement
    from hwnas.profiles.statistics import median_interval

    if not isinstance(result, Measurement):
        return {"model": model, "failure": encode(result)}
    summary = {
        "latency_ms": encode(median_interval(result.medians_ms)),
        "p90_ms": result.percentile_ms(90),
        "p99_ms": result.percentile_ms(99),
        "spread": result.spread,
        "throughput_per_s": result.throughput_per_s,
    }
    row = {"model": model, "summary": summary, "measurement": result.to_json()}
    if schedules is not None:
        row["schedules"] = {name: encode(schedule) for name, schedule in schedules.items()}
    return row


def _show(rows: list[tuple[str, MeasurementResult]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hwnas.measurement import Measurement
    from hwnas.profiles.statistics import median_interval

    table = Table()
    table.add_column("network", no_wrap=True)
    for column in (
        "median ms",
        "95 % interval",
        "p90 ms",
        "p99 ms",
        "spread of repeats",
        "runs",
        "images/s",
        "kind",
        "nodes",
    ):
        table.add_column(column, justify="right")
    for model, result in rows:
        if isinstance(result, Measurement):
            runs = sum(len(samples) for samples in result.repeats_ms)
            nodes = [f"{sum(ops.values())} on {unit}" for unit, ops in result.placement.items()]
            interval = median_interval(result.medians_ms)
            table.add_row(
                escape(model),
                f"{interval.value:.3f}",
                f"{interval.low:.3f} … {interval.high:.3f}",
                f"{result.percentile_ms(90):.3f}",
                f"{result.percentile_ms(99):.3f}",
                f"{result.spread:.1%}",
                f"{len(result.repeats_ms)} × {runs // len(result.repeats_ms)}",
                f"{result.throughput_per_s:.1f}",
                result.kind,
                ", ".join(nodes) or "–",
            )
        else:
            table.add_row(escape(model), "failed")
    print_table(table)
