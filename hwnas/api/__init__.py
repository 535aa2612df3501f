"""The public functions. They say nothing unless a `Progress` is given, and work in notebooks and threads."""

from __future__ import annotations

from hwnas.api.batch import check_devices, write_batch
from hwnas.api.compression import Compression, compress, plan_compression
from hwnas.api.device import (
    KnownDevice,
    broken_device_classes,
    devices,
    examine_device,
    known_devices,
    reach_devices,
    set_up_phone,
)
from hwnas.api.evaluation import evaluate
from hwnas.api.measure import check, compare, profile, profile_each, record
from hwnas.api.measured import export_history, history, import_history
from hwnas.api.models import (
    Candidates,
    Cuts,
    Model,
    find_candidates,
    find_cuts,
    find_model,
    name_of,
    partition,
)
from hwnas.api.run import Checkpoint, Run, load, open_run

__all__ = [
    "Candidates",
    "Checkpoint",
    "Compression",
    "Cuts",
    "KnownDevice",
    "Model",
    "Run",
    "broken_device_classes",
    "check",
    "check_devices",
    "compare",
    "compress",
    "devices",
    "evaluate",
    "examine_device",
    "export_history",
    "find_candidates",
    "find_cuts",
    "find_model",
    "history",
    "import_history",
    "known_devices",
    "load",
    "name_of",
    "open_run",
    "partition",
    "plan_compression",
    "profile",
    "profile_each",
    "reach_devices",
    "record",
    "set_up_phone",
    "write_batch",
]
