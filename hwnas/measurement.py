"""The values that rooms exchange: what was measured, how, where, and under which conditions."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hwnas.errors import InputError
from hwnas.files import check_schema, decode, encode, sha256_of_plain
from hwnas.ranges import Count, Figure, Latency, Milliseconds, Ratio, Seconds, Setting, Size

Kind = Literal["measured", "modelled", "functional"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Option = str | Setting | Figure | bool

MEASUREMENT_SCHEMA = "hwnas.measurement/3"
MEASUREMENT_SCHEMAS = ("hwnas.measurement/1", "hwnas.measurement/2", MEASUREMENT_SCHEMA)
"""Version 1 knew no names of networks and devices, and no fresh repeats; version 2 no times of CPUs."""

LARGEST_COUNTER = 1e12
"""Of seconds and periods: more than any machine has run."""

STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """How to reach a device and how to run on it.

    Attributes:
        name: what the user types after `--device`.
        device: the entry point in the group `hwnas.devices` that drives it.
        description: one line for `hwnas devices`.
        precision: the form in which networks are run.
        power_mode: the power mode to ask for; `default` leaves it alone.
        protocol: by which is measured where the user names none; empty leaves it to the command.
        options: settings of the device class, each validated by it.
        forbidden_operators: ONNX operators that a search for this device does without; `hwnas profile`
            refuses networks that hold them.
    """

    __pydantic_config__ = STRICT
    name: str
    device: str
    description: str
    precision: Precision = "fp32"
    power_mode: str = "default"
    protocol: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    forbidden_operators: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The stable identity that a latency belongs to. Latencies of two fingerprints are never mixed."""

    __pydantic_config__ = STRICT
    chip: str
    os_build: str
    driver: str
    runtime: str
    precision: Precision
    power_mode: str

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that stand for this fingerprint."""
        return sha256_of_plain(encode(self))[:16]


@dataclass(frozen=True, kw_only=True)
class CpuTimes:
    """Counters of the CPUs that a process may use; only differences between two moments mean something.

    Attributes:
        cpus: that the process may run on.
        clock_s: when they were read, by a clock that nobody sets.
        busy_s: CPU time of whatever ran there, and what a hypervisor took.
        own_s: CPU time of the process.
        quota_cpus: how many CPUs' time the process may use, by its CPU quota; None without one.
        quota_periods, throttled_periods: of the quota, in which the process ran, and in which it was stopped.
        throttled_s: how long the quota stopped it, summed over CPUs.

    Raises:
        InputError: a counter that cannot be.
    """

    __pydantic_config__ = STRICT
    cpus: Count
    clock_s: Figure
    busy_s: Figure
    own_s: Figure
    quota_cpus: Figure | None = None
    quota_periods: Count = 0
    throttled_periods: Count = 0
    throttled_s: Figure = 0.0

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            smallest = 1 if key == "cpus" else 0
            if value is not None and not smallest <= value <= LARGEST_COUNTER:
                raise InputError(
                    f"{key} of the CPUs is {value}, it must be from {smallest} to {LARGEST_COUNTER:g}",
                    "measure the network again",
                )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What changes from run to run and is recorded beside a measurement; None is unknown.

    A sensor that answers NaN or infinity is left out.

    Attributes:
        clocks_mhz: current frequency by clock domain.
        temperatures_c: degrees Celsius by sensor.
        throttled: whether the device holds its clocks back at this moment.
        load: runnable processes on the device, averaged over its last minute.
        power_w: watts by power domain.
        limits: what holds the clocks down at this moment, harmless reasons included.
        other_processes: processes of others that use the device as well.
        governor: what chooses the clocks of the first CPU core.
        cpu: counters of the device's CPUs, where it is one.
    """

    __pydantic_config__ = STRICT
    clocks_mhz: Mapping[str, Figure] = field(default_factory=dict)
    temperatures_c: Mapping[str, Figure] = field(default_factory=dict)
    throttled: bool | None = None
    load: Ratio | None = None
    power_w: Mapping[str, Figure] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    other_processes: Count | None = None
    governor: str | None = None
    cpu: CpuTimes | None = None

    def __post_init__(self) -> None:
        for key in ("clocks_mhz", "temperatures_c", "power_w"):
            known = {name: value for name, value in getattr(self, key).items() if math.isfinite(value)}
            object.__setattr__(self, key, known)
        if self.load is not None and not math.isfinite(self.load):
            object.__setattr__(self, "load", None)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator of a network as the device ran it; `time_ms` is None where the device does not tell."""

    __pydantic_config__ = STRICT
    name: str
    operator: str
    unit: str
    time_ms: Milliseconds | None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a latency is taken. Times and counts hold for one network.

    Attributes:
        warmup_s: runs that are kept apart go on at least this long before the first repeat.
        min_runs: each repeat takes at least this many samples,
        min_s: and at least this long.
        repeats: how many repeats, interleaved with the other networks of the session.
        max_repeats: repeats go on up to here while the latest `repeats` of them are not yet `settled`.
        max_spread: (largest − smallest) / median of the repeats' medians that counts as settled.
        cooldown_s: pause before each round of repeats.
        fresh: each repeat prepares the network anew, in a process of its own where the device has such, and
            warms it up again.
        precision: repeats go on, up to `max_repeats`, until half of the 95 % interval of their median is at
            most this fraction of it; 0 goes by `max_spread`.
        max_seconds: no repeat is begun later than this after the networks of a session that take turns; 0 is
            no limit.
        slice_s: networks take turns within a repeat as well, each slice at least this long, until each has
            `min_runs` and `min_s`, or four times `min_s` where runs are slow; 0 takes repeats in one piece.
        statistic: how a repeat's samples, and then the repeats, become one figure.
    """

    __pydantic_config__ = STRICT
    name: str
    warmup_s: Seconds
    min_runs: Size
    min_s: Seconds
    repeats: Size
    max_repeats: Size
    max_spread: Ratio
    cooldown_s: Seconds = 0.0
    statistic: Literal["median"] = "median"
    fresh: bool = False
    precision: Ratio = 0.0
    max_seconds: Seconds = 0.0
    slice_s: Seconds = 0.0

    def __post_init__(self) -> None:
        least = {"warmup_s": 0, "min_runs": 1, "min_s": 0, "repeats": 1, "max_repeats": self.repeats}
        for key, smallest in {
            **least,
            "max_spread": 0,
            "cooldown_s": 0,
            "precision": 0,
            "max_seconds": 0,
            "slice_s": 0,
        }.items():
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= smallest):
                raise InputError(
                    f"protocol {self.name}: {key} is {value}, it must be at least {smallest}",
                    f"correct {key}",
                )

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that stand for this protocol."""
        plain = encode(self)
        # What came later does not count where it is not used: what was measured before keeps its protocol.
        for key in ("fresh", "precision", "max_seconds", "slice_s"):
            if not plain[key]:
                del plain[key]
        return sha256_of_plain(plain)[:16]

    def settled(self, medians_ms: Sequence[float]) -> bool:
        """Whether these repeats are enough: all are taken, or the latest `repeats` of them agree.

        Only the latest count: the spread of all of them could never shrink again after one outlier.
        """
        if len(medians_ms) < self.repeats:
            return False
        return len(medians_ms) >= self.max_repeats or spread(medians_ms[-self.repeats :]) <= self.max_spread


def spread(medians_ms: Sequence[float]) -> float:
    """(largest − smallest) / median."""
    return (max(medians_ms) - min(medians_ms)) / statistics.median(medians_ms)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its 95 % interval."""

    __pydantic_config__ = STRICT
    value: Figure
    low: Figure
    high: Figure


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Everything known about how one network ran on one device.

    Attributes:
        network_hash: content hash of the network.
        kind: `measured`, `modelled` (a simulator) or `functional` (an emulator: times mean nothing).
        repeats_ms: raw latency samples in milliseconds, one tuple a repeat.
        warmup_ms: the samples of the warm-up, kept apart.
        anchor_ms: latency of the session's anchor (the reference network) at the time of each repeat,
            interpolated between its medians before and after; empty where the session had no anchor.
        metrics: further figures, the unit in the name (`energy_mj`, `peak_memory_bytes`).
        placement: execution unit → operator type → number of nodes that ran there.
        conditions: before the first and after the last repeat.
        started_at: UTC, ISO 8601.
        layers: of the last repeat, in order; empty where the device does not tell them.
        network_name: as the user named the network; empty where a search made it.
        device_name: the device profile's.

    >>> import hwnas
    >>> from torch import nn
    >>> measurement = hwnas.profile(nn.Conv2d(3, 8, 3), "sim-npu", input_shape=(3, 32, 32))
    >>> measurement.kind, measurement.metrics["macs"]
    ('modelled', 194400.0)
    >>> measurement.latency_ms == measurement.repeats_ms[0][0]
    True
    """

    __pydantic_config__ = STRICT
    network_hash: str
    kind: Kind
    repeats_ms: tuple[tuple[Latency, ...], ...]
    warmup_ms: tuple[Milliseconds, ...]
    anchor_ms: tuple[Latency, ...]
    metrics: Mapping[str, Figure]
    placement: Mapping[str, Mapping[str, Count]]
    protocol: Protocol
    fingerprint: Fingerprint
    conditions: tuple[Conditions, Conditions]
    started_at: str
    layers: tuple[Layer, ...] = ()
    network_name: str = ""
    device_name: str = ""

    def __post_init__(self) -> None:
        samples_ms = [*itertools.chain.from_iterable(self.repeats_ms), *self.anchor_ms]
        if not self.repeats_ms or not all(self.repeats_ms):
            raise InputError("a measurement without samples", "measure the network again")
        if not all(math.isfinite(sample) and sample > 0 for sample in samples_ms):
            raise InputError(
                "a measurement with a latency that is not above zero", "measure the network again"
            )
        if not all(math.isfinite(value) for value in self.metrics.values()):
            raise InputError("a measurement with a metric that is not finite", "measure the network again")
        if self.anchor_ms and len(self.anchor_ms) != len(self.repeats_ms):
            raise InputError("a measurement whose anchor misses a repeat", "measure the network again")

    @property
    def medians_ms(self) -> tuple[float, ...]:
        """The median of each repeat.

        >>> len(measurement.medians_ms) == len(measurement.repeats_ms)
        True
        """
        return tuple(statistics.median(samples) for samples in self.repeats_ms)

    @property
    def latency_ms(self) -> float:
        """The median of the repeats' medians.

        >>> min(measurement.medians_ms) <= measurement.latency_ms <= max(measurement.medians_ms)
        True
        """
        return statistics.median(self.medians_ms)

    @property
    def throughput_per_s(self) -> float:
        """Images a second: the batch (metric `batch_size`, otherwise 1) over the latency.

        >>> measurement.throughput_per_s == 1000 / measurement.latency_ms
        True
        """
        return 1000 * self.metrics.get("batch_size", 1) / self.latency_ms

    @property
    def spread(self) -> float:
        """(largest − smallest) / median of the repeats' medians.

        >>> measurement.spread  # a simulator gives the same each time
        0.0
        """
        return spread(self.medians_ms)

    @property
    def anchor_ratios(self) -> tuple[float, ...]:
        """Latency in units of the anchor, repeat by repeat.

        A drift of the device's speed moves both, so ratios of different rounds may be compared.

        Raises:
            InputError: the session had no anchor.

        >>> from dataclasses import replace
        >>> replace(measurement, repeats_ms=((1.0,), (3.0,)), anchor_ms=(2.0, 4.0)).anchor_ratios
        (0.5, 0.75)
        """
        if not self.anchor_ms:
            raise InputError(
                "a measurement without an anchor has no ratio", "measure it in a session with one"
            )
        return tuple(own / anchor for own, anchor in zip(self.medians_ms, self.anchor_ms, strict=True))

    @property
    def anchor_ratio(self) -> float:
        """The median of `anchor_ratios`. Raises InputError as that does.

        >>> from dataclasses import replace
        >>> replace(measurement, repeats_ms=((1.0,), (3.0,)), anchor_ms=(2.0, 4.0)).anchor_ratio
        0.625
        """
        return statistics.median(self.anchor_ratios)

    def percentile_ms(self, percent: int) -> float:
        """A percentile (1 to 99) of all samples of all repeats.

        >>> from dataclasses import replace
        >>> replace(measurement, repeats_ms=((1.0, 2.0, 3.0),), anchor_ms=()).percentile_ms(75)
        2.5
        """
        import numpy as np

        return float(np.percentile([sample for samples in self.repeats_ms for sample in samples], percent))

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema's name and version, as stored.

        >>> measurement.to_json()["kind"]
        'modelled'
        """
        return {"schema": MEASUREMENT_SCHEMA, **encode(self)}

    @staticmethod
    def from_json(data: Any, source: str) -> Measurement:
        """Read `to_json` back. Raises InputError naming the offending key.

        >>> hwnas.Measurement.from_json(measurement.to_json(), "mine") == measurement
        True
        """
        known = data.get("schema") if isinstance(data, dict) else None
        schema = known if known in MEASUREMENT_SCHEMAS else MEASUREMENT_SCHEMA
        return decode(Measurement, check_schema(data, schema, source), source)


@dataclass(frozen=True, kw_only=True)
class MeasurementFailure:
    """A network that a device could not run or time: a result with its reason, not an exception.

    Attributes:
        transient: the reason lies in the device's state, not in the network; a session tries it again.
    """

    __pydantic_config__ = STRICT
    network_hash: str
    reason: str
    transient: bool = False


MeasurementResult = Measurement | MeasurementFailure
