"""Emitted networks: a directory with everything that is needed to use one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hwnas.compress.data.task import ACCURACY, CLASSIFICATION, Metric, difference, quantity
from hwnas.errors import InputError
from hwnas.files import (
    check_schema,
    decode,
    encode,
    read_bytes,
    read_json,
    sha256,
    sha256_of_plain,
    write_bytes,
    write_json,
)
from hwnas.measurement import STRICT, Interval, Measurement
from hwnas.network import Network
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.intact import OWN, SUMMARY_SCHEMA, require_intact
from hwnas.networks.partition import part_names
from hwnas.networks.serialize import HASHED, save_module
from hwnas.profiles.judgement import as_sentence, judge
from hwnas.ranges import Count, Figure, Position
from hwnas.temporary import LEFTOVER
from hwnas.version import __version__


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a finished checkpoint amounts to, beside its measurement.

    Attributes:
        pick: the rule by which the architecture was picked from the front.
        choices: of each part; 0 is the reference's own.
        anchor: choices of the architecture that latencies are compared with: all 0, the reference, unless
            the device refuses that.
        latency_ms, latency_anchor_ms: medians, with intervals over the repeats.
        latency_reference_ms: as the anchor's; None where the device refuses the reference.
        latency_ratio: to the anchor, the two interleaved in one session.
        accuracy_stitched: before finetuning, batch normalisation recalibrated.
        accuracy, accuracy_reference, accuracy_difference: on the test part, by the task's metric, which
            `metric` names; None without labels.
        agreement: how far network and reference give the same on the test part, by `agreement_metric`; for
            classes the share of images on which they answer alike.
        accuracy_in_precision: in the precision that was measured, by ONNX Runtime on a CPU; None for fp32 and
            where there is no such graph.
        macs, params: of the network, and of the reference.
        finetune_epochs: over the training part.
        protocol: by which the latencies were taken.
        fingerprint: id of the fingerprint that they belong to.
        command: that made it.
        answer: some values of the network's output for a random input, by which it is known again.
    """

    __pydantic_config__ = STRICT
    pick: str
    device: str
    data: str
    choices: tuple[Position, ...]
    anchor: tuple[Position, ...]
    latency_ms: Interval
    latency_anchor_ms: Interval
    latency_reference_ms: Interval | None
    latency_ratio: Interval
    accuracy_stitched: Interval | None
    accuracy: Interval | None
    accuracy_reference: Interval | None
    accuracy_difference: Interval | None
    agreement: Interval
    macs: Count
    macs_reference: Count
    params: Count
    params_reference: Count
    finetune_epochs: Count
    protocol: str
    fingerprint: str
    command: str
    accuracy_in_precision: Interval | None = None
    task: str = "classification"
    metric: Metric = ACCURACY
    agreement_metric: Metric = CLASSIFICATION.agreement_metric
    answer: tuple[Figure, ...] | None = None


def write_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    architecture: ArchitectureSpec,
    network: Network,
    measurement: Measurement,
    summary: Summary,
    confirm: Callable[[Path], None],
) -> None:
    """Write a checkpoint directory: it appears with all of its files, or not at all.

    Args:
        confirm: is given the directory before it gets its name; what it raises leaves nothing behind.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=LEFTOVER, dir=path.parent))
    old = folder.with_name(f".{path.name}.old{LEFTOVER}")
    try:
        save_module(module, folder / "model.safetensors")
        architecture.save(folder / "architecture.json")
        write_bytes(folder / "model.onnx", network.onnx())
        record = {"summary": encode(summary), "measurement": measurement.to_json()}
        hashes = {name: sha256(read_bytes(folder / name)) for name in HASHED}
        hashes[OWN] = sha256_of_plain(json.loads(json.dumps(record)))
        write_json(folder / "measurement.json", {"schema": SUMMARY_SCHEMA, "sha256": hashes, **record})
        write_bytes(folder / "README.md", model_card(path.name, architecture, measurement, summary).encode())
        confirm(folder)
        folder.chmod(0o755)
        if path.exists():
            path.replace(old)
        folder.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_summary(path: Path) -> Summary:
    """The summary in a checkpoint's `measurement.json`. Raises InputError naming what is wrong."""
    file = path / "measurement.json"
    return decode(
        Summary, check_schema(read_json(file), SUMMARY_SCHEMA, file).get("summary"), f"{file}: summary"
    )


def model_card(name: str, architecture: ArchitectureSpec, measurement: Measurement, summary: Summary) -> str:
    """The checkpoint's README.md."""
    fingerprint = "\n".join(f"| {key} | {value} |" for key, value in encode(measurement.fingerprint).items())
    protocol = measurement.protocol
    named = _function_of(architecture.reference)
    at = measurement.fingerprint.precision
    label = summary.metric.name

    def told(interval: Interval | None) -> str:
        return quantity(interval, summary.metric)

    precision = (
        "" if at == "fp32" else f"- Measured in {at}; `model.onnx` and each {label} above are in fp32.\n"
    )
    if summary.accuracy_in_precision is not None:
        precision += (
            f"- {capital(label)} in {at}, by ONNX Runtime on a CPU: {told(summary.accuracy_in_precision)}.\n"
        )
    refusal = (
        "- The device refuses the reference, whose latency there is not known. The anchor is the accepted\n"
        "  architecture with the lowest loss.\n"
        if any(summary.anchor)
        else ""
    )
    judged = "".join(f"- {as_sentence(finding.text)}\n" for finding in judge(measurement))
    parts = "\n".join(
        f"| {name} | {spec.name if spec else 'the reference’s own'} |"
        for name, spec in zip(part_names(len(architecture.parts) - 2), architecture.parts, strict=True)
    )
    shape = ", ".join(str(size) for size in architecture.input_shape)
    rows = [
        (
            "latency, median",
            milliseconds(summary.latency_reference_ms),
            milliseconds(summary.latency_ms),
        ),
        ("MACs", f"{summary.macs_reference:,}", f"{summary.macs:,}"),
        ("parameters", f"{summary.params_reference:,}", f"{summary.params:,}"),
        (label, told(summary.accuracy_reference), told(summary.accuracy)),
    ]
    table = "\n".join(f"| {label} | {before} | {after} |" for label, before, after in rows)
    return f"""# {name}

{architecture.reference.name}, compressed by hwnas for the device `{summary.device}`.

| | reference | this network |
|---|---|---|
{table}

In brackets: 95 % intervals.

- Latency: {ratio(summary.latency_ratio)} of {compared_with(summary)}; the two interleaved in one session.
  Spread of the repeats {measurement.spread:.1%}; protocol `{protocol.name}` ({protocol.repeats} repeats, \
each at least {protocol.min_runs} runs and {protocol.min_s:g} s). All samples are in `measurement.json`.
{judged}{refusal}- {capital(label)} on the test part of `{summary.data}`. Difference to the reference on
  the same images: {difference(summary.accuracy_difference, summary.metric)}.
- {agreement_of(summary)}.
- Before finetuning: {told(summary.accuracy_stitched)}.
- Finetuned for {summary.finetune_epochs} epochs against the reference's output.
{precision}
## Use

```python
import hwnas
module = hwnas.load("PATH OF THIS DIRECTORY"{", allow_code=True" if named else ""})  # a torch module
```

Its output is what `model.onnx` gives.{f" It imports and calls `{named}`." if named else ""}

Input: (batch, {shape}), pixels in 0 … 1 normalised with mean {architecture.mean} and standard deviation \
{architecture.std}.

## Architecture

| part | choice |
|---|---|
{parts}

## Measured on

| | |
|---|---|
{fingerprint}

{measurement.started_at}, with hwnas {__version__}: `{summary.command}`
"""


def agreement_of(summary: Summary) -> str:
    """How far the network gives what the reference gives, in words."""
    told = quantity(summary.agreement, summary.agreement_metric)
    if summary.task == CLASSIFICATION.name:
        return f"On {told} of these images it answers what the reference answers"
    return f"{capital(summary.agreement_metric.name)}: {told}"


def capital(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def _function_of(reference: ReferenceSpec) -> str | None:
    """The `module:function` that building the network calls, if any."""
    if reference.architecture is not None:
        return _function_of(reference.architecture.reference)
    return reference.name if reference.source == "function" else None


def compared_with(summary: Summary) -> str:
    """Which network's latency the ratio is to."""
    if not any(summary.anchor):
        return "the reference"
    name = "-".join(str(choice) for choice in summary.anchor)
    return f"the anchor, architecture {name} before finetuning, {milliseconds(summary.latency_anchor_ms)}"


def milliseconds(interval: Interval | None) -> str:
    """`1.234 ms [1.230, 1.241]`, or that it is not known."""
    if interval is None:
        return "not known (refused by the device)"
    return f"{interval.value:.3f} ms [{interval.low:.3f}, {interval.high:.3f}]"


def ratio(interval: Interval) -> str:
    """`0.497 [0.490, 0.503]`."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def is_intact(path: Path) -> bool:
    """Whether a checkpoint's files are the ones that were written."""
    try:
        require_intact(path)
        read_summary(path)
    except InputError:
        return False
    return (path / "README.md").is_file()
