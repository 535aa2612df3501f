"""Options that change a device profile for one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from hwnas.ranges import LARGEST_SIZE

Batch = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=1,
        max=LARGEST_SIZE,
        help="Images a run, where the device has batches.",
        show_default="the profile's",
    ),
]
InputShape = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="CxHxW",
        help="Images of this shape; sizes that an ONNX file leaves open.",
        show_default="the model's own",
    ),
]
AnyGpu = Annotated[bool, typer.Option("--any-gpu", help="Measure on another GPU than the profile is for.")]
AllowFallback = Annotated[
    bool,
    typer.Option("--allow-fallback", help="Let a phone's CPU run what its accelerator cannot; recorded."),
]
NoDeviceCheck = Annotated[
    bool,
    typer.Option(
        "--no-device-check", help="Train without asking first whether the devices are there and can be used."
    ),
]
RuntimeDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder with ONNX Runtime's libraries for a phone.", show_default="as set up"),
]
Mode = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Force a simulated device's schedule: layer-by-layer, single-layer, fully-cached, "
        "h-cached-v-recompute, fully-recompute.",
        show_default="the best one",
    ),
]
Tile = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="COLUMNSxROWS", help="Force the output tile of every stack of a simulated device."),
]
Stacks = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="N,N,…", help="Force a simulated device's stacks: positions of their last layers."),
]
AllowUnknown = Annotated[
    bool,
    typer.Option("--allow-unknown", help="Charge operators that a simulated device does not know as copies."),
]
