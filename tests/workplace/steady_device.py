"""A device whose latency is the size of the graph: the same every time and in every process."""

from __future__ import annotations

from hwnas.devices.base import Device, Handle
from hwnas.errors import PreparationError
from hwnas.measurement import Fingerprint
from hwnas.network import Network


class Steady(Device):
    """Options: `refuses`, the remainder by 5 of the sizes in bytes that it does not take."""

    @property
    def lock_name(self) -> str:
        return f"steady {self.profile.name}"

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            chip="steady",
            os_build="none",
            driver="none",
            runtime="none",
            precision=self.profile.precision,
            power_mode="none",
        )

    def prepare_impl(self, network: Network) -> Handle:
        size = len(network.onnx())
        if size % 5 == self.profile.options.get("refuses") and set(network.name) != {"0", "-"}:
            raise PreparationError("it does not like the size", "take another")
        return Handle(network_hash=network.hash, state=size / 1e4)

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        return [handle.state] * runs


class Modelled(Steady):
    kind = "modelled"


class Functional(Steady):
    kind = "functional"
