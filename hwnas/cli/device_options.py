"""Options that change a device profile for one command."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

Batch = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Images a run, where the device has batches.", show_default="the profile's"),
]
AnyGpu = Annotated[bool, typer.Option("--any-gpu", help="Measure on another GPU than the profile is for.")]
