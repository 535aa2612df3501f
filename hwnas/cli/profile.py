"""`hwnas profile`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.device_options import Batch, DeviceOption, InputShape
from hwnas.cli.output import Cut, Json, messages
from hwnas.cli.parsing import a_number, parse_fraction, parse_shape
from hwnas.cli.profile_output import Format, show, show_blocks, show_layers
from hwnas.cli.profile_run import Found, is_measured, measure, rows_of
from hwnas.compress.options import parse_cuts
from hwnas.errors import HwnasError, InputError
from hwnas.ranges import LARGEST_SECONDS

if TYPE_CHECKING:
    from hwnas.devices.base import BaseDevice
    from hwnas.devices.simulator import Result
    from hwnas.measurement import Layer, MeasurementResult, Protocol
    from hwnas.network import Network

EXAMPLE = """Examples:

`hwnas profile efficientnet_b0 mobilenetv2_100 --device cpu`

`hwnas profile runs/demo/checkpoints/cpu-knee --device cpu --protocol report --json`

`hwnas profile mobilenetv2_100 --device cpu --precision 0.5% --operators --blocks --html report.html`

`hwnas profile efficientnet_b0 --device sim-npu --explain`
"""

MOST_REPEATS, LONGEST_S = 100, 60.0
"""Of a protocol that is told to reach a precision and has no limit of its own."""


def profile(
    models: Annotated[
        list[str], typer.Argument(help="timm name, .onnx file, checkpoint directory, or module:function.")
    ],
    device: Annotated[
        list[str], typer.Option(help="Device profile; see `hwnas devices`. Given again: another device.")
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="adaptive, quick, search, report, or a .toml file.",
            show_default="the profile's, or adaptive",
        ),
    ] = "",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Go on until half of the median's 95 % interval is at most this.",
            show_default="the protocol's",
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=LARGEST_SECONDS,
            callback=a_number,
            help="Begin no repeat later than this.",
            show_default="the protocol's",
        ),
    ] = None,
    batch: Batch = None,
    input_shape: InputShape = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="Show the time of each operator, where the device tells.")
    ] = False,
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Measure each part alone too, and show how wrong their sum is.")
    ] = False,
    cut: Cut = "",
    device_option: DeviceOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which layers a simulated device fuses, and why it pays.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = "table",
    html: Annotated[
        Path | None,
        typer.Option(help="Write a report with histograms and time-lines here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how long whole networks take on a device; several are interleaved in one session."""
    from hwnas.compress.library.operators import require_accepted
    from hwnas.networks.find import block_networks
    from hwnas.profiles.catalogue import load_profile, open_device, parse_options, with_options

    shape = parse_shape(input_shape) if input_shape else None
    _check_page(html)
    if cut and not blocks:
        raise InputError("--cut says where --blocks cuts, and --blocks is not given", "add --blocks")
    options = {**parse_options(device_option or ()), "batch": batch}
    profiles = [with_options(load_profile(name), **options) for name in device]
    protocols = [
        _protocol(protocol or profile.protocol or "adaptive", precision, max_seconds) for profile in profiles
    ]
    opened = [open_device(profile) for profile in profiles]
    _check_explain(opened, explain)
    networks = [_network(model, shape, has_batch=batch is not None) for model in models]
    for profile in profiles:
        require_accepted(profile, networks)
    parts = [block_networks(network, parse_cuts(cut) or None) if blocks else [] for network in networks]
    form = "json" if as_json else form
    shown, failures, measured = [], [], []
    layers: dict[str, tuple[Layer, ...]] = {}
    for each, how in zip(opened, protocols, strict=True):
        found = measure(
            each, how, networks, parts, operators=operators, explain=explain, quiet=form != "table"
        )
        rows = rows_of(each.profile.name, found, models, networks, parts)
        failures += [row["failure"]["reason"] for row in rows if "failure" in row]
        results = [
            (model, found.results[network.hash]) for model, network in zip(models, networks, strict=True)
        ]
        measured += [(model, result) for model, result in results if is_measured(result)]
        shown += rows
        layers |= found.layers
        if form == "table":
            _show_device(rows, found, models, networks)
    if html is not None:
        _write_page(html, measured, layers, [row["blocks"] for row in shown if "blocks" in row])
    if form != "table":
        show(shown, form)
    if failures:
        raise HwnasError(
            f"{len(failures)} of {len(shown)} networks could not be measured: {failures[0]}",
            "see the reason; the measured ones are above",
        )


def _network(model: str, shape: tuple[int, ...] | None, *, has_batch: bool) -> Network:
    from hwnas.networks.find import find_network

    return find_network(model, shape, has_batch=has_batch).named(model)


def _protocol(name: str, precision: str | None, max_seconds: float | None) -> Protocol:
    from hwnas.profiles.protocols import load_protocol

    how = load_protocol(name)
    if precision is not None:
        wanted = parse_fraction(precision, "--precision")
        how = replace(how, precision=wanted, max_repeats=max(how.max_repeats, MOST_REPEATS))
        how = how if how.max_seconds or max_seconds else replace(how, max_seconds=LONGEST_S)
    if max_seconds is not None:
        how = replace(how, max_seconds=max_seconds)
    return how


def _check_page(html: Path | None) -> None:
    """Refuse before anything is measured what would fail after it."""
    from hwnas import page

    if html is None:
        return
    if not page.is_available():
        raise InputError("--html needs the package plotly, which is not installed", page.INSTALL)
    if not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent}", f"mkdir -p {html.parent}")


def _check_explain(opened: Sequence[BaseDevice], explain: bool) -> None:
    from hwnas.devices.simulator.device import SimulatorDevice

    for device in opened if explain else ():
        if not isinstance(device, SimulatorDevice):
            name = device.profile.name
            raise InputError(f"--explain needs a simulated device, {name} is none", "take --device sim-npu")


def _write_page(
    html: Path,
    measured: Sequence[tuple[str, MeasurementResult]],
    layers: dict[str, tuple[Layer, ...]],
    parts: Sequence[dict[str, Any]],
) -> None:
    from hwnas.measurement import Measurement
    from hwnas.profiles.profile_page import write_report

    known = [(model, result) for model, result in measured if isinstance(result, Measurement)]
    write_report(html, known, dict(layers), parts)
    messages().print(str(html), markup=False, highlight=False)


def _show_device(
    rows: list[dict[str, Any]], found: Found, models: list[str], networks: list[Network]
) -> None:
    from hwnas.measurement import Measurement
    from hwnas.profiles.judgement import judge, sentences
    from hwnas.profiles.statistics import overhead_of

    show(rows, "table")
    results = [found.results[network.hash] for network in networks]
    judged = [judge(result) for result in results if isinstance(result, Measurement)]
    typer.echo("".join(f"{text}\n" for text in sentences(judged)), nl=False)
    overhead = overhead_of(results)
    if overhead:
        messages().print(overhead, highlight=False)
    for model, network, plain in zip(models, networks, rows, strict=True):
        result = found.results[network.hash]
        layers = found.layers.get(network.hash) or (result.layers if isinstance(result, Measurement) else ())
        if layers:
            show_layers(model, layers)
        if "blocks" in plain:
            show_blocks(plain["blocks"])
    for named in found.schedules.values():
        _show_schedules(named)


def _show_schedules(schedules: dict[str, Result]) -> None:
    from hwnas.devices.simulator import explain

    typer.echo("\n" + explain(schedules["chosen"], {k: v for k, v in schedules.items() if k != "chosen"}))
