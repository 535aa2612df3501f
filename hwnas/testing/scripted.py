"""A device that does as it is told, faults included: for testing whatever uses devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from hwnas.devices.base import Device, Handle
from hwnas.errors import PreparationError
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint, Kind
from hwnas.network import Network

PROFILE = DeviceProfile(name="scripted", device="scripted", description="answers by a script")
DEFAULT_MS = 10.0


def scripted_fingerprint(profile: DeviceProfile) -> Fingerprint:
    """The identity of everything scripted; precision and power mode are the profile's."""
    return Fingerprint(
        chip="scripted",
        os_build="none",
        driver="none",
        runtime="script",
        precision=profile.precision,
        power_mode=profile.power_mode,
    )


class ScriptedDevice(Device):
    """Answers by a script instead of running anything; time does not pass while it samples.

    Args:
        profile: its `precision` and `power_mode` go into the fingerprint, as a real device's do.
        latencies_ms: network name → the latency of each successive call of `sample` (the warm-up is one),
            the last one for all further calls; None answers with no samples at all. NaN, zero and negative
            latencies are answered as they are. A network that is not named takes 10 ms.
        refused: names of networks that cannot be prepared.
        raised: number of a call of `sample`, from 1 → what it raises, such as DeviceLostError.
        throttled: so many calls of `conditions`, after the first one, report throttling.
        drift: every call of `sample` is slower than the one before by this fraction of the scripted latency.
        kind: what its latencies are taken for.

    Attributes:
        sampled: network names in the order of the calls of `sample`.
        held: names of the networks that are prepared and not released.
    """

    def __init__(
        self,
        profile: DeviceProfile = PROFILE,
        *,
        latencies_ms: Mapping[str, Sequence[float | None]] | None = None,
        refused: Collection[str] = (),
        raised: Mapping[int, BaseException] | None = None,
        throttled: int = 0,
        drift: float = 0.0,
        kind: Kind = "measured",
    ) -> None:
        super().__init__(profile)
        self.kind = kind
        self.sampled: list[str] = []
        self.held: list[str] = []
        self._latencies_ms = latencies_ms or {}
        self._refused = refused
        self._raised = raised or {}
        self._throttled = throttled
        self._drift = drift
        self._calls: Counter[str] = Counter()
        self._looks = 0

    @property
    def lock_name(self) -> str:
        return f"scripted {self.profile.name}"

    def fingerprint(self) -> Fingerprint:
        return scripted_fingerprint(self.profile)

    def conditions(self) -> Conditions:
        self._looks += 1
        return Conditions(throttled=1 < self._looks <= 1 + self._throttled, load=0.0)

    def prepare_impl(self, network: Network) -> Handle:
        if network.name in self._refused:
            raise PreparationError(f"the script refuses {network.name}", "change the script")
        self.held.append(network.name)
        return Handle(network_hash=network.hash, state=network.name, placement={"script": {"Conv": 1}})

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        name = handle.state
        self.sampled.append(name)
        if len(self.sampled) in self._raised:
            raise self._raised[len(self.sampled)]
        script = self._latencies_ms.get(name, [DEFAULT_MS])
        scripted_ms = script[min(self._calls[name], len(script) - 1)]
        self._calls[name] += 1
        if scripted_ms is None:
            return []
        latency_ms = scripted_ms * (1 + self._drift * len(self.sampled))
        samples_ms = [latency_ms] * runs
        while 0 < sum(samples_ms) < seconds * 1000:
            samples_ms.append(latency_ms)
        return samples_ms

    def release_impl(self, handle: Handle) -> None:
        self.held.remove(handle.state)
