"""Options that change a device profile for one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.ranges import LARGEST_SIZE

Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=LARGEST_SIZE,
        help="Images a run, where the device has batches.",
        show_default="the profile's",
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        metavar="CxHxW",
        help="Images of this shape; sizes that an ONNX file leaves open.",
        show_default="the model's own",
    ),
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Over the device profile's options, such as any_gpu=true or mode=single-layer; may be "
        "repeated. docs/devices.md has those of each device.",
    ),
]
NoDeviceCheck = Annotated[
    bool,
    typer.Option(
        "--no-device-check", help="Train without asking first whether the devices are there and can be used."
    ),
]
RuntimeDir = Annotated[
    Path | None,
    typer.Option(help="Folder with ONNX Runtime's libraries for a phone.", show_default="as set up"),
]
