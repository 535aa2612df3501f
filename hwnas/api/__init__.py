"""The public functions. They say nothing unless a `Progress` is given, and work in notebooks and threads."""

from __future__ import annotations

from hwnas.api.compression import Compression, compress, plan_compression
from hwnas.api.measure import CHECK_SECONDS, check, compare, devices, profile, profile_each, record
from hwnas.api.models import Model, find_model, name_of, partition
from hwnas.api.run import Checkpoint, Run, load, open_run

__all__ = [
    "CHECK_SECONDS",
    "Checkpoint",
    "Compression",
    "Model",
    "Run",
    "check",
    "compare",
    "compress",
    "devices",
    "find_model",
    "load",
    "name_of",
    "open_run",
    "partition",
    "plan_compression",
    "profile",
    "profile_each",
    "record",
]
