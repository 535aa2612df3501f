"""The README.md of a checkpoint."""

from __future__ import annotations

from hwnas.compress.emit.summary import (
    CheckpointRecord,
    agreement_of,
    capital,
    compared_with,
    milliseconds,
    ratio,
)
from hwnas.compress.tasks.task import difference, quantity
from hwnas.files import encode
from hwnas.measurement import Interval
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.partition import part_names
from hwnas.profiles.judgement import as_sentence, judge
from hwnas.version import __version__


def model_card(name: str, architecture: ArchitectureSpec, record: CheckpointRecord) -> str:
    """The checkpoint's README.md."""
    summary, measurement = record.summary, record.measurement
    fingerprint = "\n".join(f"| {key} | {value} |" for key, value in encode(measurement.fingerprint).items())
    protocol = measurement.protocol
    named = _function_of(architecture.reference)
    at = measurement.fingerprint.precision
    label = summary.metric.name

    def said(interval: Interval | None) -> str:
        return quantity(interval, summary.metric)

    precision = (
        "" if at == "fp32" else f"- Measured in {at}; `model.onnx` and each {label} above are in fp32.\n"
    )
    if summary.accuracy_in_precision is not None:
        precision += (
            f"- {capital(label)} in {at}, by {summary.runtime_in_precision}: "
            f"{said(summary.accuracy_in_precision)}.\n"
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
    trained = ", ".join(map(str, summary.trained_shape or ()))
    sizes = f"- Latency and MACs are of images of {shape}; {label} of {trained}.\n" if trained else ""
    rows = [
        (
            "latency, median",
            milliseconds(summary.latency_reference_ms),
            milliseconds(summary.latency_ms),
        ),
        ("MACs", f"{summary.macs_reference:,}", f"{summary.macs:,}"),
        ("parameters", f"{summary.params_reference:,}", f"{summary.params:,}"),
        (label, said(summary.accuracy_reference), said(summary.accuracy)),
        *(
            (each.metric.name, quantity(each.reference, each.metric), quantity(each.value, each.metric))
            for each in summary.further_metrics
        ),
    ]
    beside = "".join(
        f"- {capital(each.metric.name)}: difference {difference(each.difference, each.metric)}.\n"
        for each in summary.further_metrics
    )
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
{sizes}{judged}{refusal}\
- {capital(label)} on the test part of `{summary.data}`. Difference to the reference on
  the same images: {difference(summary.accuracy_difference, summary.metric)}.
{beside}- {agreement_of(summary)}.
- Before finetuning: {said(summary.accuracy_stitched)}.
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


def _function_of(reference: ReferenceSpec) -> str | None:
    """The `module:function` that building the network calls, if any."""
    if reference.architecture is not None:
        return _function_of(reference.architecture.reference)
    return reference.name if reference.source == "function" else None
