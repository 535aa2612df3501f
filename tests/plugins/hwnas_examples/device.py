"""A device whose clock is the number of bytes of a network."""

from __future__ import annotations

from hwnas.devices.base import Device, Handle
from hwnas.errors import PreparationError
from hwnas.measurement import Fingerprint
from hwnas.network import Network


class Clockwork(Device):
    """Option `bytes_per_ms`: how fast it is."""

    kind = "modelled"

    @property
    def lock_name(self) -> None:
        return None  # nothing that two processes could disturb

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            chip="clockwork",
            os_build="none",
            driver="none",
            runtime="none",
            precision=self.profile.precision,
            power_mode="none",
        )

    def prepare_impl(self, network: Network) -> Handle:
        if network.name == "broken":
            raise PreparationError("it is broken", "take another")
        speed = float(self.profile.options.get("bytes_per_ms", 10_000))
        return Handle(network_hash=network.hash, state=len(network.onnx()) / speed)

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        return [float(handle.state)] * runs
