"""`hwnas devices`"""

from __future__ import annotations

from hwnas.cli.output import Json, messages, print_json, print_table

EXAMPLE = "Example: `hwnas devices --json`"


def devices(as_json: Json = False) -> None:
    """List the device profiles: those that come with hwnas, and your own."""
    from rich.markup import escape
    from rich.table import Table

    from hwnas.devices.registry import broken_devices
    from hwnas.errors import HwnasError
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
                {"name": name, "profile": profile, "kind": kind, "error": reason}
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
