"""`hwnas profile`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.device_options import AnyGpu, Batch
from hwnas.cli.output import Json, messages, print_json, print_table
from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.measurement import MeasurementResult

EXAMPLE = """Examples:

`hwnas profile efficientnet_b0 mobilenetv2_100 --device cpu`

`hwnas profile runs/demo/checkpoints/cpu-knee --device cpu --protocol report --json`
"""


def profile(
    models: Annotated[
        list[str], typer.Argument(help="timm name, .onnx file, checkpoint directory, or module:function.")
    ],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    protocol: Annotated[str, typer.Option(help="quick, search, report, or a .toml file.")] = "search",
    batch: Batch = None,
    any_gpu: AnyGpu = False,
    as_json: Json = False,
) -> None:
    """Measure how long whole networks take on a device; several are interleaved in one session."""
    from hwnas.compress.models import find_network
    from hwnas.files import hwnas_home
    from hwnas.profiles.catalogue import load_profile, open_device, with_options
    from hwnas.profiles.protocols import describe, load_protocol
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import MeasurementStore

    opened = open_device(with_options(load_profile(device), batch=batch, any_gpu=any_gpu or None))
    how = load_protocol(protocol)
    networks = [find_network(model) for model in models]
    with (
        MeasurementStore(hwnas_home() / "history.db") as store,
        Session(opened, how, store, recall=False) as session,
    ):
        if not as_json:
            messages().print(f"{session.fingerprint.chip}; {describe(session.protocol)}", highlight=False)
        results = dict(session.measure(networks))
    rows = [(model, results[network.hash]) for model, network in zip(models, networks, strict=True)]
    if as_json:
        print_json([_plain(model, result) for model, result in rows])
    else:
        _show(rows)
    failed = [(model, result) for model, result in rows if not _measured(result)]
    if failed:
        raise HwnasError(
            f"{len(failed)} of {len(rows)} networks could not be measured: {failed[0][1].reason}",  # type: ignore[union-attr]
            "see the reason; the measured ones are above",
        )


def _measured(result: MeasurementResult) -> bool:
    from hwnas.measurement import Measurement

    return isinstance(result, Measurement)


def _plain(model: str, result: MeasurementResult) -> dict[str, Any]:
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
    return {"model": model, "summary": summary, "measurement": result.to_json()}


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
