"""`hwnas devices`, `hwnas devices setup`, `hwnas devices doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Json, print_json, say
from hwnas.cli.tables import Column, print_table, print_text

SCHEMA = "hwnas.device/1"

app = typer.Typer(
    name="devices",
    epilog="Examples: `hwnas devices --json`, `hwnas devices doctor s20-gpu`",
    rich_markup_mode="markdown",
)
RuntimeDir = Annotated[
    Path | None,
    typer.Option(help="Folder with ONNX Runtime's libraries for a phone.", show_default="as set up"),
]
Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A phone's profile, such as s20-gpu.")]


@app.callback(invoke_without_command=True)
def devices(context: typer.Context, as_json: Json = False) -> None:
    """List the device profiles, those that come with hwnas and your own; set up phones, examine any."""
    if context.invoked_subcommand is None:
        _list(as_json)


@app.command(epilog="Example: `hwnas devices setup s20-gpu --ndk ~/android-ndk-r27`")
def setup(
    name: Name,
    runtime_dir: RuntimeDir = None,
    ndk: Annotated[str, typer.Option(help="Android's NDK.", show_default="$ANDROID_NDK_HOME")] = "",
    repository: Annotated[
        str, typer.Option(help="Maven repository or mirror.", show_default="Maven Central")
    ] = "",
) -> None:
    """Bring what a phone needs: download libraries, build the runner, copy both to a phone that is there."""
    from hwnas import api

    api.set_up_phone(name, say, runtime_dir=runtime_dir, ndk=ndk, repository=repository)


@app.command(epilog="Examples: `hwnas devices doctor openvino`, `hwnas devices doctor s20-gpu`")
def doctor(
    name: Annotated[str, typer.Argument(metavar="PROFILE", help="A device profile, such as openvino.")],
    runtime_dir: RuntimeDir = None,
    as_json: Json = False,
) -> None:
    """Examine a device step by step, down to a tiny network; say what is wrong and what to do."""
    from hwnas import api
    from hwnas.files import encode

    findings = []
    for finding in api.examine_device(name, runtime_dir=runtime_dir):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'wrong' if finding.fix else 'good '}  {finding.step}: {finding.text}")
            if finding.fix:
                typer.echo(f"       do: {finding.fix}")
    if as_json:
        print_json([{"schema": "hwnas.finding/1", **encode(finding)} for finding in findings])
    if any(finding.fix for finding in findings):
        raise typer.Exit(2)


def _list(as_json: bool) -> None:
    from hwnas import api
    from hwnas.files import encode

    for plugin, reason in api.broken_device_classes().items():
        say(f"device class {plugin} cannot be used: {reason}")
    known = api.known_devices()
    if as_json:
        print_json([{"schema": SCHEMA, **encode(device)} for device in known])
        return
    rows = [
        [device.name, "–", "–", f"cannot be used: {device.error}"]
        if device.profile is None
        else [device.name, device.kind, device.profile.precision, device.profile.description]
        for device in known
    ]
    columns = [
        Column(name="device", kind="name"),
        Column(name="latencies are", kind="name", rank=1),
        Column(name="precision", kind="name", rank=2),
        Column(name="description"),
    ]
    print_table(columns, [rows])
    print_text("\nhwnas doctor says which of them can be used here.")
