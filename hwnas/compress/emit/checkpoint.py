"""Emitted networks: a directory with everything that is needed to use one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from hwnas.compress.emit.model_card import model_card
from hwnas.compress.emit.summary import CheckpointRecord
from hwnas.errors import InputError
from hwnas.files import write_bytes
from hwnas.network import Network
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.intact import require_intact
from hwnas.networks.serialize import save_module
from hwnas.temporary import LEFTOVER


def write_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    architecture: ArchitectureSpec,
    network: Network,
    record: CheckpointRecord,
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
        record.write(folder)
        write_bytes(folder / "README.md", model_card(path.name, architecture, record).encode())
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
        CheckpointRecord.read(path)
    except InputError:
        return False
    return (path / "README.md").is_file()
