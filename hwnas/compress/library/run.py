"""An open run: everything that its devices share."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.compress.executor import Executor
from hwnas.compress.library.store import Library
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.settings import LibrarySettings
from hwnas.measurement import Interval
from hwnas.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run directory with a complete library, open for any number of devices.

    Attributes:
        accuracy: of the reference; None without labels.
        executor: of the tasks that need no device.
    """

    settings: LibrarySettings
    allow_code: bool
    directory: RunDirectory
    reference: Reference
    accuracy: Interval | None
    library: Library
    executor: Executor
    progress: Progress
