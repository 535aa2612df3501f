"""Networks of one session, measured and kept in the history."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.errors import HwnasError
from hwnas.measurement import DeviceProfile, Measurement
from hwnas.network import Network
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.protocols import load_protocol
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session
from hwnas.profiles.store import open_history
from hwnas.progress import Progress


def measure_networks(
    networks: Sequence[Network], profile: DeviceProfile, protocol: str, progress: Progress
) -> list[Measurement]:
    """Measure networks in one session.

    Args:
        protocol: its name; empty for the profile's, or adaptive.

    Raises:
        HwnasError: the device cannot be used, or one of them could not be measured.
    """
    how = load_protocol(protocol or profile.protocol or "adaptive")
    with (
        open_history() as store,
        Session(open_device(profile), how, store, recall=False, watch=watch_queue(progress)) as session,
    ):
        results = dict(session.measure(networks))
    found = []
    for network in networks:
        result = results[network.hash]
        if not isinstance(result, Measurement):
            raise HwnasError(f"{network.name} could not be measured: {result.reason}", "see the reason")
        found.append(result)
    return found
