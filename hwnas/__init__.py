"""hwnas: measure whole networks on real devices and compress them for those devices."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hwnas.version import __version__

if TYPE_CHECKING:
    from hwnas.api import (
        Checkpoint,
        Run,
        check,
        compare,
        compress,
        devices,
        evaluate,
        load,
        open_run,
        partition,
        profile,
    )
    from hwnas.compress.data import Data, Images
    from hwnas.compress.emit.evaluation import Evaluation
    from hwnas.compress.search.record import FrontRecord as Front
    from hwnas.compress.tasks.task import Measure, Metric, Task
    from hwnas.measurement import Measurement
    from hwnas.progress import Progress

__all__ = [
    "Checkpoint",
    "Data",
    "Evaluation",
    "Front",
    "Images",
    "Measure",
    "Measurement",
    "Metric",
    "Progress",
    "Run",
    "Task",
    "__version__",
    "check",
    "compare",
    "compress",
    "devices",
    "evaluate",
    "load",
    "open_run",
    "partition",
    "profile",
]

_PLACES = {
    "Data": ("hwnas.compress.data", "Data"),
    "Evaluation": ("hwnas.compress.emit.evaluation", "Evaluation"),
    "Images": ("hwnas.compress.data", "Images"),
    "Measure": ("hwnas.compress.tasks.task", "Measure"),
    "Metric": ("hwnas.compress.tasks.task", "Metric"),
    "Task": ("hwnas.compress.tasks.task", "Task"),
    "Front": ("hwnas.compress.search.record", "FrontRecord"),
    "Measurement": ("hwnas.measurement", "Measurement"),
    "Progress": ("hwnas.progress", "Progress"),
}
"""Where names lie that are not in `hwnas.api`."""


def __getattr__(name: str) -> Any:
    """Import what takes time only where it is used."""
    if name not in __all__:
        raise AttributeError(f"module 'hwnas' has no attribute {name!r}")
    module, attribute = _PLACES.get(name, ("hwnas.api", name))
    return getattr(import_module(module), attribute)
