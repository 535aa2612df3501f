"""What a user may ask of a measurement: each option once, with its help and its default.

The command line and `hwnas.api` are made from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from hwnas.options import Help, read_fraction, read_shape
from hwnas.ranges import LARGEST_SECONDS, Figure, Setting, Size

MEASURING, INSIDE = "How it is measured", "Inside the networks"

SecondsOrMore = Annotated[float, Interval(ge=1, le=LARGEST_SECONDS)]

Batch = Annotated[
    Size | None, Help("Images a run, where the device has batches.", MEASURING, shown="the profile's")
]
InputShape = Annotated[
    tuple[Setting, ...] | None,
    Help(
        "Images of this shape; sizes that an ONNX file leaves open.",
        MEASURING,
        shown="the model's own",
        metavar="CxHxW",
        read=read_shape,
    ),
]
DeviceOption = Annotated[
    tuple[str, ...],
    Help(
        "Over the device profile's options, such as any_gpu=true or mode=single-layer; may be "
        "repeated. docs/devices.md has those of each device.",
        MEASURING,
        metavar="KEY=VALUE",
    ),
]
CheckSeconds = Annotated[
    SecondsOrMore, Help("Longest time for each network; less where less is enough.", MEASURING)
]


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Options of `hwnas profile`, beside networks, devices and how the result is shown."""

    protocol: Annotated[
        str,
        Help("adaptive, quick, search, report, or a .toml file.", shown="the profile's, or adaptive"),
    ] = ""
    precision: Annotated[
        Figure | None,
        Help(
            "Go on until half of the median's 95 % interval is at most this.",
            MEASURING,
            shown="the protocol's",
            read=read_fraction,
        ),
    ] = None
    max_seconds: Annotated[
        Annotated[float, Interval(ge=0.1, le=LARGEST_SECONDS)] | None,
        Help("Begin no repeat later than this.", MEASURING, shown="the protocol's"),
    ] = None
    batch: Batch = None
    input_shape: InputShape = None
    operators: Annotated[bool, Help("Show the time of each operator, where the device tells.", INSIDE)] = (
        False
    )
    blocks: Annotated[bool, Help("Measure each part alone too, and show how wrong their sum is.", INSIDE)] = (
        False
    )
    cut: Annotated[str, Help("Modules behind which to cut, NAME,NAME.", INSIDE, shown="the stages")] = ""
    device_option: DeviceOption = ()
    explain: Annotated[bool, Help("Show which layers a simulated device fuses, and why it pays.", INSIDE)] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of `hwnas compare`, beside the two networks and the device."""

    precision: Annotated[
        float,
        Help(
            "Go on until half of the ratio's 95 % interval is at most this.",
            MEASURING,
            shown="1%",
            read=read_fraction,
        ),
    ] = 0.01
    max_seconds: Annotated[SecondsOrMore, Help("Longest time.", MEASURING)] = 45.0
    batch: Batch = None
    device_option: DeviceOption = ()
    input_shape: InputShape = None


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """Options of `hwnas check record`, beside networks, the device and the file."""

    max_seconds: CheckSeconds = 45.0
    batch: Batch = None
    input_shape: InputShape = None
    device_option: DeviceOption = ()


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of `hwnas check run`, beside the networks and the files that are written."""

    baseline: Annotated[
        str, Help("A baseline file (.json), a git revision, or the baseline network itself.")
    ] = "hwnas-baseline.json"
    device: Annotated[str | None, Help("Device profile.", shown="the baseline file's")] = None
    threshold: Annotated[float, Help("How much slower a network may be.", shown="5%", read=read_fraction)] = (
        0.05
    )
    max_seconds: CheckSeconds = RecordOptions.max_seconds
    batch: Batch = None
    input_shape: InputShape = None
    device_option: DeviceOption = ()
    recorded: Annotated[
        bool, Help("Compare with the recorded samples even where the network is at hand.")
    ] = False
