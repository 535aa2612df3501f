"""The baseline of `hwnas check`: a small readable file that is committed beside the code."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwnas.errors import InputError
from hwnas.files import check_schema, check_signature, decode, encode, read_json, signed, write_json
from hwnas.measurement import STRICT, Fingerprint, Option
from hwnas.ranges import Latency, Size, SizeOrNone

SCHEMA = "hwnas.baseline/2"
UNSIGNED_SCHEMA = "hwnas.baseline/1"  # of earlier versions, without a checksum
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One network as it was when the baseline was recorded.

    Attributes:
        model: as the user named it: a path, a timm name, `module:function`.
        network_hash: of its structure and weights.
        commit: the git commit whose tree holds this very file; empty where there is none.
        repeats_ms: the lower decile of each repeat, by which the check decides.
        medians_ms: the median of each repeat.
        input_shape: sizes that were asked for; empty for the model's own.
    """

    __pydantic_config__ = STRICT
    model: str
    network_hash: str
    commit: str
    repeats_ms: tuple[Latency, ...]
    medians_ms: tuple[Latency, ...]
    input_shape: tuple[Size, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What later checks compare with.

    Attributes:
        device: the profile's name.
        recorded_at: UTC, ISO 8601.
        hwnas_version: that recorded it.
        batch: images a run that were asked for; 0 for the profile's.
        device_options: that were given over those of the profile.
    """

    __pydantic_config__ = STRICT
    device: str
    fingerprint: Fingerprint
    recorded_at: str
    hwnas_version: str
    networks: tuple[Recorded, ...]
    batch: SizeOrNone = 0
    device_options: dict[str, Option] = field(default_factory=dict)

    def find(self, model: str) -> Recorded:
        """The recorded network of this name. Raises InputError where there is none, with those there are."""
        for recorded in self.networks:
            if recorded.model == model:
                return recorded
        raise InputError(
            f"the baseline has no network {model!r}, only {', '.join(r.model for r in self.networks)}",
            "name it as it was recorded, or record it: hwnas check record MODEL …",
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as a document."""
        return {"schema": SCHEMA, **encode(self)}


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        InputError: unreadable, changed since it was recorded, of a newer version, without a network or a
            sample, or with a sample that is no latency.
    """
    plain = read_json(path)
    unsigned = isinstance(plain, dict) and plain.get("schema") == UNSIGNED_SCHEMA
    if not unsigned:
        plain = check_signature(check_schema(plain, SCHEMA, path), path)
    baseline = decode(Baseline, check_schema(plain, UNSIGNED_SCHEMA, path) if unsigned else plain, path)
    again = f"record it again: hwnas check record MODEL … --device {baseline.device} --out {path}"
    if not baseline.networks:
        raise InputError(f"{path}: it holds no network", again)
    for recorded in baseline.networks:
        samples_ms = (*recorded.repeats_ms, *recorded.medians_ms)
        if not recorded.repeats_ms or len(recorded.medians_ms) != len(recorded.repeats_ms):
            raise InputError(f"{path}: {recorded.model} has no samples", again)
        if not all(math.isfinite(sample) and sample > 0 for sample in samples_ms):
            raise InputError(f"{path}: {recorded.model} has a latency that is not above zero", again)
    return baseline


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all; latencies are rounded to five digits."""
    plain = encode(baseline)
    for key in ("batch", "device_options"):
        if not plain[key]:
            del plain[key]
    for network in plain["networks"]:
        if not network["input_shape"]:
            del network["input_shape"]
        for key in ("repeats_ms", "medians_ms"):
            network[key] = [float(f"{latency_ms:.{DIGITS}g}") for latency_ms in network[key]]
    write_json(path, {"schema": SCHEMA, **signed(plain)})
