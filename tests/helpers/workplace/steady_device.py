"""A device whose latency is the size of the graph: the same every time and in every process."""

from __future__ import annotations

import math
from collections import Counter

from hwnas.devices.base import Device, Handle
from hwnas.errors import PreparationError
from hwnas.measurement import Conditions, Fingerprint
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


ANSWERS = {"zero": 0.0, "negative": -1.0, "nan": math.nan, "infinite": math.inf}


class Liar(Steady):
    """Options.

    `lie`: `zero`, `negative`, `nan`, `infinite`, `nothing`, `slow` or `fast` (1,000 times);
    `every`: it lies at every nth question about a network, about all runs of it; `runs`: only about this
    share of them;
    `sizes`: only about networks whose size in bytes has remainder 0 by this;
    `metric`, `sensor`: what it answers as energy in mJ, and as temperature.
    """

    def open_impl(self) -> None:
        self._asked = Counter[str]()

    def conditions(self) -> Conditions:
        return Conditions(temperatures_c={"soc": float(self.profile.options.get("sensor", 40.0))})

    def prepare_impl(self, network: Network) -> Handle:
        handle = super().prepare_impl(network)
        if "metric" in self.profile.options:
            handle.metrics = {"energy_mj": float(self.profile.options["metric"])}
        return handle

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        options = self.profile.options
        honest = super().sample_impl(handle, runs, seconds)
        self._asked[handle.network_hash] += 1
        size = round(handle.state * 1e4)
        if self._asked[handle.network_hash] % int(options.get("every", 1)) or size % int(
            options.get("sizes", 1)
        ):
            return honest
        lie = str(options["lie"])
        if lie == "nothing":
            return []
        factor = {"slow": 1000.0, "fast": 0.001}.get(lie)
        lies = math.ceil(len(honest) * float(options.get("runs", 1.0)))
        wrong = [ANSWERS[lie] if factor is None else value * factor for value in honest[:lies]]
        return wrong + honest[lies:]
