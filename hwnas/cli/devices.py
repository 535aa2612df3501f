"""`hwnas devices`, `hwnas devices setup`, `hwnas devices doctor`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.device_options import RuntimeDir
from hwnas.cli.output import Json, messages, print_json, print_table
from hwnas.errors import HwnasError, InputError

if TYPE_CHECKING:
    from hwnas.measurement import DeviceProfile

SCHEMA = "hwnas.device/1"

app = typer.Typer(
    name="devices",
    epilog="Examples: `hwnas devices --json`, `hwnas devices doctor s20-gpu`",
    rich_markup_mode="markdown",
)
Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A phone's profile, such as s20-gpu.")]


@app.callback(invoke_without_command=True)
def devices(context: typer.Context, as_json: Json = False) -> None:
    """List the device profiles, those that come with hwnas and your own; set up and examine phones."""
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
    from hwnas.devices.android import setup as android
    from hwnas.devices.android.device import AndroidDevice

    def say(text: str) -> None:
        messages().print(text, markup=False, highlight=False, soft_wrap=True)

    profile = _phone(name)
    device = AndroidDevice(profile)
    if runtime_dir is not None:
        android.adopt_libraries(device.settings.provider, runtime_dir, say)
    elif not device.settings.runtime_dir:
        android.fetch_libraries(device.settings.provider, (repository or android.REPOSITORY).rstrip("/"), say)
    if not device.settings.runner:
        android.build_runner(ndk, say)
    try:
        with device:
            say(f"phone: {device.fingerprint().chip} has everything; {device.fingerprint().runtime}")
    except HwnasError as error:
        say(f"nothing was copied to a phone: {error.cause}\n  fix: {error.fix}")


@app.command(epilog="Example: `hwnas devices doctor s20-gpu`")
def doctor(name: Name, runtime_dir: RuntimeDir = None, as_json: Json = False) -> None:
    """Examine a phone step by step, from the cable to a tiny network; say what is wrong and what to do."""
    from hwnas.devices.android.doctor import Finding, examine
    from hwnas.files import encode
    from hwnas.profiles.catalogue import with_options

    profile = with_options(_phone(name), runtime_dir=None if runtime_dir is None else str(runtime_dir))
    findings: list[Finding] = []
    for finding in examine(profile):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'wrong' if finding.fix else 'good '}  {finding.step}: {finding.text}")
            if finding.fix:
                typer.echo(f"       do: {finding.fix}")
    if as_json:
        print_json([{"schema": "hwnas.finding/1", **encode(finding)} for finding in findings])
    if any(finding.fix for finding in findings):
        raise typer.Exit(2)


def _phone(name: str) -> DeviceProfile:
    from hwnas.profiles.catalogue import load_profile

    profile = load_profile(name)
    if profile.device != "android":
        raise InputError(
            f"{name} is no phone on a cable: it needs no setup", "hwnas devices lists the profiles"
        )
    return profile


def _list(as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hwnas.devices.registry import broken_devices
    from hwnas.files import encode
    from hwnas.profiles.catalogue import load_profile, open_device, profile_names

    rows: list[tuple[str, dict[str, str] | None, str, str]] = []
    for name in profile_names():
        try:
            found = load_profile(name)
            rows.append((name, encode(found), open_device(found).kind, ""))
        except HwnasError as error:
            rows.append((name, None, "", error.cause))
    for plugin, reason in broken_devices().items():
        messages().print(f"device class {plugin} cannot be used: {reason}", markup=False, style="yellow")
    if as_json:
        print_json(
            [
                {"schema": SCHEMA, "name": name, "profile": profile, "kind": kind, "error": reason}
                for name, profile, kind, reason in rows
            ]
        )
        return
    table = Table()
    for column in ("device", "latencies are", "precision", "description"):
        table.add_column(column, no_wrap=column == "device")
    for name, profile, kind, reason in rows:
        if profile is None:
            table.add_row(name, "–", "–", escape(f"cannot be used: {reason}"))
        else:
            table.add_row(name, kind, profile["precision"], escape(profile["description"]))
    print_table(table)
