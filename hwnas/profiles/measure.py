"""Networks of one session, measured and kept in the history."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.devices.base import BaseDevice, Device
from hwnas.measurement import Layer, Measurement, Protocol
from hwnas.network import Network
from hwnas.profiles.live import live_latencies
from hwnas.profiles.options import ProfileOptions
from hwnas.profiles.parts import times_of_parts
from hwnas.profiles.profile_rows import Profiled
from hwnas.profiles.protocols import describe
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session
from hwnas.profiles.store import open_history
from hwnas.progress import Progress


def profile_networks(
    device: BaseDevice,
    how: Protocol,
    networks: Sequence[Network],
    options: ProfileOptions,
    progress: Progress,
    parts: Sequence[Sequence[Network]] = (),
) -> list[Profiled]:
    """Measure networks in one session.

    Args:
        device: not yet opened.
        networks: by the names under which they are told.
        options: what is asked beside the latencies: times of operators, schedules of a simulated device.
        parts: of each network, those that are measured alone too.

    Raises:
        DeviceError: the device cannot be used.
    """
    pieces = parts or [()] * len(networks)
    found = []
    with (
        open_history() as store,
        Session(
            device,
            how,
            store,
            recall=False,
            watch=watch_queue(progress),
            on_round=live_latencies(progress),
        ) as session,
    ):
        shown = session.fingerprint
        progress.say(f"{shown.chip}; {shown.runtime}; {describe(session.protocol)}")
        results = dict(session.measure([*networks, *(piece for of_one in pieces for piece in of_one)]))
        progress.live("")
        for network, of_one in zip(networks, pieces, strict=True):
            result = results[network.hash]
            is_measured = isinstance(result, Measurement)
            named = {piece.name.removeprefix(f"{network.name}: "): results[piece.hash] for piece in of_one}
            schedules = device.explain(network) if options.explain and is_measured else {}
            found.append(
                Profiled(
                    model=network.name,
                    device=device.profile.name,
                    result=result,
                    layers=_layers(session, network) if options.operators and is_measured else (),
                    schedules=schedules,
                    parts=times_of_parts(network.name, result, named) if of_one else None,
                )
            )
    return found


def _layers(session: Session, network: Network) -> tuple[Layer, ...]:
    return session.device.layers(network) if isinstance(session.device, Device) else ()
