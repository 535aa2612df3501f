"""Folders of networks carry the hashes of their files; whoever reads one of these files asks them first."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwnas.errors import InputError
from hwnas.files import (
    check_schema,
    check_signature,
    decode,
    read_bytes,
    read_json,
    sha256,
    sha256_of_plain,
    sha256_of_unchanged,
    write_json,
)
from hwnas.measurement import STRICT
from hwnas.ranges import Figure

CHECKPOINT_SCHEMA = "hwnas.checkpoint/2"
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


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """What a folder's record says of the network in it, whether a checkpoint or a run's reference.

    Attributes:
        hashes: the SHA-256 of each file, by name.
        answer: some values of the network's output, by which it is known again; None where it was not asked.
    """

    __pydantic_config__ = STRICT
    hashes: dict[str, str] = field(default_factory=dict)
    answer: tuple[Figure, ...] | None = None

    @staticmethod
    def read(folder: Path) -> NetworkRecord:
        """Read the record of a folder; an empty one of a folder that is neither of the two.

        Raises:
            InputError: the record is damaged or missing.
        """
        if _is_record(folder, CHECKPOINT_RECORD, CHECKPOINT_SCHEMA):
            file = folder / CHECKPOINT_RECORD
            plain = _plain_checkpoint(folder)
            hashes = {name: digest for name, digest in plain["sha256"].items() if name != OWN}
            summary = plain["summary"]
            answer = summary.get("answer") if isinstance(summary, dict) else None
        elif _is_record(folder, REFERENCE_RECORD, REFERENCE_SCHEMA):
            file = folder / REFERENCE_RECORD
            plain = check_signature(check_schema(read_json(file), REFERENCE_SCHEMA, file), file)
            hashes = {name: plain[key] for name, key in OF_REFERENCE.items() if key in plain}
            answer = plain.get("answer")
        elif (folder / "architecture.json").exists():
            raise InputError(
                f"{folder} has neither {CHECKPOINT_RECORD} nor {REFERENCE_RECORD}: it was never confirmed to "
                "be the network that was made, or lost what tells so",
                f"restore that file, or give the command that made {folder} again",
            )
        else:
            return NetworkRecord()
        return decode(NetworkRecord, {"hashes": hashes, "answer": answer}, file)


def require_intact(path: Path) -> NetworkRecord:
    """Refuse a checkpoint or a run's reference of which a file is not the one that was written.

    Args:
        path: its folder, or one file of it, which is then asked for alone. Any other folder and file pass.

    Returns:
        The record of the folder.

    Raises:
        InputError: names the file that is damaged.
    """
    folder = path if path.is_dir() else path.parent
    record = NetworkRecord.read(folder)
    for name, digest in record.hashes.items():
        if path.name in (folder.name, name) and sha256_of_unchanged(folder / name) != digest:
            raise _damaged(folder, name)
    return record


def write_checkpoint_record(folder: Path, summary: Any, measurement: Any) -> None:
    """Write `measurement.json`: plain data, with their hash and those of the files beside it."""
    said = {"summary": summary, "measurement": measurement}
    hashes = {**file_hashes(folder), OWN: _hash_of(said)}
    write_json(folder / CHECKPOINT_RECORD, {"schema": CHECKPOINT_SCHEMA, "sha256": hashes, **said})


def read_checkpoint_record(folder: Path) -> tuple[Any, Any]:
    """Read what `write_checkpoint_record` wrote: summary and measurement as plain data.

    Raises:
        InputError: they are not what was written.
    """
    plain = _plain_checkpoint(folder)
    return plain["summary"], plain["measurement"]


def file_hashes(folder: Path) -> dict[str, str]:
    """The hashes of the files of a network, by name."""
    return {name: sha256(read_bytes(folder / name)) for name in OF_REFERENCE}


def reference_hashes(folder: Path) -> dict[str, str]:
    """The same as the record of a run's reference has them."""
    return {OF_REFERENCE[name]: digest for name, digest in file_hashes(folder).items()}


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


def _plain_checkpoint(folder: Path) -> dict[str, Any]:
    file = folder / CHECKPOINT_RECORD
    plain = check_schema(read_json(file), CHECKPOINT_SCHEMA, file)
    said = {key: plain.get(key) for key in ("summary", "measurement")}
    hashes = plain.get("sha256")
    if not isinstance(hashes, dict) or not hashes.keys() >= {*OF_REFERENCE, OWN}:
        raise _damaged(folder, CHECKPOINT_RECORD)
    if hashes[OWN] != _hash_of(said):
        raise _damaged(folder, CHECKPOINT_RECORD)
    return {"sha256": hashes, **said}


def _hash_of(said: dict[str, Any]) -> str:
    return sha256_of_plain(json.loads(json.dumps(said)))


def _damaged(folder: Path, name: str) -> InputError:
    return InputError(
        f"{folder / name} is damaged: it is not the file that was written",
        f"restore it, or give the command that made {folder} again",
    )
