"""Folders of networks carry the hashes of their files; whoever reads one of these files asks them first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.errors import InputError
from hwnas.files import (
    check_schema,
    check_signature,
    read_bytes,
    read_json,
    sha256,
    sha256_of_plain,
    sha256_of_unchanged,
)

SUMMARY_SCHEMA = "hwnas.checkpoint/2"
REFERENCE_SCHEMA = "hwnas.reference/1"
CHECKPOINT_RECORD, REFERENCE_RECORD = "measurement.json", "reference.json"
OWN = "summary and measurement"
"""Under which `measurement.json` has the hash of what else it says, in canonical JSON."""
OF_REFERENCE = {
    "model.safetensors": "weights_sha256",
    "architecture.json": "architecture_sha256",
    "model.onnx": "onnx_sha256",
}
"""A network's files, and the keys of their hashes in `reference.json`; early versions had the first alone."""


def require_intact(path: Path) -> None:
    """Refuse a checkpoint or a run's reference of which a file is not the one that was written.

    Args:
        path: its folder, or one file of it, which is then asked for alone. Any other folder and file pass.

    Raises:
        InputError: names the file that is damaged.
    """
    folder = path if path.is_dir() else path.parent
    for name, digest in recorded_hashes(folder).items():
        if path.name in (folder.name, name) and sha256_of_unchanged(folder / name) != digest:
            raise _damaged(folder, name)


def recorded_hashes(folder: Path) -> Mapping[str, str]:
    """The SHA-256 of each file of a checkpoint or a run's reference, by name; none of any other folder.

    Raises:
        InputError: the record that holds them is damaged or missing.
    """
    if _is_record(folder, CHECKPOINT_RECORD, SUMMARY_SCHEMA):
        return _of_checkpoint(folder)
    if _is_record(folder, REFERENCE_RECORD, REFERENCE_SCHEMA):
        file = folder / REFERENCE_RECORD
        plain = check_signature(check_schema(read_json(file), REFERENCE_SCHEMA, file), file)
        return {name: plain[key] for name, key in OF_REFERENCE.items() if key in plain}
    if not (folder / "architecture.json").exists():
        return {}
    raise InputError(
        f"{folder} has neither {CHECKPOINT_RECORD} nor {REFERENCE_RECORD}: it was never confirmed to be "
        "the network that was made, or lost what tells so",
        f"restore that file, or give the command that made {folder} again",
    )


def _is_record(folder: Path, name: str, schema: str) -> bool:
    """Whether a file is a record of hwnas: one that says so, or any beside an architecture."""
    if not (folder / name).is_file():
        return False
    if (folder / "architecture.json").exists():
        return True
    try:
        plain = read_json(folder / name)
    except InputError:
        return False
    return isinstance(plain, dict) and plain.get("schema") == schema


def _of_checkpoint(folder: Path) -> Mapping[str, str]:
    file = folder / CHECKPOINT_RECORD
    plain = check_schema(read_json(file), SUMMARY_SCHEMA, file)
    hashes = plain.get("sha256")
    if not isinstance(hashes, dict) or not hashes.keys() >= {*OF_REFERENCE, OWN}:
        raise _damaged(folder, CHECKPOINT_RECORD)
    if hashes[OWN] != hash_of_record(plain):
        raise _damaged(folder, CHECKPOINT_RECORD)
    return {name: digest for name, digest in hashes.items() if name != OWN}


def file_hashes(folder: Path) -> dict[str, str]:
    """The hashes of the files of a network, by name."""
    return {name: sha256(read_bytes(folder / name)) for name in OF_REFERENCE}


def reference_hashes(folder: Path) -> dict[str, str]:
    """The same as the record of a run's reference has them."""
    return {OF_REFERENCE[name]: digest for name, digest in file_hashes(folder).items()}


def hash_of_record(plain: Mapping[str, Any]) -> str:
    """The hash of what `measurement.json` says of a checkpoint."""
    record = {key: plain.get(key) for key in ("summary", "measurement")}
    return sha256_of_plain(json.loads(json.dumps(record)))


def _damaged(folder: Path, name: str) -> InputError:
    return InputError(
        f"{folder / name} is damaged: it is not the file that was written",
        f"restore it, or give the command that made {folder} again",
    )
