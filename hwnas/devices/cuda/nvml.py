"""What NVIDIA's management library tells about a GPU; what it does not tell is unknown, not an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from hwnas.measurement import Conditions

T = TypeVar("T")

# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
LIMITS = {
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
# A power cap is how a GPU under load runs; these are what it does not keep up.
THROTTLING = 0x8 | 0x20 | 0x40 | 0x80

_log = logging.getLogger(__name__)


class Nvml:
    """One GPU by its UUID; without the package `nvidia-ml-py`, or unknown to NVML, it tells nothing."""

    def __init__(self, uuid: str) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        self._violation_ns: int | None = None
        try:
            import pynvml
        except ImportError:
            _log.warning("clocks and temperatures of the GPU are unknown; fix: pip install 'hwnas[cuda]'")
            return
        try:
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError as error:
            _log.warning("clocks and temperatures of the GPU are unknown: NVML says %s", error)
        self._violation_ns = self._thermal_violation_ns()

    def close(self) -> None:
        """Give the library back."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = self._handle = None

    def driver(self) -> str:
        """The driver's version."""
        version = self._ask(lambda nvml, _: nvml.nvmlSystemGetDriverVersion())
        return (
            f"NVIDIA {version.decode() if isinstance(version, bytes) else version}" if version else "unknown"
        )

    def power_limit(self) -> str | None:
        """The power limit in force, as a power mode: `300 W`."""
        milliwatts = self._ask(lambda nvml, handle: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        return None if milliwatts is None else f"{milliwatts / 1000:g} W"

    def other_processes(self) -> int | None:
        """Processes that compute on the GPU beside this one, which must be using it already.

        Inside a container their ids are not ours, so only their number means something; where NVML does not
        even list this process it hides the others as well.
        """
        found = self._ask(lambda nvml, handle: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        return len(found) - 1 if found else None

    def conditions(self) -> Conditions:
        """Clocks, temperature, power and limits now; `throttled` is whether it was since the last look."""
        clocks = {"sm": self._clock_mhz("NVML_CLOCK_SM"), "memory": self._clock_mhz("NVML_CLOCK_MEM")}
        celsius = self._ask(
            lambda nvml, handle: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        )
        milliwatts = self._ask(lambda nvml, handle: nvml.nvmlDeviceGetPowerUsage(handle))
        reasons = self._ask(lambda nvml, handle: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        last, self._violation_ns = self._violation_ns, self._thermal_violation_ns()
        throttled = None if reasons is None else bool(reasons & THROTTLING)
        if last is not None and self._violation_ns is not None:
            throttled = bool(throttled) or self._violation_ns > last
        return Conditions(
            clocks_mhz={name: mhz for name, mhz in clocks.items() if mhz is not None},
            temperatures_c={} if celsius is None else {"gpu": float(celsius)},
            throttled=throttled,
            power_w={} if milliwatts is None else {"gpu": milliwatts / 1000},
            limits=tuple(name for bit, name in LIMITS.items() if (reasons or 0) & bit),
            other_processes=self.other_processes(),
        )

    def _clock_mhz(self, domain: str) -> float | None:
        mhz = self._ask(lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, getattr(nvml, domain)))
        return None if mhz is None else float(mhz)

    def _thermal_violation_ns(self) -> int | None:
        found = self._ask(
            lambda nvml, handle: nvml.nvmlDeviceGetViolationStatus(handle, nvml.NVML_PERF_POLICY_THERMAL)
        )
        return None if found is None else int(found.violationTime)

    def _ask(self, question: Callable[[Any, Any], T]) -> T | None:
        if self._handle is None:
            return None
        try:
            return question(self._nvml, self._handle)
        except self._nvml.NVMLError:  # not supported by this GPU, or not permitted
            return None
