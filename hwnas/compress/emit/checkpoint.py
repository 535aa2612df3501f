"""Emitted networks: a directory with everything that is needed to use one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from hwnas.compress.emit.model_card import model_card
from hwnas.compress.emit.summary import (
    Summary,
    read_summary,
)
from hwnas.errors import InputError
from hwnas.files import (
    encode,
    sha256_of_plain,
    write_bytes,
    write_json,
)
from hwnas.measurement import Measurement
from hwnas.network import Network
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.intact import OWN, SUMMARY_SCHEMA, file_hashes, require_intact
from hwnas.networks.serialize import save_module
from hwnas.temporary import LEFTOVER


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
        hashes = file_hashes(folder)
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


def is_intact(path: Path) -> bool:
    """Whether a checkpoint's files are the ones that were written."""
    try:
        require_intact(path)
        read_summary(path)
    except InputError:
        return False
    return (path / "README.md").is_file()
