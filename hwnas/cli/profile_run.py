"""What one device says of the networks of `hwnas profile`, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwnas.cli.output import TerminalProgress

if TYPE_CHECKING:
    from hwnas.devices.base import BaseDevice
    from hwnas.devices.simulator import Result
    from hwnas.measurement import Layer, MeasurementResult, Protocol
    from hwnas.network import Network
    from hwnas.profiles.session import Session


@dataclass
class Found:
    """What one device said, by network hash."""

    results: dict[str, MeasurementResult] = field(default_factory=dict)
    layers: dict[str, tuple[Layer, ...]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Result]] = field(default_factory=dict)


def measure(
    device: BaseDevice,
    how: Protocol,
    networks: Sequence[Network],
    parts: Sequence[Sequence[Network]],
    *,
    operators: bool,
    explain: bool,
    quiet: bool,
) -> Found:
    """Measure the networks and their parts in one session.

    Args:
        parts: of each network, the parts that are measured alone too.
        operators, explain: ask for the time of each operator, for a simulated device's schedules.
        quiet: say nothing of the session.
    """
    from hwnas.devices.simulator.device import SimulatorDevice
    from hwnas.profiles.protocols import describe
    from hwnas.profiles.queue import watch_queue
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import open_history

    found = Found()
    with (
        open_history() as store,
        TerminalProgress() as progress,
        Session(device, how, store, recall=False, watch=watch_queue(progress)) as session,
    ):
        if not quiet:
            shown = session.fingerprint
            progress.say(f"{shown.chip}; {shown.runtime}; {describe(session.protocol)}")
        found.results = dict(session.measure([*networks, *(piece for pieces in parts for piece in pieces)]))
        for network in networks:
            if not is_measured(found.results[network.hash]):
                continue
            if operators:
                found.layers[network.hash] = _layers(session, network)
            if explain and isinstance(device, SimulatorDevice):
                found.schedules[network.hash] = device.explain(network)
    return found


def _layers(session: Session, network: Network) -> tuple[Layer, ...]:
    from hwnas.devices.base import Device

    return session.device.layers(network) if isinstance(session.device, Device) else ()


def is_measured(result: MeasurementResult) -> bool:
    from hwnas.measurement import Measurement

    return isinstance(result, Measurement)


def rows_of(
    device: str,
    found: Found,
    models: Sequence[str],
    networks: Sequence[Network],
    parts: Sequence[Sequence[Network]],
) -> list[dict[str, Any]]:
    """A row for each network, as plain data."""
    from hwnas.files import encode
    from hwnas.profiles.parts import parts_row
    from hwnas.profiles.profile_rows import row

    rows = []
    for model, network, pieces in zip(models, networks, parts, strict=True):
        result = found.results[network.hash]
        plain = row(model, device, result, found.layers.get(network.hash, ()))
        schedules = found.schedules.get(network.hash)
        if schedules is not None:
            plain["schedules"] = {name: encode(schedule) for name, schedule in schedules.items()}
        if pieces:
            names = [piece.name.removeprefix(f"{model}: ") for piece in pieces]
            of_pieces = [found.results[piece.hash] for piece in pieces]
            plain["blocks"] = parts_row(model, result, names, of_pieces)
        rows.append(plain)
    return rows
