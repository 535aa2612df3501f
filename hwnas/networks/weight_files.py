"""Files of weights: told apart by what they hold, not by their names, and read without running code."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hwnas.errors import InputError, first_line
from hwnas.files import LFS_POINTER

HEAD_BYTES = 64
LARGEST_HEADER_BYTES = 100_000_000  # of safetensors, as the format says
SAVE = "save them with safetensors.torch.save_file(model.state_dict(), FILE)"


def read_file(path: Path) -> object:
    """What safetensors or torch.load read of a file; nothing is unpickled but tensors and plain values.

    Raises:
        InputError: no file, none of weights, one that holds more, or a damaged one.
    """
    if path.is_dir():
        inside = sorted(
            file.name for file in path.iterdir() if file.suffix in (".safetensors", ".pth", ".pt", ".bin")
        )
        fix = (
            f"name a file in it: {path / inside[0]}" if inside else "name a file: --weights FILE.safetensors"
        )
        raise InputError(f"{path} is a folder, not a weights file", fix)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}", "check the path")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            _check_head(path, head)
            if _is_safetensors(head) or (path.suffix == ".safetensors" and not _is_torch(head)):
                from safetensors.torch import load_file

                return load_file(path)
            file.seek(0)
            with warnings.catch_warnings(), _tensors_alone():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ", or is not a weights file"
        raise InputError(
            f"{path} holds more than tensors{what}; nothing of it was executed",
            "save the tensors alone: safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from None
    except Exception as error:  # zip files, pickles and safetensors are damaged in their own ways
        raise InputError(f"cannot read weights from {path}: {first_line(error)}", SAVE) from None


def _check_head(path: Path, head: bytes) -> None:
    if not head:
        raise InputError(f"cannot read weights from {path}: it is empty", "copy or download it again")
    if head.startswith(LFS_POINTER):
        raise InputError(
            f"cannot read weights from {path}: it is a Git LFS pointer, the weights were never fetched",
            f"git lfs pull --include {path.name}",
        )
    if head.lstrip().startswith(b"<"):
        raise InputError(
            f"cannot read weights from {path}: it is a web page", "download the file itself, not its page"
        )
    if head.lstrip().startswith(b"{"):
        raise InputError(
            f"cannot read weights from {path}: it is JSON",
            "name the weights file; weights in several files are put together first",
        )


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER_BYTES


def _is_torch(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"\x80"))


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Whatever classes other code declared to be safe to unpickle are not, for a while."""
    declared = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(declared)
